"""The writer of maps with maps and grants that tests play: what is told, who writes, how often."""

import asyncio
import os
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from popgate.files.held import HeldFile
from popgate.integrations.maps.live import CannotSay
from popgate.integrations.maps.map_file import MapError
from popgate.integrations.maps.settings import MapSettings
from popgate.integrations.maps.writer import MapWriter
from popgate.values.address import ClientAddress
from popgate.values.event import Event
from support.clock import ManualClock

A, B = ClientAddress.parse("192.0.2.1"), ClientAddress.parse("2001:db8::1")


class Map:
    """A map in memory; `fails` makes the next writes fail."""

    def __init__(self, name: str = "/maps/x") -> None:
        self.settings = MapSettings(name, "text")
        self.content: set[ClientAddress] | None = None
        self.fails = False
        self.writes = 0

    def write(self, addresses: Collection[ClientAddress]) -> None:
        if self.fails:
            raise MapError("/maps/x: No space left on device")
        self.content = set(addresses)
        self.writes += 1

    def is_as_written(self) -> bool:
        return self.content is not None

    def remove(self) -> None:
        self.content = None

    def holds(self, address: ClientAddress) -> bool:
        return self.content is not None and address in self.content

    def close(self) -> None:
        pass


class Site:
    """A directory in which files are touched, and until when each address may relay."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "allow"
        self.directory.mkdir()
        self.lock = directory / "lock"
        self.ends: dict[ClientAddress, float] = {}
        self.clock = ManualClock()
        self.events: list[Event] = []
        self.is_down = False

    def until(self, address: ClientAddress) -> float:
        if self.is_down:
            raise CannotSay("the store is down")
        return self.ends.get(address, 0.0)

    def grant(self, address: ClientAddress, seconds: float = 100.0) -> None:
        self.ends[address] = self.clock.now() + seconds
        (self.directory / address.text).write_text("")

    def writer(self, *maps: Map, dropped: Collection[Map] = ()) -> MapWriter:
        return MapWriter(
            maps,
            list(dropped),
            str(self.directory),
            HeldFile(str(self.lock)),
            stored=lambda: list(self.ends),
            until=self.until,
            clock=self.clock,
            emit=self.events.append,
        )

    def told(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]


async def soon(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does not come true")


async def test_a_fault_is_told_once_and_the_map_is_gone_until_it_can_be_written(tmp_path: Path) -> None:
    site, one, other = Site(tmp_path), Map(), Map("/maps/y")
    writer = site.writer(one, other)
    site.grant(A)
    await soon(lambda: one.content == {A})
    one.fails = True
    site.ends[A] = 0
    os.utime(site.directory / A.text)
    await soon(lambda: one.content is None and other.content == set())
    for _ in range(3):
        writer.tick()
        await asyncio.sleep(0.02)
    (fault,) = site.told("map.fault")
    assert fault.fields == {"map": "/maps/x", "detail": "/maps/x: No space left on device"}
    one.fails = False
    writer.tick()
    await soon(lambda: one.content == set())
    writer.close()


async def test_a_burst_of_logins_is_written_in_few_turns(tmp_path: Path) -> None:
    site, one = Site(tmp_path), Map()
    writer = site.writer(one)
    everybody = [ClientAddress(bytes((10, 0, index >> 8, index & 255))) for index in range(1000)]
    for address in everybody:
        site.grant(address)
    await soon(lambda: one.content == set(everybody))
    assert one.writes < 50
    writer.close()


async def test_the_second_writer_waits_and_then_goes_on(tmp_path: Path) -> None:
    site, old_map, new_map, dropped = Site(tmp_path), Map(), Map(), Map("/maps/dropped")
    dropped.content = {A}
    site.grant(A)
    old = site.writer(old_map)
    new = site.writer(new_map, dropped=[dropped])
    site.grant(B)
    await soon(lambda: old_map.content == {A, B})
    assert old.is_writing and not new.is_writing
    assert (new_map.content, dropped.content) == (None, {A})
    old.close()
    await soon(lambda: new.is_writing)
    assert (new_map.content, dropped.content) == ({A, B}, set())
    new.clear()
    assert new_map.content == set()
    new.close()


async def test_while_the_store_is_down_what_is_known_holds_until_its_end(tmp_path: Path) -> None:
    site, one = Site(tmp_path), Map()
    site.grant(A, 50)
    writer = site.writer(one)
    assert one.content == {A}
    site.is_down = True
    os.utime(site.directory / A.text)
    await soon(lambda: bool(site.told("map.fault")))
    assert one.content == {A}
    site.clock.advance(51)
    writer.tick()
    await soon(lambda: one.content == set())
    writer.close()


async def test_without_inotify_it_looks_at_everything_each_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(**_: object) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("popgate.integrations.maps.watch.Inotify", none_left)
    site, one = Site(tmp_path), Map()
    writer = site.writer(one)
    site.grant(A)
    writer.tick()
    await soon(lambda: one.content == {A})
    writer.close()
