"""A stand-in for qmail-popup: asks for name and password, and has a checker prove them.

`qmail-popup HOST CHECKER ...`: the checker finds on descriptor 3 the name, the password (or APOP's
digest) and the banner's timestamp, each ended by NUL; it becomes the mail server, or exits with 1.
"""

import os
import sys
import time

_CLOSED = "-ERR authorization failed"


def say(line: str) -> None:
    os.write(1, line.encode() + b"\r\n")


def read_line() -> bytes:
    """One line and nothing behind it: the rest of the connection belongs to the mail server."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 1000:
        octet = os.read(0, 1)
        if not octet:
            sys.exit(0)
        line += octet
    return line.strip()


def check(checker: list[str], name: bytes, password: bytes, timestamp: bytes) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        if reader != 3:
            os.dup2(reader, 3)
            os.close(reader)
        os.set_inheritable(3, True)
        try:
            os.execvp(checker[0], checker)
        except OSError:
            os._exit(1)
    os.close(reader)
    try:
        os.write(writer, name + b"\0" + password + b"\0" + timestamp + b"\0")
    except BrokenPipeError:
        pass
    os.close(writer)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        sys.exit(0)
    say("-ERR child crashed" if status < 0 else _CLOSED)
    sys.exit(1)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(100)
    host, checker = sys.argv[1], sys.argv[2:]
    timestamp = f"<{os.getpid()}.{int(time.time())}@{host}>".encode()
    say(f"+OK {timestamp.decode()}")
    name = None
    while True:
        verb, _, rest = read_line().partition(b" ")
        verb = verb.upper()
        if verb == b"QUIT":
            say("+OK ")
            return
        if verb == b"USER" and rest:
            name = rest
            say("+OK ")
        elif verb == b"PASS" and name is None:
            say("-ERR USER first")
        elif verb == b"PASS":
            assert name is not None
            check(checker, name, rest, timestamp)
        elif verb == b"APOP" and b" " in rest:
            who, _, digest = rest.partition(b" ")
            check(checker, who, digest, timestamp)
        else:
            say("-ERR authorization first")


main()
