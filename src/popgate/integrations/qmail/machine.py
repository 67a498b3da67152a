"""The files of the host that is looked at, below a root directory: `/`, or where its disk is mounted.

Links are followed below that root and never out of it, so what is said of a mounted disk is not
about the machine that looks. Nothing is written and nothing is run.
"""

import os
import stat
from collections.abc import Sequence
from typing import Literal

_MOST_OCTETS = 1_048_576
_MOST_LINKS = 16

Kind = Literal["script", "binary", "python"]


class Machine:
    """Paths given to it are the host's own. `superuser` is the uid that files of root have here,
    and `is_live` says that this is the running machine itself."""

    def __init__(self, root: str = "/", superuser: int = 0) -> None:
        self._root = os.path.realpath(root)
        self.superuser = superuser
        self.is_live = self._root == "/"
        self._users: dict[str, tuple[int, int]] | None = None

    def real(self, path: str) -> str:
        """Where `path` lies for us, links resolved below the root. Raises OSError for a loop of links."""
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        found: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                if found:
                    found.pop()
                continue
            here = os.path.join(self._root, *found, part)
            if not os.path.islink(here):
                found.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(f"{path}: too many links")
            target = os.readlink(here)
            if target.startswith("/"):
                found = []
            pending += [one for one in reversed(target.split("/")) if one not in ("", ".")]
        return os.path.join(self._root, *found)

    def state(self, path: str) -> os.stat_result | None:
        """Its state, links followed; None where there is nothing."""
        try:
            return os.stat(self.real(path))
        except OSError:
            return None

    def is_directory(self, path: str) -> bool:
        state = self.state(path)
        return state is not None and stat.S_ISDIR(state.st_mode)

    def exists(self, path: str) -> bool:
        return self.state(path) is not None

    def names(self, directory: str) -> list[str]:
        """The names in a directory, sorted. Raises OSError."""
        return sorted(os.listdir(self.real(directory)))

    def octets(self, path: str, most: int = _MOST_OCTETS) -> bytes | None:
        """The first `most` octets of a regular file; None where it is none or cannot be read."""
        try:
            # not a FIFO, whose open would wait
            file = os.open(self.real(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return None
            with open(file, "rb", closefd=False) as stream:
                return stream.read(most)
        except OSError:
            return None
        finally:
            os.close(file)

    def text(self, path: str) -> str | None:
        """A file's text; octets that are no UTF-8 do not matter here."""
        octets = self.octets(path)
        return None if octets is None else octets.decode("utf-8", "replace")

    def find(self, program: str, search: Sequence[str]) -> str | None:
        """The path of a program, looked for in the directories `search` where it has no slash."""
        candidates = [program] if "/" in program else [f"{directory}/{program}" for directory in search]
        for path in candidates:
            state = self.state(path)
            if state is not None and stat.S_ISREG(state.st_mode) and state.st_mode & 0o111:
                return path
        return None

    def kind(self, path: str) -> Kind | None:
        """What kind of program a file is."""
        head = self.octets(path, 256)
        if not head:
            return None
        if not head.startswith(b"#!"):
            return "binary"
        line = head.split(b"\n", 1)[0]
        if b"python" in line:
            return "python"
        # launchers that must start before an environment with blanks in its path is found
        return "python" if b"python" in head else "script"

    def user(self, name: str) -> tuple[int, int] | None:
        """uid and gid of a user of that host, by its /etc/passwd (and, here, by the name service)."""
        if self._users is None:
            self._users = {}
            for line in (self.text("/etc/passwd") or "").splitlines():
                fields = line.split(":")
                if len(fields) >= 4 and fields[2].isdigit() and fields[3].isdigit():
                    self._users.setdefault(fields[0], (int(fields[2]), int(fields[3])))
        if name not in self._users and self.is_live:
            import pwd

            try:
                entry = pwd.getpwnam(name)
            except (KeyError, ValueError):
                return None
            return entry.pw_uid, entry.pw_gid
        return self._users.get(name)

    def has_global_ipv6(self) -> bool:
        """Has one of its interfaces an address that others can reach? Scope 00 in /proc/net/if_inet6,
        without loopback's and the unique local ones."""
        for line in (self.text("/proc/net/if_inet6") or "").splitlines():
            fields = line.split()
            if len(fields) >= 6 and fields[3] == "00" and fields[0][:1] in ("2", "3"):
                return True
        return False
