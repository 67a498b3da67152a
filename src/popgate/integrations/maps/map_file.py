"""A map file of any kind as its writer sees it: write it, look into it, take it away."""

import grp
import os
from collections.abc import Collection
from typing import Protocol

from popgate.integrations.maps.settings import MapSettings
from popgate.values.address import ClientAddress


class MapError(Exception):
    """A map cannot be written or read; the text names it and says why."""


class MapFile(Protocol):
    """One map. Its methods raise MapError."""

    settings: MapSettings

    def write(self, addresses: Collection[ClientAddress]) -> None:
        """From now on it holds `addresses` and nobody else. Where that cannot be done, the old content
        may stay: see `remove`."""
        ...

    def is_as_written(self) -> bool:
        """Is it there, as this object wrote it? Never raises."""
        ...

    def remove(self) -> None:
        """Take the file away, so that servers refuse for now. Never raises."""
        ...

    def holds(self, address: ClientAddress) -> bool: ...

    def close(self) -> None: ...


def give(file: int, settings: MapSettings) -> None:
    """The permissions and the group of the settings. Raises OSError."""
    if settings.file_group:
        try:
            os.fchown(file, -1, grp.getgrnam(settings.file_group).gr_gid)
        except KeyError:
            raise OSError(0, f"there is no group {settings.file_group}") from None
    os.fchmod(file, int(settings.file_mode, 8))


def remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def fault_of(path: str, fault: Exception) -> MapError:
    why = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
    return MapError(f"{path}: {why}")


def remove_litter(settings: MapSettings) -> None:
    """Temporary files of writers that were killed. Never raises."""
    directory, name = os.path.split(settings.path)
    try:
        for each in os.listdir(directory):
            middle = each.removeprefix(f".{name}.").removesuffix(".new")
            if len(each) == len(middle) + len(name) + 6 and middle.isdigit() and not _is_running(int(middle)):
                remove_file(os.path.join(directory, each))
    except OSError:
        pass


def _is_running(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
