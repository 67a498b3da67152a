"""Binding as root, then dropping root for good."""

import os
import pwd


class PrivilegeError(Exception):
    """The process cannot become the user; the text says what to do."""


def find_user(name: str) -> pwd.struct_passwd | None:
    """The user to become, or None when there is nothing to drop. Raises PrivilegeError."""
    if os.geteuid() != 0:
        if name and pwd.getpwuid(os.geteuid()).pw_name != name:
            raise PrivilegeError(
                f"user = {name!r}, but only root can become it: start popgate as root or as {name},"
                " or leave `user` out"
            )
        return None
    if not name:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise PrivilegeError(
            f"user = {name!r}: there is no such user; `adduser --system --group {name}` makes it"
        ) from None


def make_private_directory(path: str, user: pwd.struct_passwd | None) -> None:
    """Make `path` (0700) where it does not exist, owned by `user`."""
    os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def drop_privileges(user: str) -> None:
    """Become `user` with its groups; nothing to do when not root or when `user` is "".

    Raises PrivilegeError for an unknown user, and when root could be had back.
    """
    if not user or os.geteuid() != 0:
        return
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise PrivilegeError(f"there is no user {user} on this machine") from None
    if account.pw_uid == 0:
        raise PrivilegeError(f"{user} is root")
    try:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    except OSError as error:
        raise PrivilegeError(f"cannot become {user}: {error.strerror}") from error
    try:
        os.setuid(0)
    except OSError:
        os.environ["HOME"] = account.pw_dir
        return
    raise PrivilegeError(f"became {user}, and could become root again")


def raise_descriptor_limit() -> None:
    """Ask for as many open files as the system lets us have: each session is one or more."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass
