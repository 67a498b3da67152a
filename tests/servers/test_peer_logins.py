"""The receiver of logins on a loop of its own: turns, the end, faults, what is told of refusals."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from popgate.protocols.relay_ctrl_udp import PeerLogin, is_answer, signed_login
from popgate.servers import datagrams
from popgate.servers.bind import BindError
from popgate.servers.datagrams import open_datagrams
from popgate.servers.login_file import LoginFile
from popgate.servers.peer_logins import DATAGRAMS_A_TURN, PeerEndpoint, PeerListener
from popgate.servers.sockets import ListenError
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from popgate.values.identity import Identity
from support.clock import ManualClock

KEY = b"a key that both machines share"
NOW = 1_700_000_000.0


class Site:
    """A listener at a loopback address, and what it did."""

    def __init__(self, path: Path, *, key: bytes | None = KEY, is_recorded: bool = True) -> None:
        self.clock = ManualClock(NOW)
        self.events: list[Event] = []
        self.recorded: list[tuple[str, Identity | None]] = []
        self.is_recorded = is_recorded
        self.path = path / "logins"
        self.bound = open_datagrams("127.0.0.1:0")
        self.here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.here.connect(self.bound.getsockname())
        self.here.settimeout(1)
        self.listener = self.listen(key)

    def listen(self, key: bytes | None = KEY) -> PeerListener:
        return PeerListener(
            [PeerEndpoint(self.bound.dup(), "here", key, (), False)],
            LoginFile(str(self.path), b"boot"),
            record=self._record,
            clock=self.clock,
            emit=self.events.append,
            token=lambda: "t" * 22,
        )

    def _record(self, address: ClientAddress, identity: Identity | None, session: str) -> bool:
        self.recorded.append((address.text, identity))
        return self.is_recorded

    def send(self, number: int, user: str = "bob", key: bytes = KEY) -> str:
        nonce = f"{number:032x}"
        login = PeerLogin(ClientAddress.parse("192.0.2.7"), user, "", self.clock.now(), nonce)
        self.here.send(signed_login(login, key))
        return nonce

    def told(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    def close(self) -> None:
        self.listener.close()
        self.bound.close()
        self.here.close()


def run(path: Path, story: Callable[[Site], Coroutine[None, None, None]], **options: bool) -> Site:
    async def inside() -> Site:
        site = Site(path, **options)
        try:
            await story(site)
        finally:
            site.close()
        return site

    return asyncio.run(inside())


def test_a_turn_takes_so_many_and_no_more(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        for number in range(2 * DATAGRAMS_A_TURN + 5):
            site.send(number)
        counts = [0]
        while counts[-1] < 2 * DATAGRAMS_A_TURN + 5:
            await asyncio.sleep(0)
            if len(site.recorded) != counts[-1]:
                counts.append(len(site.recorded))
        assert counts == [0, DATAGRAMS_A_TURN, 2 * DATAGRAMS_A_TURN, 2 * DATAGRAMS_A_TURN + 5]

    run(tmp_path, story)


def test_what_waits_at_the_end_is_answered_and_then_nothing_is_read(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        nonce = site.send(1)
        site.listener.close()
        assert is_answer(site.here.recv(2000), nonce, KEY) is True
        site.send(2)
        await asyncio.sleep(0.05)
        assert len(site.recorded) == 1
        site.listener = site.listen()
        await asyncio.sleep(0.05)
        assert len(site.recorded) == 2, "the next one goes on with what waits"

    run(tmp_path, story)


def test_the_second_waits_until_the_first_ends(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        second = site.listen()
        site.send(1)
        await asyncio.sleep(0.05)
        assert len(site.recorded) == 1
        site.listener.close()
        nonce = site.send(2)
        await asyncio.sleep(0.5)
        site.here.recv(2000)
        assert is_answer(site.here.recv(2000), nonce, KEY) is True
        second.close()

    run(tmp_path, story)


def test_a_login_without_a_grant_is_said_to_have_none(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        nonce = site.send(1, user="")
        await asyncio.sleep(0.02)
        assert is_answer(site.here.recv(2000), nonce, KEY) is False
        assert site.recorded == [("192.0.2.7", None)]
        assert site.told("peer.login")[0].fields["reason"] == "no-grant"

    run(tmp_path, story, is_recorded=False)


def test_refusals_are_told_ten_a_minute_and_then_counted(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        for minute in range(2):
            for number in range(25):
                site.send(number, key=b"a key that nobody shares")
            await asyncio.sleep(0.02)
            assert len(site.told("peer.refused")) == 10 * (minute + 1)
            site.clock.advance(61)
            site.listener.tick()
        assert [event.fields["count"] for event in site.told("peer.refused.more")] == [15, 15]

    run(tmp_path, story)


def test_a_file_that_cannot_be_used_counts_nothing_until_it_can(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.listener.close()
        site.path.unlink()
        site.path.mkdir()
        site.listener = site.listen()
        site.send(1)
        await asyncio.sleep(0.5)
        assert site.recorded == []
        assert [event.name for event in site.events] == ["peer.fault"], "once, not at every try"
        site.clock.advance(1)
        site.path.rmdir()
        await asyncio.sleep(0.5)
        # what was sent before the memory began does not count: nobody knows whether it was received
        assert site.told("peer.refused")[0].fields["reason"] == "too-early"
        nonce = site.send(2)
        await asyncio.sleep(0.05)
        assert is_answer(site.here.recv(2000), nonce, KEY) is True

    run(tmp_path, story)


@pytest.mark.parametrize("bind", ["unix:/run/logins", "fd:logins", "203.0.113.1:811"])
def test_places_where_no_datagrams_can_be_had(bind: str) -> None:
    with pytest.raises(ListenError):
        open_datagrams(bind)
    with pytest.raises(BindError):
        open_datagrams("811")


def test_a_passed_socket_must_take_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as passed:
            passed.bind(("127.0.0.1", 0))
            monkeypatch.setattr(datagrams, "inherited", lambda name, passed=passed: passed.dup())
            if kind == socket.SOCK_STREAM:
                with pytest.raises(ListenError, match="ListenDatagram"):
                    open_datagrams("fd:logins")
            else:
                open_datagrams("fd:logins").close()


def test_a_caller_with_a_zone_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(site: Site) -> None:
        true = datagrams.receive

        def zoned(bound: socket.socket, octets: int) -> datagrams.Datagram:
            got = true(bound, octets)
            got.caller = None
            return got

        monkeypatch.setattr(datagrams, "receive", zoned)
        site.send(1)
        await asyncio.sleep(0.02)
        assert site.recorded == [] and site.told("peer.refused")[0].fields["reason"] == "stranger"

    run(tmp_path, story)
