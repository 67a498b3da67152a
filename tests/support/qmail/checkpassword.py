"""A stand-in for checkpassword (with APOP, as cmd5checkpw): proves what descriptor 3 says, becomes the user.

`checkpassword PROGRAM ...` sets USER, HOME and SHELL, and DOMAIN where control/users has one. Each
line there: name, password, uid, gid, home directory, domain, with colons between.
"""

import hashlib
import hmac
import os
import sys

HOME = "@HOME@"


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(2)
    given = b""
    try:
        while len(given) < 513 and (piece := os.read(3, 513 - len(given))):
            given += piece
        os.close(3)
    except OSError:
        sys.exit(2)
    fields = given.split(b"\0")
    if len(fields) < 3 or len(given) > 512:
        sys.exit(2)
    name, password, timestamp = fields[:3]
    with open(f"{HOME}/control/users") as lines:
        for line in lines:
            user, secret, uid, gid, home, domain = line.rstrip("\n").split(":")
            if user.encode() == name:
                break
        else:
            sys.exit(1)
    digest = hashlib.md5(timestamp + secret.encode(), usedforsecurity=False).hexdigest().encode()
    if not hmac.compare_digest(password, secret.encode()) and not hmac.compare_digest(password, digest):
        sys.exit(1)
    os.setgroups([int(gid)])
    os.setgid(int(gid))
    os.setuid(int(uid))
    os.chdir(home)
    os.environ.update(USER=user, HOME=home, SHELL="/bin/sh")
    if domain:
        os.environ["DOMAIN"] = domain
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError:
        sys.exit(111)


main()
