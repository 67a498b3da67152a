"""Asks the client's host who opened the connection (RFC 1413), for TCPREMOTEINFO.

The answer proves nothing. It is off unless asked for, because each connection waits for it.
"""

import asyncio
import re

from popgate.integrations.ucspi.environment import Ends

_PORT = 113
_ANSWER_OCTETS = 1000  # RFC 1413 6
# RFC 1413 6: <port-pair> : USERID : <opsys-field> : <user-id>
_REPLY = re.compile(rb"[ \t]*(\d+)[ \t]*,[ \t]*(\d+)[ \t]*:[ \t]*USERID[ \t]*:[^:]*:[ \t]*(.*)", re.DOTALL)
_USER = re.compile(r"[!-9;-~]{1,512}")  # printable, no colon: it may become part of a rule's address


async def remote_info(ends: Ends, seconds: float, port: int = _PORT) -> str | None:
    """The user's name as that host tells it, None where there is no usable answer in time.
    Nobody is asked where `seconds` is 0."""
    if seconds <= 0:
        return None
    writer = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(
                ends.client.text, port, local_addr=(ends.local.text, 0), limit=_ANSWER_OCTETS
            )
            writer.write(f"{ends.client_port} , {ends.local_port}\r\n".encode())
            line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as cut:
        line = cut.partial
    except (TimeoutError, OSError, asyncio.LimitOverrunError):
        return None
    finally:
        if writer is not None:
            writer.close()
    return parse_reply(line, ends.client_port, ends.local_port)


def parse_reply(line: bytes, client_port: int, local_port: int) -> str | None:
    """The user in one line of answer about this pair of ports, or None."""
    reply = _REPLY.match(line.rstrip(b"\r\n"))
    if reply is None or len(reply[1]) > 5 or len(reply[2]) > 5:
        return None
    if (int(reply[1]), int(reply[2])) != (client_port, local_port):
        return None
    user = reply[3].decode("latin-1").strip(" \t")
    return user if _USER.fullmatch(user) else None
