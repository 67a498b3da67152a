"""What other mail servers are answered: how many questions a second a process takes, and what becomes of
Postfix with popgate behind it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from bench import load
from bench.load import Trial
from bench.sites import CannedSite, PopgateSite, PostfixSite

if TYPE_CHECKING:
    from bench.rows import Bench, Contenders

MYNETWORKS = "Postfix, mynetworks"

_LISTENERS = (
    ("pop3", "plaintext_login = true"),
    ("postfix_policy", 'charge = "end-of-message"'),
    ("postfix_policy", ""),
    ("socketmap", ""),
    ("tcp_table", ""),
)
_ADDRESSES = ("--addr-range", load.SOURCES)
# the null sender is everybody's, and the generator knows one sender for all addresses
_REQUEST = ("--policy-full", "--from", "", "--rcpt", "somebody@elsewhere.example.net")


def _asked(mode: str, port: int, pid: int, count: int, *options: str | int) -> Callable[[], Trial]:
    def trial() -> Trial:
        common = ("-c", load.AT_ONCE, "-n", count, *_ADDRESSES)
        report = load.run(mode, *common, *options, port=port, pid=pid)
        return Trial(report["sessions_per_s"], report["cpu_us_per_session"], milliseconds=report["p99_ms"])

    return trial


def _site(bench: "Bench") -> PopgateSite:
    site = bench.stack.enter_context(PopgateSite(workers=1, listeners=_LISTENERS))
    site.log_in()
    return site


def _with_floor(bench: "Bench", contenders: "Contenders", mode: str, *options: str) -> "Contenders":
    floor = bench.stack.enter_context(CannedSite(mode))
    count = bench.scale.of(200_000)
    contenders["floor: uvloop Protocol, canned answers"] = _asked(
        mode, floor.port, floor.pid, count, *options
    )
    return contenders


def policy(bench: "Bench") -> "Contenders":
    site, count = _site(bench), bench.scale.of(200_000)
    contenders: Contenders = {
        "popgate, counted at the end of the message": _asked(
            "policy", site.port("postfix_policy"), site.pid, count, *_REQUEST
        ),
        "popgate, each a message that is counted (as shipped)": _asked(
            "policy", site.port("postfix_policy", 1), site.pid, count // 4, *_REQUEST
        ),
    }
    return _with_floor(bench, contenders, "policy", *_REQUEST)


def socketmap(bench: "Bench") -> "Contenders":
    site = _site(bench)
    options = ("--map-name", "popgate")
    ours = _asked("socketmap", site.port("socketmap"), site.pid, bench.scale.of(200_000), *options)
    return _with_floor(bench, {"popgate": ours}, "socketmap", *options)


def tcp_table(bench: "Bench") -> "Contenders":
    site = _site(bench)
    ours = _asked("tcpmap", site.port("tcp_table"), site.pid, bench.scale.of(200_000))
    return _with_floor(bench, {"popgate": ours}, "tcpmap")


def behind_postfix(bench: "Bench") -> "Contenders":
    """Postfix's own relay decision; CPU is that of both servers."""
    site = bench.stack.enter_context(PopgateSite(listeners=_LISTENERS))
    site.log_in()
    count = bench.scale.of(6_000)
    contenders: Contenders = {}

    def contender(asks: str, service: str) -> Callable[[], Trial]:
        asks = asks.format(port=site.port(service) if service else 0)
        peer = bench.stack.enter_context(PostfixSite(does_hold=True, asks=asks))
        options = (
            *("-c", load.AT_ONCE, "-n", count, "--users", load.USERS, "--source-range", load.SOURCES),
            *("--from", "user%d@example.org", "--helo", "device.example.org"),
            *("--rset", "--rcpt", "somebody@elsewhere.example.net"),
        )
        pids = f"{peer.pid},{site.pid}" if service else peer.pid
        return lambda: load.sessions(load.run("smtp", *options, port=peer.port, pid=pids))

    policy_service = (
        "check_policy_service {{ inet:127.0.0.1:{port}, timeout=3s, try_limit=2, retry_delay=1s }}"
    )
    for name, asks, service in (
        ("popgate behind Postfix, policy", policy_service, "postfix_policy"),
        (
            "popgate behind Postfix, socketmap",
            "check_client_access socketmap:inet:127.0.0.1:{port}:popgate",
            "socketmap",
        ),
        (MYNETWORKS, "", ""),
    ):
        bench.peer(
            contenders,
            name,
            lambda asks=asks, service=service: contender(asks, service),  # type: ignore[misc]
        )
    return contenders
