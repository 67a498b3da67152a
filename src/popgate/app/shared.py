"""Memory that the parent maps before it forks, so that all processes of one server share it."""

import mmap


class SharedMemory:
    """Anonymous shared maps, each given out as a memoryview."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def allocate(self, octets: int) -> memoryview:
        """A zeroed buffer of at least so many octets."""
        area = mmap.mmap(-1, max(octets, mmap.PAGESIZE))
        self._maps.append(area)
        return memoryview(area)[:octets]
