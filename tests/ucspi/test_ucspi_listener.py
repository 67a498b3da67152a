"""A listener for programs: what they are given, who gets one, and that nothing is left behind."""

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from popgate.integrations.ucspi.environment import Ends
from popgate.integrations.ucspi.ident import parse_reply, remote_info
from popgate.integrations.ucspi.listener import Right
from popgate.integrations.ucspi.logins import parse_request
from popgate.integrations.ucspi.program import Program, ProgramError, ProgramLimits
from popgate.integrations.ucspi.recorder import RECORDER
from popgate.integrations.ucspi.rule_file import RuleFile
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from support.ucspi import CountedLimits, SetGrants, SetNames, Site, hang_up, until, variables

ALICE = Identity("alice", "example.org")
GRANTED = Right("permit", ALICE, "granted")


async def test_the_program_has_the_connection_and_nothing_else() -> None:
    show = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))); print(os.get_blocking(0))"
    async with Site(["python3", "-I", "-S", "-c", show]) as site:
        with open(os.devnull, "rb"):
            inherited = {n for n in map(int, os.listdir("/proc/self/fd")) if n > 2 and _is_inheritable(n)}
            listed, blocking = (await site.ask()).decode().splitlines()
            # one is the listing itself
            assert len(set(json.loads(listed)) - {0, 1, 2} - inherited) == 1
            assert blocking == "True"


def _is_inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


async def test_signals_are_as_a_fresh_program_expects() -> None:
    async with Site(["grep", "-E", "Sig(Blk|Ign):", "/proc/self/status"]) as site:
        shown = dict(line.split() for line in (await site.ask()).decode().splitlines())
        assert int(shown["SigBlk:"], 16) == 0
        # 32 and 33 are the C library's own; posix_spawn leaves them ignored, every program sets them anew
        assert int(shown["SigIgn:"], 16) & ~(3 << 31) == 0


async def test_environment_of_ipv4() -> None:
    async with Site(["env", "-0"], local_host="mail.example.org") as site:
        found = variables(await site.ask())
    port = found.pop("TCPREMOTEPORT")
    found.pop("PATH")
    assert port.isdigit()
    assert found == {
        "PROTO": "TCP",
        "TCPLOCALIP": "127.0.0.1",
        "TCPLOCALPORT": str(site.address[1]),
        "TCPLOCALHOST": "mail.example.org",
        "TCPREMOTEIP": "127.0.0.1",
    }


async def test_environment_of_ipv6_and_of_ipv4_on_the_same_socket() -> None:
    async with Site(["env", "-0"], host="::1") as site:
        found = variables(await site.ask())
    assert (found["PROTO"], found["TCPREMOTEIP"], found["TCP6REMOTEIP"]) == ("TCP6", "::1", "::1")
    assert found["TCP6LOCALPORT"] == found["TCPLOCALPORT"] == str(site.address[1])
    async with Site(["env", "-0"], host="::ffff:127.0.0.1") as site:
        found = variables(await site.ask())
    assert (found["PROTO"], found["TCPREMOTEIP"], found["TCPLOCALIP"]) == ("TCP", "127.0.0.1", "127.0.0.1")
    assert "TCP6REMOTEIP" not in found


@pytest.mark.parametrize(
    "how, host",
    [("off", None), ("on", "liar.example"), ("paranoid", "host.example")],
)
async def test_names(how: str, host: str | None) -> None:
    names = SetNames(
        {"127.0.0.1": ["bad name;rm", "liar.example", "gone.example", "host.example"]},
        {"liar.example": ["203.0.113.9"], "host.example": ["::1", "127.0.0.1"]},
    )
    async with Site(["env", "-0"], names=names, host_lookup=how) as site:
        assert variables(await site.ask()).get("TCPREMOTEHOST") == host


async def test_paranoid_believes_no_name_that_leads_elsewhere_or_nowhere() -> None:
    names = SetNames({"127.0.0.1": ["liar.example", "gone.example"]}, {"liar.example": ["203.0.113.9"]})
    async with Site(["env", "-0"], names=names, host_lookup="paranoid") as site:
        assert "TCPREMOTEHOST" not in variables(await site.ask())


async def test_a_slow_name_server_keeps_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popgate.integrations.ucspi.remote_name.LOOKUP_SECONDS", 0.3)
    monkeypatch.setattr("popgate.integrations.ucspi.remote_name.remote_name.__defaults__", (0.3,))
    names = SetNames({"127.0.0.1": ["host.example"]}, {}, seconds=60)
    async with Site(["env", "-0"], names=names, host_lookup="on") as site:
        shown = await asyncio.wait_for(asyncio.gather(*(site.ask() for _ in range(5))), 5)
        assert all("TCPREMOTEHOST" not in variables(each) for each in shown)


async def test_rfc_1413(unused_tcp_port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = (await reader.readline()).decode().replace(" ", "").strip()
        writer.write(f"{pair} : USERID : UNIX : joe\r\n".encode())
        await hang_up(writer)

    server = await asyncio.start_server(answer, "127.0.0.1", unused_tcp_port)
    async with server, Site(["env", "-0"], info_seconds=5.0, info_port=unused_tcp_port) as site:
        assert variables(await site.ask())["TCPREMOTEINFO"] == "joe"
    here = ClientAddress.parse("127.0.0.1")
    assert await remote_info(Ends(here, 25, None, here, 4000), 0.2, unused_tcp_port) is None


@pytest.mark.parametrize(
    "line, user",
    [
        (b"4000, 25 : USERID : UNIX : joe\r\n", "joe"),
        (b"4000,25:USERID:OTHER, US-ASCII:joe b", None),
        (b"4000, 26 : USERID : UNIX : joe", None),
        (b"4000, 25 : ERROR : NO-USER", None),
        (b"4000, 25 : USERID : UNIX : a:b", None),
        (b"4000, 25 : USERID : UNIX : ", None),
        (b"4000, 25 : USERID : UNIX : a\x00b", None),
        (b"999999999999, 25 : USERID : UNIX : joe", None),
    ],
)
def test_rfc_1413_answers(line: bytes, user: str | None) -> None:
    assert parse_reply(line, 4000, 25) == user


# who gets a program


async def test_over_the_limit_clients_wait_and_lose_nothing() -> None:
    limits = CountedLimits(most=3)
    async with Site(["sh", "-c", "sleep 0.1; echo done"], limits=limits) as site:
        assert await asyncio.gather(*(site.ask() for _ in range(12))) == [b"done\n"] * 12
        await site.settled()
        assert not any(limits.now.values())


async def test_over_the_limit_of_its_address_a_client_is_told() -> None:
    limits = CountedLimits(most_per_address=2)
    async with Site(["cat"], limits=limits, address_reply=b"too many\r\n") as site:
        held = [await asyncio.open_connection(*site.address) for _ in range(2)]
        await until(lambda: len(site.listener.connections) == 2)
        assert await site.ask() == b"too many\r\n"
        for _, writer in held:
            await hang_up(writer)
        await site.settled()
        assert ("refused", "127.0.0.1", "limit-address") in site.log.lines


@pytest.mark.peer("ucspi-tcp")
async def test_rules_refuse_and_set_variables(tmp_path: Path) -> None:
    from test_ucspi_rules import compiled

    path = compiled(tmp_path, '127.:allow,RELAYCLIENT="@rule",PROTO="X"\n')
    grants = SetGrants(GRANTED)
    async with Site(["env", "-0"], rules=RuleFile(path), grant="check", grants=grants) as site:
        found = variables(await site.ask())
        assert (found["RELAYCLIENT"], found["PROTO"]) == ("@rule", "X")
        assert "USER" not in found
        assert not grants.calls, "a rule has decided, and the grants were asked all the same"
        compiled(tmp_path, ":deny\n")
        assert await site.ask() == b""
        os.unlink(path)
        assert await site.ask() == b""
    assert site.log.names().count("open") == 1
    assert [line[2] for line in site.log.lines if line[0] == "refused"] == ["rules", "rules-unavailable"]


# grants


async def test_check_sets_what_relay_ctrl_check_sets() -> None:
    async with Site(["env", "-0"], grant="check", grants=SetGrants(GRANTED), relayclient=b"@x") as site:
        found = variables(await site.ask())
        assert (found["RELAYCLIENT"], found["USER"], found["DOMAIN"]) == ("@x", "alice", "example.org")
        site.grants.answer = Right("permit", None, "trusted")
        found = variables(await site.ask())
        assert found["RELAYCLIENT"] == "@x" and "USER" not in found
        site.grants.answer = Right("refuse", None, "lapsed")
        assert not {"RELAYCLIENT", "USER", "DOMAIN"} & set(variables(await site.ask()))


@pytest.mark.parametrize("reply", [b"", b"421 4.3.0 later\r\n"])
async def test_grants_that_cannot_be_read_give_nothing(reply: bytes) -> None:
    grants = SetGrants(Right("defer", None, "store-unavailable"))
    async with Site(["env", "-0"], grant="check", grants=grants, defer_reply=reply) as site:
        shown = await site.ask()
        assert shown == reply if reply else "RELAYCLIENT" not in variables(shown)


CHAIN = [
    "env",
    "USER=Alice",
    "DOMAIN=example.org",
    "sh",
    RECORDER,
    "sh",
    "-c",
    "echo +OK; cat; env; ls -l /proc/self/fd",
]


async def test_a_login_is_recorded_before_the_client_hears_of_it() -> None:
    grants = SetGrants(GRANTED)
    async with Site(CHAIN, grant="allow", grants=grants) as site:
        reader, writer = await asyncio.open_connection(*site.address)
        assert await reader.readline() == b"+OK\n"
        assert grants.calls == [("allow", "127.0.0.1", "alice@example.org")]
        site.listener.tick()
        assert grants.calls[-1] == ("renew", "127.0.0.1", "alice@example.org")
        writer.write_eof()
        rest = await reader.read()
        assert b"POPGATE_LOGIN_FD" not in rest
        assert b" 7 -> " not in rest
        await hang_up(writer)
        await site.settled()
        assert grants.calls[-1] == ("logout", "127.0.0.1", "alice@example.org")
        site.listener.tick()
        assert grants.calls[-1][0] == "logout"


async def test_a_login_that_gives_no_grant_goes_on() -> None:
    async with Site(CHAIN, grant="allow", grants=SetGrants(Right("refuse"))) as site:
        reader, writer = await asyncio.open_connection(*site.address)
        assert await reader.readline() == b"+OK\n"
        await hang_up(writer)
        await site.settled()
        assert "logout" not in [call[0] for call in site.grants.calls]


async def test_nothing_is_recorded_where_the_password_checker_is_missing() -> None:
    chain = ["sh", "-c", 'exec 3</dev/null; unset USER; exec sh "$0" sh -c "echo +OK"', RECORDER]
    async with Site(chain, grant="allow", grants=SetGrants(GRANTED)) as site:
        assert await site.ask() == b""
        await site.settled()
        assert not site.grants.calls
        assert site.log.lines[-1] == ("close", "127.0.0.1", "", str(111 << 8))


async def test_one_connection_records_one_login_for_its_own_address() -> None:
    script = (
        r"printf 'login\0eve\0\0login\0mallory\0\0' >&7; read x <&7; echo $x; printf 'login\0bob\0\0' >&7"
    )
    async with Site(["sh", "-c", script], grant="allow", grants=SetGrants(GRANTED)) as site:
        assert await site.ask() == b"no\n"
    async with Site(["sh", "-c", script.replace(r"login\0mallory\0\0", "")], grant="allow",
                    grants=SetGrants(GRANTED)) as site:  # fmt: skip
        assert await site.ask() == b"ok\n"
        await site.settled()
        assert site.grants.calls[0] == ("allow", "127.0.0.1", "eve")
        assert "bob" not in str(site.grants.calls)


async def test_a_login_goes_on_when_the_listener_is_gone() -> None:
    async with Site(
        ["sh", "-c", 'read go; USER=alice exec sh "$0" sh -c "echo +OK"', RECORDER],
        grant="allow",
        grants=SetGrants(GRANTED),
    ) as site:
        reader, writer = await asyncio.open_connection(*site.address)
        await until(lambda: site.listener.connections)
        for running in site.listener.connections.values():
            assert running.channel is not None
            running.channel.close()
        writer.write(b"go\n")
        assert await reader.read() == b"+OK\n"
        assert not site.grants.calls
        await hang_up(writer)


@pytest.mark.parametrize(
    "request_octets",
    [
        b"", b"login\0", b"login\0a\0",
        b"login\0a\0b\0c", b"login\0../x\0\0", b"login\0a\nb\0\0", b"login\0\0\0",
        b"logon\0a\0\0", b"login\0\xff\0\0", b"login\0a\0-bad-\0", b"login\0" + b"a" * 500 + b"\0\0",
    ],
)  # fmt: skip
def test_requests_that_record_nothing(request_octets: bytes) -> None:
    with pytest.raises(ValueError):
        parse_request(request_octets)


def test_requests() -> None:
    assert parse_request(b"login\0Alice\0Example.org\0") == ALICE
    assert parse_request(b"login\0alice@example.org\0\0") == ALICE
    assert parse_request(b"login\0alice\0\0") == Identity("alice")


# limits of the program


async def test_limits_are_in_force_before_the_program_runs() -> None:
    program = Program(
        ["sh", "-c", "ulimit -S -v; ulimit -S -d; ulimit -S -n"], ProgramLimits(99 << 20, 98 << 20, 64)
    )
    async with Site([], program=program) as site:
        assert await site.ask() == b"%d\n%d\n64\n" % (99 << 10, 98 << 10)


async def test_a_program_that_is_gone_costs_its_connection_only(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\necho ran\n")
    path.chmod(0o755)
    async with Site([str(path)]) as site:
        assert await site.ask() == b"ran\n"
        path.rename(tmp_path / "away")
        assert await site.ask() == b""
        assert site.log.names().count("fault") == 1
        (tmp_path / "away").rename(path)
        assert await site.ask() == b"ran\n"
        await site.settled()
        assert not any(site.limits.now.values())
    with pytest.raises(ProgramError):
        Program([str(tmp_path / "nothing")])
    with pytest.raises(ProgramError):
        Program([])


# ends


async def test_ends_are_told_and_other_children_are_left_alone() -> None:
    other = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    async with Site(["sh", "-c", "exit 3"]) as site:
        await site.ask()
        await site.settled()
        assert site.log.lines[-1] == ("close", "127.0.0.1", "", str(3 << 8))
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 7


async def test_without_a_descriptor_to_watch_it_a_program_is_reaped_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", full)
    async with Site(["true"]) as site:
        await site.ask()
        await asyncio.sleep(0.1)
        site.listener.tick()
        assert not site.listener.connections


async def test_abort_ends_what_runs() -> None:
    async with Site(["sleep", "60"]) as site:
        _, writer = await asyncio.open_connection(*site.address)
        await until(lambda: site.log.pids)
        site.listener.close()
        site.listener.abort()
        assert os.waitpid(site.log.pids[0], 0)[1] == 15
        assert not any(site.limits.now.values())
        await hang_up(writer)


async def test_a_client_that_is_gone_at_once_leaves_nothing() -> None:
    async with Site(["cat"]) as site:
        for _ in range(20):
            client = socket.create_connection(site.address)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        await asyncio.sleep(0.2)
        await site.settled()
        assert not any(site.limits.now.values())


def _zombies() -> list[int]:
    """Children that have ended and nobody has waited for; they are reaped hereby."""
    found = []
    try:
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) > 0:
            found.append(pid)
    except ChildProcessError:
        pass
    return found


async def _many(site: Site, count: int) -> None:
    for _ in range(count // 4):
        await asyncio.gather(*(site.ask() for _ in range(4)))
    await site.settled()


@pytest.mark.parametrize(
    "count", [200, pytest.param(10000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
@pytest.mark.parametrize("grant", ["check", "allow"])
async def test_many_in_a_row_leak_nothing(count: int, grant: str) -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async with Site(["true"], grant=grant, grants=SetGrants(GRANTED)) as site:
        await _many(site, 100)
        site.log.lines.clear()
        site.grants.calls.clear()
        _zombies()  # other tests' may be there
        before, memory = len(os.listdir("/proc/self/fd")), resident()
        for _ in range(count // 100):
            await _many(site, 100)
            site.log.lines.clear()
            site.log.pids.clear()
            site.grants.calls.clear()
        assert len(os.listdir("/proc/self/fd")) == before
        assert resident() - memory < 2 << 20
        assert not _zombies(), "programs were left unreaped"
