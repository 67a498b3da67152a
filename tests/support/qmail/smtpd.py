"""A stand-in for qmail-smtpd: the same interface, so that what stands before it can be tested.

Descriptors 0 and 1 are the connection, TCPREMOTEIP is the client, RELAYCLIENT lets it relay and is
appended to each recipient, control/rcpthosts lists the domains taken from everybody. A message
becomes a file in queue/, with its envelope before it; so does who may be meant by USER and DOMAIN.
"""

import os
import re
import sys
import time

HOME = "@HOME@"

_ADDRESS = re.compile(rb"(?i)(?:from|to):\s*<([^<>]*)>|(?:from|to):\s*(\S*)")


def control(name: str) -> list[str] | None:
    try:
        with open(f"{HOME}/control/{name}") as lines:
            return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    except FileNotFoundError:
        return None


def say(line: str) -> None:
    sys.stdout.buffer.write(line.encode() + b"\r\n")
    sys.stdout.buffer.flush()


def is_ours(address: str, hosts: list[str] | None) -> bool:
    """rcpthosts(5): a name is itself, `.name` whatever ends with it; no file, no limit."""
    if hosts is None or "@" not in address:
        return True
    domain = address.rpartition("@")[2].lower()
    suffixes = [domain[at:] for at, char in enumerate(domain) if char == "."]
    return domain in hosts or any(suffix in hosts for suffix in suffixes)


def message() -> bytes | None:
    """The text up to its dot; None where a line ends with a bare LF."""
    lines = []
    while (line := sys.stdin.buffer.readline()) != b".\r\n":
        if not line:
            sys.exit(1)
        if not line.endswith(b"\r\n"):
            return None
        lines.append(line[1:-2] if line.startswith(b".") else line[:-2])
    return b"".join(line + b"\n" for line in lines)


def keep(sender: str, recipients: list[str], helo: str, text: bytes) -> str:
    name = f"{time.time_ns()}.{os.getpid()}"
    who = "@".join(filter(None, (os.environ.get("USER"), os.environ.get("DOMAIN"))))
    head = [f"sender {sender}", *(f"recipient {one}" for one in recipients), f"login {who}", ""]
    remote = f"{os.environ.get('TCPREMOTEHOST', 'unknown')} (HELO {helo}) ({os.environ['TCPREMOTEIP']})"
    head.append(f"Received: from {remote}\n  by {os.environ.get('TCPLOCALHOST', 'unknown')} with SMTP")
    path = f"{HOME}/queue/{name}"
    with open(f"{path}.new", "wb") as file:
        file.write("\n".join(head).encode() + b"\n" + text)
    os.rename(f"{path}.new", path)
    return name


def main() -> None:
    if "TCPREMOTEIP" not in os.environ:
        say("421 no client (#4.3.0)")
        return
    me, hosts = (control("me") or ["unknown"])[0], control("rcpthosts")
    relayclient = os.environ.get("RELAYCLIENT")
    sender, recipients, helo = None, [], "unknown"
    say(f"220 {me} ESMTP")
    while line := sys.stdin.buffer.readline(1000):
        verb, _, rest = line.strip().partition(b" ")
        verb = verb.upper()
        if verb == b"QUIT":
            say(f"221 {me}")
            return
        if verb in (b"HELO", b"EHLO"):
            helo = rest.decode("latin-1")
            say(f"250-{me}\r\n250-PIPELINING\r\n250 8BITMIME" if verb == b"EHLO" else f"250 {me}")
            sender, recipients = None, []
        elif verb in (b"MAIL", b"RCPT"):
            found = _ADDRESS.match(rest)
            address = (found[1] or found[2] or b"").decode("latin-1") if found else None
            if address is None:
                say("555 syntax error (#5.5.4)")
            elif verb == b"MAIL":
                sender, recipients = address, []
                say("250 ok")
            elif sender is None:
                say("503 MAIL first (#5.5.1)")
            elif relayclient is not None:
                recipients.append(address + relayclient)
                say("250 ok")
            elif is_ours(address, hosts):
                recipients.append(address)
                say("250 ok")
            else:
                say("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)")
        elif verb == b"DATA" and sender is not None and recipients:
            say("354 go ahead")
            text = message()
            if text is None:
                say("451 a line ends with a bare LF")
                return
            say(f"250 ok {keep(sender, recipients, helo, text)}")
            sender, recipients = None, []
        elif verb == b"DATA":
            say("503 RCPT first (#5.5.1)")
        elif verb == b"RSET":
            sender, recipients = None, []
            say("250 flushed")
        elif verb == b"NOOP":
            say("250 ok")
        else:
            say("502 unimplemented (#5.5.1)")


main()
