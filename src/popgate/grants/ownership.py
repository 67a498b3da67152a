"""Files that root makes in a directory of the server's user belong to that user.

An administrator's command runs as root, the server does not; what the one writes into their
common directories the other must be able to read, replace and append to.
"""

import os

Owner = tuple[int, int]


def make_directory(path: str) -> None:
    """Make `path`, mode 0700, and what leads to it, where missing. Raises OSError."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(os.path.abspath(path))
    make_directory(above)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    owner = owner_for(above)
    if owner is not None:
        # By descriptor: whoever owns `above` may have put something else there meanwhile.
        made = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(made, *owner)
        finally:
            os.close(made)


def owner_for(directory: str | int) -> Owner | None:
    """To whom a new file in `directory` (a path or a descriptor) must be given; None: it is right
    as it is. Raises OSError."""
    if os.geteuid() != 0:
        return None
    state = os.stat(directory)
    return (state.st_uid, state.st_gid) if state.st_uid != 0 else None
