"""A stand-in for qmail-pop3d: `qmail-pop3d MAILDIR` speaks POP3 after the login, on one Maildir."""

import os
import sys


def say(line: str) -> None:
    sys.stdout.buffer.write(line.encode() + b"\r\n")
    sys.stdout.buffer.flush()


def main() -> None:
    try:
        os.chdir(sys.argv[1])
        paths = sorted(f"{folder}/{name}" for folder in ("new", "cur") for name in os.listdir(folder))
    except (IndexError, OSError):
        say("-ERR this user has no $HOME/Maildir")
        return
    deleted: set[int] = set()

    def number(text: bytes) -> int | None:
        at = int(text) - 1 if text.isdigit() else -1
        return at if 0 <= at < len(paths) and at not in deleted else None

    def left() -> list[int]:
        return [at for at in range(len(paths)) if at not in deleted]

    say("+OK ")
    while line := sys.stdin.buffer.readline(1000):
        verb, _, rest = line.strip().partition(b" ")
        verb = verb.upper()
        if verb == b"QUIT":
            for at in deleted:
                os.unlink(paths[at])
            say("+OK ")
            return
        if verb == b"STAT":
            say(f"+OK {len(left())} {sum(os.path.getsize(paths[at]) for at in left())}")
        elif verb in (b"LIST", b"UIDL") and not rest:
            say("+OK ")
            for at in left():
                name = os.path.basename(paths[at]).split(":")[0]
                say(f"{at + 1} {os.path.getsize(paths[at]) if verb == b'LIST' else name}")
            say(".")
        elif verb in (b"RETR", b"DELE", b"LIST", b"UIDL"):
            at = number(rest)
            if at is None:
                say("-ERR no such message")
            elif verb == b"DELE":
                deleted.add(at)
                say("+OK ")
            elif verb != b"RETR":
                name = os.path.basename(paths[at]).split(":")[0]
                say(f"+OK {at + 1} {os.path.getsize(paths[at]) if verb == b'LIST' else name}")
            else:
                say("+OK ")
                with open(paths[at], "rb") as file:
                    for text in file.read().splitlines():
                        say(("." if text.startswith(b".") else "") + text.decode("latin-1"))
                say(".")
        elif verb == b"RSET":
            deleted.clear()
            say("+OK ")
        elif verb == b"NOOP":
            say("+OK ")
        else:
            say("-ERR unimplemented")


main()
