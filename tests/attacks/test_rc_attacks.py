"""The attack cases of class rc (rc_cases.jsonl), played on relay-ctrl's programs as they are installed."""

import json
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from popgate.commands import login
from popgate.grants.stores import spool
from popgate.protocols.relay_ctrl_udp import PacketError, PeerLogin, Receiver, signed_login
from popgate.values.address import ClientAddress, Network
from popgate.values.identity import Identity
from support.ports import free_port
from support.relay_ctrl import Installed

CASES = [
    json.loads(line)["id"] for line in (Path(__file__).parent / "rc_cases.jsonl").read_text().splitlines()
]
SHOW = 'echo "${RELAYCLIENT-refused}|${USER-}|$(pwd -P)|$(env | sort | tr "\\n" ";")"'
KEY = b"a key of more than sixteen octets"


@pytest.fixture(scope="module")
def programs() -> Iterator[Installed]:
    installed = Installed()
    yield installed
    installed.remove()


@pytest.fixture
def site(programs: Installed, tmp_path: Path) -> "Site":
    return Site(programs, tmp_path)


class Site:
    """A directory of grants, and the programs on it."""

    def __init__(self, programs: Installed, path: Path) -> None:
        self.programs = programs
        self.path = path / "spool" / "allow"
        self.path.mkdir(parents=True)
        self.entry = self.path / "192.0.2.7"
        self.warning = b""

    def environment(self, client: str, more: dict[str, str]) -> dict[str, str]:
        return {"RELAY_CTRL_DIR": str(self.path), "TCPREMOTEIP": client, **more}

    def relays(self, client: str = "192.0.2.7", **more: str) -> bool:
        done = self.programs.run(["relay-ctrl-check", "sh", "-c", SHOW], self.environment(client, more))
        assert done.returncode == 0, done.stderr
        self.warning = done.stderr
        self.behind = done.stdout.decode()
        return not self.behind.startswith("refused|")

    def log_in(self, client: str = "192.0.2.7", user: str = "bob", **more: str) -> bool:
        """True when the mail server was run."""
        environment = self.environment(client, {"USER": user, **more})
        done = self.programs.run(["relay-ctrl-allow", "echo", "ran"], environment)
        self.warning = done.stderr
        return (done.returncode, done.stdout) == (0, b"ran\n")

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())

    def age(self, **more: str) -> None:
        assert self.programs.run(["relay-ctrl-age"], self.environment("", more)).returncode == 0


def test_rc_001_a_file_that_sets_ld_preload(site: Site) -> None:
    site.entry.write_bytes(b"USER=bob\0LD_PRELOAD=/no/such.so\0")
    assert not site.relays()
    assert "LD_PRELOAD" not in site.behind and b"Ignored" in site.warning


@pytest.mark.parametrize(
    "name",
    ["QMAILQUEUE", "PATH", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "RELAYCLIENT", "DATABYTES", "IFS"],
)
def test_rc_002_a_file_that_sets_any_other_variable(name: str, site: Site) -> None:
    for content in (
        f"{name}=x\0",
        f"USER=bob\0{name}=x\0",
        f"{name}=x\0USER=bob\0",
        f"USER=bob\0DOMAIN=d\0{name}=\0",
    ):
        site.entry.write_bytes(content.encode())
        assert not site.relays()
        assert b"Ignored" in site.warning


def test_rc_002_pythons_own_variables_reach_neither_the_programs_nor_are_lost(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "os.py").write_text("print('taken over')")
    assert site.log_in(
        PYTHONPATH=str(tmp_path), PYTHONSTARTUP=str(tmp_path / "os.py"), PYTHONHOME=str(tmp_path)
    )
    site.relays(PYTHONPATH=str(tmp_path))
    assert f"PYTHONPATH={tmp_path}" in site.behind and "taken" not in site.behind


def test_rc_003_a_directory_named_as_an_address(site: Site) -> None:
    site.entry.mkdir()
    assert not site.relays()
    site.age()
    assert site.names() == []
    site.entry.mkdir()
    (site.entry / "full").touch()
    assert site.log_in() and site.relays(), "nor may it keep a login from granting"


def test_rc_003_the_name_to_move_it_to_is_never_the_one_of_the_new_file() -> None:
    for moment in range(1_700_000_000_000_000, 1_700_000_000_002_000, 7):
        stamp = moment / 1e6
        assert spool.temporary_name(stamp) != spool.temporary_name(stamp + login._NEXT_NAME_SECONDS)


@pytest.mark.parametrize("kind", ["fifo", "symlink", "hard link", "socket"])
def test_rc_other_kinds_of_files(kind: str, site: Site) -> None:
    target = site.path.parent / "target"
    target.write_bytes(b"USER=bob\0")
    if kind == "fifo":
        os.mkfifo(site.entry)
    elif kind == "symlink":
        site.entry.symlink_to(target)
    elif kind == "hard link":
        os.link(target, site.entry)
    else:
        with socket.socket(socket.AF_UNIX) as unix:
            here = os.getcwd()
            os.chdir(site.path)
            unix.bind("192.0.2.7")
            os.chdir(here)
    assert not site.relays() and b"Ignored" in site.warning
    assert site.log_in() and site.relays()
    assert target.read_bytes() == b"USER=bob\0" and stat.S_ISREG(site.entry.lstat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_rc_008_a_file_of_a_user_who_does_not_count(site: Site) -> None:
    """Where every user can reach the directory."""
    site.path = Path("/tmp") / f"popgate-rc-008-{os.getpid()}"
    site.path.mkdir(mode=0o777)
    try:
        entry = site.path / "192.0.2.7"
        entry.write_bytes(b"USER=bob\0")
        os.chown(entry, 4242, 4242)
        assert not site.relays() and b"belongs to user 4242" in site.warning
        assert site.relays(RELAY_CTRL_UIDS="17, 4242")
        assert site.log_in(user="carol") and site.relays()
        assert b"bob" not in entry.read_bytes(), "what does not count is not merged either"
    finally:
        for path in site.path.iterdir():
            path.unlink()
        site.path.rmdir()


def test_rc_010_a_grant_deleted_or_replaced(site: Site) -> None:
    """By whoever may: the next decision sees it. That others may not is tested with other users."""
    assert site.log_in() and site.relays()
    site.entry.unlink()
    assert not site.relays()
    assert site.log_in() and site.relays()


@pytest.mark.parametrize(
    "client", ["../fresh", "/etc/passwd", "allow/../192.0.2.7", "192.0.2.7/", "./192.0.2.7"]
)
def test_rc_011_a_path_as_the_address(client: str, site: Site) -> None:
    (site.path.parent / "fresh").write_bytes(b"USER=bob\0")
    site.log_in()
    assert not site.relays(client) and b"no client's address" in site.warning
    before = site.names()
    assert site.log_in(client) and b"No grant" in site.warning
    assert site.names() == before
    assert (site.path.parent / "fresh").read_bytes() == b"USER=bob\0"


@pytest.mark.parametrize(
    "client", [".", "..", "...", "", " ", "0", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.4 "]
)
def test_rc_012_013_014_what_is_no_address(client: str, site: Site) -> None:
    assert not site.relays(client)
    assert site.log_in(client)
    assert site.names() == []


@pytest.mark.parametrize(
    "client", ["::ffff:192.0.2.7", "::FFFF:192.0.2.7", "::ffff:c000:207", "0:0:0:0:0:ffff:192.0.2.7"]
)
def test_rc_015_one_client_however_it_is_spelled(client: str, site: Site) -> None:
    assert site.log_in(client) and site.names() == ["192.0.2.7"]
    assert site.relays() and site.relays(client)


@pytest.mark.parametrize("client", ["2001:db8::25", "2001:DB8:0::25", "::1"])
def test_rc_016_ipv6(client: str, site: Site) -> None:
    assert site.log_in(client) and site.warning == b""
    assert site.relays(client) and site.names() == [ClientAddress.parse(client).text]
    assert not site.relays("2001:db8::26")


def test_rc_018_temporary_files_that_somebody_made_before(site: Site) -> None:
    """A guessed name is passed over, and a link there is not followed; the mode is that of the file."""
    target = site.path.parent / "target"
    target.write_bytes(b"precious")
    for moment in range(int(time.time()), int(time.time()) + 3):
        (site.path / f".{moment}.000000:{os.getpid()}").symlink_to(target)
    assert site.log_in() and target.read_bytes() == b"precious"
    assert stat.S_IMODE(site.entry.lstat().st_mode) == 0o600


@pytest.mark.parametrize("number", ["99999999999", "-1", "0", "7", "99", "", " 4", "4 ", "0x4", "٤", "1e1"])
def test_rc_019_a_descriptor_that_is_none(number: str, site: Site) -> None:
    site.log_in()
    before = site.entry.stat().st_mtime_ns
    assert not site.relays(RELAY_CTRL_DIR_FD=number) and b"Warning" in site.warning
    assert site.log_in(RELAY_CTRL_DIR_FD=number) and b"Warning" in site.warning
    assert site.entry.stat().st_mtime_ns == before


def test_rc_020_021_neither_descriptor_nor_directory_reach_the_program(site: Site) -> None:
    site.log_in()
    inner = [site.programs.path("relay-ctrl-check"), "sh", "-c", "pwd -P; ls -l /proc/self/fd; env"]
    done = site.programs.run(
        ["relay-ctrl-chdir", *inner], site.environment("192.0.2.7", {}), cwd=site.path.parent
    )
    text = done.stdout.decode()
    assert text.splitlines()[0] == str(site.path.parent.resolve())
    assert (
        f"-> {site.path.resolve()}" not in text and "RELAY_CTRL_DIR_FD" not in text and "RELAYCLIENT=" in text
    )


@pytest.mark.parametrize(
    "content", [b"x" * 8193, b"USER=" + b"u" * 8188, b"USER=bob", b"USER=bob\n", b"=\0", b"\0", b"\xff\0"]
)
def test_rc_022_content_that_is_none(content: bytes, site: Site) -> None:
    site.entry.write_bytes(content)
    assert not site.relays()
    assert site.log_in() and site.relays()


def test_rc_024_a_directory_with_very_many_files(site: Site) -> None:
    """One pass, a look at each: what has lapsed goes, the rest costs microseconds a file."""
    for number in range(20_000):
        os.close(os.open(site.path / f"10.1.{number >> 8}.{number & 255}", os.O_CREAT | os.O_WRONLY))
    old = site.path / "10.0.0.1"
    old.touch()
    os.utime(old, (1, 1))
    start = time.monotonic()
    site.age()
    assert not old.exists() and len(site.names()) == 20_000
    assert time.monotonic() - start < 10


def test_rc_025_names_that_are_no_address(site: Site) -> None:
    other = site.path / "other-name"
    other.write_bytes(b"USER=bob\0")
    site.age()
    assert other.exists() and not site.relays("other-name")
    os.utime(other, (1, 1))
    site.age()
    assert not other.exists()


def test_rc_026_the_clock_was_set_back(site: Site) -> None:
    site.log_in()
    ahead = time.time() + 3600
    os.utime(site.entry, (ahead, ahead))
    assert not site.relays()
    site.age()
    assert site.names() == [], "it would come to life in an hour"


@pytest.mark.parametrize(
    ("expiry", "window"),
    [("abc", 900), ("-5", 900), ("0", 900), ("", 900), (" 60", 60), ("+60", 60), ("60s", 60)],
)
def test_rc_027_odd_windows(expiry: str, window: int, site: Site) -> None:
    site.log_in()
    for age, is_live in ((window - 5, True), (window + 5, False)):
        at = time.time() - age
        os.utime(site.entry, (at, at))
        assert site.relays(RELAY_CTRL_EXPIRY=expiry) is is_live
        site.age(RELAY_CTRL_EXPIRY=expiry)
        assert site.entry.exists() is is_live


def test_rc_027_a_window_without_end(site: Site) -> None:
    site.log_in()
    os.utime(site.entry, (1_000_000_000, 1_000_000_000))
    assert site.relays(RELAY_CTRL_EXPIRY="100000000000000000000")


def test_rc_028_a_datagram_that_nobody_signed() -> None:
    callers = (Network.parse("198.51.100.0/24"),)
    data, stranger, caller = (
        b"192.0.2.1",
        ClientAddress.parse("203.0.113.1"),
        ClientAddress.parse("198.51.100.9"),
    )
    for receiver in (Receiver(KEY, callers, 0.0), Receiver(None, callers, 0.0)):
        for source in (stranger, caller):
            with pytest.raises(PacketError):
                receiver.receive(data, source, 1.0)
    with pytest.raises(PacketError):
        Receiver(KEY, callers, 0.0).receive(data, ClientAddress.parse("127.0.0.1"), 1.0)
    with pytest.raises(PacketError):
        Receiver(None, callers, 0.0, is_insecure=True).receive(data, stranger, 1.0)


def test_rc_028_without_a_key_only_loopback_addresses_are_bound(site: Site) -> None:
    port = free_port()
    command = [site.programs.path("relay-ctrl-udp")]
    environment = {"PATH": "/bin", "RELAY_CTRL_DIR": str(site.path), "RELAY_CTRL_PORT": str(port)}
    with subprocess.Popen(command, env=environment) as process:
        try:
            bound: set[str] = set()
            deadline = time.monotonic() + 10
            while not bound and time.monotonic() < deadline:
                for table in ("udp", "udp6"):
                    lines = Path("/proc/net", table).read_text().splitlines()[1:]
                    bound |= {line.split()[1] for line in lines if line.split()[1].endswith(f":{port:04X}")}
            assert bound and {place.split(":")[0] for place in bound} <= {"0100007F", "0" * 24 + "01000000"}
        finally:
            process.terminate()


def test_rc_030_a_signed_datagram_once_more() -> None:
    caller = ClientAddress.parse("127.0.0.1")
    receiver = Receiver(KEY, (), 0.0)
    data = signed_login(PeerLogin(ClientAddress.parse("192.0.2.1"), "bob", "", 100.0, "ab" * 16), KEY)
    first = receiver.receive(data, caller, 101.0)
    assert isinstance(first, PeerLogin)
    answer = receiver.answer(first, is_done=True)
    assert receiver.receive(data, caller, 102.0) == answer, "the answer again, and no login"
    with pytest.raises(PacketError):
        receiver.receive(data, caller, 161.0)
    with pytest.raises(PacketError):
        Receiver(KEY, (), 100.5).receive(data, caller, 101.0)


def test_rc_031_a_program_that_cannot_be_run(site: Site) -> None:
    for program in ("allow", "check", "chdir", "send"):
        done = site.programs.run(
            [f"relay-ctrl-{program}", "/no/such"], site.environment("192.0.2.7", {"RELAY_CTRL_REMOTES": ""})
        )
        assert done.returncode == 111


@pytest.mark.parametrize(
    "user", ["a\r\nX: y", "a\x1b[31m", "u" * 100_000, "a\0b".replace("\0", "\x01"), "-x", "../x", "a b", "ü"]
)
def test_rc_032_names_that_are_none(user: str, site: Site) -> None:
    assert site.log_in(user=user)
    assert site.names() == [] and not site.relays()
    site.log_in(user=user)
    assert b"No grant for" in site.warning and len(site.warning) < 1000
    assert site.warning.count(b"\n") == 1 and b"\x1b" not in site.warning and b"\r" not in site.warning
    site.entry.write_bytes(b"USER=" + user.encode() + b"\0")
    assert not site.relays()


def test_records_of_ours_that_were_tampered_with(site: Site) -> None:
    site.log_in(user="alice")
    site.log_in(user="bob")
    content = site.entry.read_bytes()
    records = spool.parse(content, site.entry.stat().st_mtime_ns // 1000)
    assert records is not None and [str(record.identity) for record in records] == ["bob", "alice"]
    for changed in (
        content[:-1],
        content + b"X=1\0",
        content.replace(b"USER=bob", b"USER=eve"),
        content.replace(b"VERSION=2", b"VERSION=3"),
    ):
        site.entry.write_bytes(changed)
        assert not site.relays()


def test_every_case_is_played() -> None:
    text = Path(__file__).read_text()
    assert len(CASES) == 24
    for case in CASES:
        number = case.removeprefix("rc-")
        assert f"_{number}_" in text, case


def test_a_grant_that_is_being_written_is_waited_for(site: Site) -> None:
    """A server has written what was relayed, and has yet to date the file (spool.rewrite)."""
    login_at = time.time_ns() // 1000 - 300_000_000
    bob = spool.Record(Identity("bob"), "pop3", login_at, login_at, login_at, used=(1, 1, 4096))
    site.entry.write_bytes(spool.serialise([bob])[0])
    is_over = threading.Event()

    def write_on_and_on() -> None:
        while not is_over.is_set():
            os.utime(site.entry)
            time.sleep(0.001)
            os.utime(site.entry, ns=(login_at * 1000, login_at * 1000))
            time.sleep(0.003)

    writer = threading.Thread(target=write_on_and_on)
    writer.start()
    try:
        assert all(site.relays() for _ in range(15))
    finally:
        is_over.set()
        writer.join()
    os.utime(site.entry)
    assert not site.relays()  # it was never dated: no grant
