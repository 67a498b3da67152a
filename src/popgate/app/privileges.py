"""From root to an ordinary user, for good."""

import os
import pwd


class PrivilegeError(Exception):
    """The process cannot become the user."""


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
