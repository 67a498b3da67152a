"""`popgate tcpserver`: one listener for programs, with tcpserver's command line and no popgate.toml.

One process, one event loop. Like tcpserver it takes its address, becomes the user it is
told to be, and then runs programs until SIGTERM ends it at once; programs that run go on.

Where relay-ctrl-check stands first in the chain, this listener looks the grant up itself
and leaves it out; where relay-ctrl-allow stands behind a password checker, `popgate-allow`
takes its place. So a run script changes by one word, and no variable alone turns the
relaying on. Both need RELAY_CTRL_DIR or RELAY_CTRL_DIR_FD, as the programs themselves do.
"""

import asyncio
import grp
import os
import pwd
import signal
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from popgate.app.clock import SystemClock
from popgate.app.logs import render_logfmt
from popgate.app.loop import run_loop
from popgate.app.runtime import Tokens
from popgate.app.ucspi import ProgramGrants, defer_reply
from popgate.grants.service import Grants
from popgate.grants.settings import GrantSettings
from popgate.grants.store import StoreError
from popgate.grants.stores.directory import DirectoryStore
from popgate.grants.stores.memory import MemoryStore
from popgate.integrations.ucspi import Program, ProgramError, RuleFile, UcspiListener, UcspiPolicy
from popgate.integrations.ucspi.dns_names import DnsNames
from popgate.integrations.ucspi.environment import LOGIN_NAMES, Ends, base_environment
from popgate.integrations.ucspi.options import TcpserverOptions
from popgate.integrations.ucspi.program import ProgramLimits
from popgate.integrations.ucspi.recorder import RECORDER_TEXT
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity

_LONGEST_SECONDS = 2592000
_TOLD_ALWAYS = ("grant.allow", "grant.refuse", "grant.alarm")
Grant = Literal["none", "check", "allow"]


class Fatal(Exception):
    """It cannot start; the text says why."""


def run(options: TcpserverOptions, limits: ProgramLimits | None = None) -> int:
    """Serve until a signal ends the process. `limits`: those that programs get back, where this
    process has raised its own. Raises Fatal."""
    _open_standard_descriptors()
    command, grant = adopt_chain(options.command, options.grant, os.environ)
    log = TcpserverLog(options.verbosity, options.limit)
    listening = _listen(options)
    grants = _grants(options, grant, log)  # before it becomes a user who may not come to the directory
    _become(options)
    if options.prints_port:
        print(listening.getsockname()[1], flush=True)
    try:
        program = Program(command, limits)
    except ProgramError as fault:
        raise Fatal(str(fault)) from fault
    if grant != "none":
        _close_directory(command)
    policy = UcspiPolicy(
        program=program,
        environment=_environment(grant, log),
        grant=grant,
        relayclient=os.fsencode(os.environ.get("RELAY_CTRL_RELAYCLIENT", "")),
        defer_reply=defer_reply(socket.gethostname()),
        address_reply=options.address_reply,
        rules=RuleFile(options.rules, may_be_missing=options.rules_may_be_missing) if options.rules else None,
        host_lookup=options.host_lookup,
        info_seconds=options.info_seconds,
        local_host=options.local_host,
        looks_up_local_host=options.local_host is None,
        banner=options.banner,
        nodelay=options.nodelay,
        kills_ip_options=options.kills_ip_options,
    )
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    async def serve() -> int:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        listener = UcspiListener(
            listening,
            policy,
            limits=_OwnLimits(options.limit, options.address_limit or options.limit),
            grants=ProgramGrants(grants),
            log=log,
            resolver=DnsNames(),
            token=Tokens(),
        )
        log.count(0)
        while not ended.is_set():
            listener.tick()
            try:
                await asyncio.wait_for(ended.wait(), 1.0)
            except TimeoutError:
                pass
        return 0

    return run_loop(serve)


def adopt_chain(
    command: Sequence[str], asked: Literal["auto", "none", "check", "allow"], environment: Mapping[str, str]
) -> tuple[list[str], Grant]:
    """The chain without what this listener does itself, and what that is."""
    command = list(command)
    has_directory = bool(environment.get("RELAY_CTRL_DIR") or environment.get("RELAY_CTRL_DIR_FD"))
    if asked != "auto" and (asked == "none" or not has_directory):
        if asked != "none":
            raise Fatal(f"--{asked} needs RELAY_CTRL_DIR, the directory of the grants")
        return command, "none"
    if not has_directory:
        return command, "none"  # relay-ctrl's programs in it tell what is missing
    names = [os.path.basename(word) for word in command]
    if len(command) > 1 and names[0] == "relay-ctrl-check" and asked in ("auto", "check"):
        return command[1:], "check"
    if "relay-ctrl-allow" in names[1:] and asked in ("auto", "allow"):
        place = names.index("relay-ctrl-allow", 1)
        return [
            *command[:place],
            "/bin/sh",
            "-c",
            RECORDER_TEXT,
            "popgate-allow",
            *command[place + 1 :],
        ], "allow"
    return command, "none" if asked == "auto" else asked


def _grants(options: TcpserverOptions, grant: Grant, log: "TcpserverLog") -> Grants:
    """relay-ctrl's rules over its directory: any live grant serves, and no address is excepted."""
    window = _seconds(os.environ.get("RELAY_CTRL_EXPIRY", ""))
    settings = GrantSettings(
        window_seconds=window, max_age_seconds=_LONGEST_SECONDS, sender="any", never=[], quota_messages=0,
        quota_recipients=0,
    )  # fmt: skip
    if grant == "none":
        return Grants(MemoryStore(), settings, SystemClock(), log.event)
    path = _directory()
    try:
        uids = [pwd.getpwnam(name).pw_uid for name in options.trusted_users]
        words = os.environ.get("RELAY_CTRL_UIDS", "").replace(",", " ").split()
        uids += [int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= 10]
        store = DirectoryStore(path, uids, file_mode=0o644, counts_all_where_closed=True)
    except KeyError as fault:
        raise Fatal(f"--trust-user: there is no user {fault.args[0]}") from None
    except StoreError as fault:
        raise Fatal(str(fault)) from fault
    return Grants(store, settings, SystemClock(), log.event)


def _directory() -> str:
    """A path to the grants. The descriptor of relay-ctrl-chdir goes before the name."""
    number = os.environ.get("RELAY_CTRL_DIR_FD", "")
    if not number:
        path = os.environ["RELAY_CTRL_DIR"]
    elif number.isascii() and number.isdigit() and len(number) < 10:
        path = f"/proc/self/fd/{int(number)}"
    else:
        raise Fatal("RELAY_CTRL_DIR_FD is no number of a descriptor")
    if not os.path.isdir(path):
        raise Fatal(f"{'RELAY_CTRL_DIR_FD' if number else 'RELAY_CTRL_DIR'}: {path} is not a directory")
    return path


def _close_directory(command: Sequence[str]) -> None:
    """The descriptor is for relay-ctrl's programs: no other could be let write grants through it."""
    number = os.environ.get("RELAY_CTRL_DIR_FD", "")
    needs_it = any("relay-ctrl-" in word for word in command if word is not RECORDER_TEXT)
    if number and int(number) > 2 and not needs_it:
        os.close(int(number))
        del os.environ["RELAY_CTRL_DIR_FD"]


def _seconds(text: str) -> int:
    return (
        min(int(text), 86400)
        if text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)
        else 900
    )


def _environment(grant: Grant, log: "TcpserverLog") -> dict[bytes, bytes]:
    if grant == "none":
        return base_environment(os.environb, ())
    if b"RELAYCLIENT" in os.environb:
        log.say(
            "warning: RELAYCLIENT is set for every client here, which makes an open relay; it is left out", 1
        )
    return base_environment(os.environb, LOGIN_NAMES)


def _listen(options: TcpserverOptions) -> socket.socket:
    port = _port(options.port)
    family, place = _place(options, port)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` takes IPv4 clients too, and they are IPv4 clients to the program
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, place[0] != "::")
        listening.bind(place)
        listening.listen(options.backlog)
        listening.setblocking(False)
    except OSError as fault:
        listening.close()
        raise Fatal(f"unable to bind {options.host} port {port}: {fault.strerror}") from fault
    return listening


def _port(text: str) -> int:
    if text.isascii() and text.isdigit():
        if int(text) > 65535:
            raise Fatal(f"{text} is no port")
        return int(text)
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        raise Fatal(f"unable to figure out port number for {text}") from None


def _place(options: TcpserverOptions, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    host = options.host.removeprefix("[").removesuffix("]")
    if host in ("", "0"):
        if options.family == "ipv6":
            return socket.AF_INET6, ("::", port)
        return socket.AF_INET, ("0.0.0.0", port)  # noqa: S104
    wanted = {"any": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}[options.family]
    try:
        found = socket.getaddrinfo(host, port, wanted, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    # a name with both is an IPv4 host, as it always was
    for family, _, _, _, place in sorted(found, key=lambda one: one[0] != socket.AF_INET):
        return family, (str(place[0]), port)
    raise Fatal(f"no IP address for {options.host}")


def _become(options: TcpserverOptions) -> None:
    try:
        gid = _id(options.group, "group")
        uid = _id(options.user, "user")
        if gid:
            os.setgroups([gid])
            os.setresgid(gid, gid, gid)
        if uid:
            os.setresuid(uid, uid, uid)
    except OSError as fault:
        raise Fatal(
            f"unable to become user {options.user} group {options.group}: {fault.strerror}"
        ) from fault


def _id(text: str, kind: Literal["user", "group"]) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        if not text:
            return 0
        return pwd.getpwnam(text).pw_uid if kind == "user" else grp.getgrnam(text).gr_gid
    except KeyError:
        raise Fatal(f"there is no {kind} {text}") from None


def _open_standard_descriptors() -> None:
    """A connection must not become descriptor 2."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if descriptor > 2:
            os.close(descriptor)
            return
        os.set_inheritable(descriptor, True)


class _OwnLimits:
    """The connections of this process, which is the only one."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._all = 0
        self._by_address: Counter[ClientAddress] = Counter()

    def admit(self, client: ClientAddress) -> str | None:
        if self._all >= self._most:
            return "listener"
        if self._by_address[client] >= self._most_per_address:
            return "address"
        self._all += 1
        self._by_address[client] += 1
        return None

    def release(self, client: ClientAddress) -> None:
        self._all -= 1
        self._by_address[client] -= 1
        if not self._by_address[client]:
            del self._by_address[client]


class TcpserverLog:
    """Lines as tcpserver writes them on stderr. `verbosity`: 0 nothing, 1 errors, 2 all."""

    def __init__(self, verbosity: int, limit: int) -> None:
        self._verbosity = verbosity
        self._limit = limit

    def opened(self, session: str, pid: int, ends: Ends, identity: Identity | None, reason: str) -> None:
        if self._verbosity < 2:
            return
        self.say(f"pid {pid} from {ends.client}", 2)
        self.say(f"ok {pid} {_both(ends)}", 2)
        if reason == "granted":
            self.say(f"relay {pid} {ends.client} {identity or ''}", 2)

    def closed(self, session: str, pid: int, ends: Ends, identity: Identity | None, status: int) -> None:
        self.say(f"end {pid} status {status}", 2)

    def refused(self, session: str, ends: Ends, reason: str, detail: str = "") -> None:
        if reason != "rules":
            self.say(f"warning: {ends.client} refused: {reason}{': ' if detail else ''}{detail}", 1)
        if self._verbosity >= 2:
            self.say(f"deny {os.getpid()} {_both(ends)}", 2)

    def fault(self, session: str, client: ClientAddress | None, detail: str) -> None:
        self.say(f"warning: {f'dropping {client}: ' if client else ''}{detail}", 1)

    def count(self, running: int) -> None:
        if self._verbosity >= 2:
            self.say(f"status: {running}/{self._limit}", 2)

    def event(self, event: Event) -> None:
        """What the grants tell."""
        if event.name in _TOLD_ALWAYS or self._verbosity >= 2:
            self.say(render_logfmt(event).partition(" ")[2].rstrip("\n"), 1)

    def say(self, text: str, least_verbosity: int) -> None:
        if self._verbosity >= least_verbosity:
            try:
                os.write(2, f"tcpserver: {text}\n".encode("utf-8", "backslashreplace"))
            except OSError:
                pass


def _both(ends: Ends) -> str:
    return (
        f"{ends.local_host or ''}:{ends.local}:{ends.local_port}"
        f" {ends.host or ''}:{ends.client}:{ends.info or ''}:{ends.client_port}"
    )


def fail(text: str, status: int = 111) -> int:
    """Say why it does not run, as tcpserver would."""
    sys.stderr.write(f"tcpserver: fatal: {text}\n")
    return status
