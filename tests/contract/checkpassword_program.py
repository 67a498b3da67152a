#!/usr/bin/env python3
"""A checkpassword program for the tests: users in a file of `name:password` lines.

usage: checkpassword_program.py USERS PROGRAM [ARGUMENT...]

It obeys https://cr.yp.to/checkpwd/interface.html: at most 512 bytes on descriptor 3 up to end of
file, `name NUL password NUL timestamp NUL`; 1 for a wrong password, 2 for misuse, 111 for a fault,
otherwise it runs PROGRAM with USER, HOME and SHELL. Names that begin with `act-` make it misbehave.
"""

import hashlib
import os
import sys
import time


def main() -> int:
    users_file, program = sys.argv[1], sys.argv[2:]
    data = b""
    while len(data) <= 512:
        block = os.read(3, 513)
        if not block:
            break
        data += block
    os.close(3)
    fields = data.split(b"\0")
    if len(data) > 512 or len(fields) != 4 or fields[3] or not program:
        return 2
    name, password, timestamp = fields[0].decode(), fields[1], fields[2]
    user = name
    if name.startswith("act-sleep@"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
        with open(users_file + ".child", "w", encoding="ascii") as file:
            file.write(str(child))
        time.sleep(60)
    if name.startswith("act-fault@"):
        return 111
    if name.startswith("act-misuse@"):
        return 2
    if name.startswith("act-crash@"):
        os.kill(os.getpid(), 9)
    if name.startswith("act-zero@"):
        return 0
    if name.startswith("act-noise@"):
        sys.stdout.write("USER=forged@example.org\0" * 100_000)
        return 1
    try:
        with open(users_file, encoding="utf-8") as file:
            users = dict(line.rstrip("\n").split(":", 1) for line in file)
    except OSError:
        return 111
    with open(users_file + ".asked", "a", encoding="utf-8") as file:
        file.write(name + "\n")
    secret = users.get(name)
    if secret is None:
        return 1
    apop = hashlib.md5(timestamp + secret.encode()).hexdigest().encode()
    if password not in (secret.encode(), apop):
        return 1
    if name.startswith("other-name@"):
        user = "Ann@example.org"
    if name.startswith("bad-user@"):
        user = "../etc@x"
    if name.startswith("short-user@"):
        user = "short-user"
    os.environ.update(USER=user, HOME="/nonexistent", SHELL="/bin/sh")
    os.execvp(program[0], program)
    return 111


if __name__ == "__main__":
    sys.exit(main())
