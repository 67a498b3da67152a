"""The floor of the machine: an asyncio.Protocol on uvloop that answers every command from a table.

usage: python bench/canned.py pop3|smtp|policy|socketmap|tcpmap PORT

No server in Python can be faster: nothing is parsed beyond the first letters, nothing is
decided, nothing is written.
"""

import asyncio
import sys

_POP3 = {
    b"USER": b"+OK\r\n",
    b"PASS": b"+OK logged in\r\n",
    b"STAT": b"+OK 3 3000\r\n",
    b"QUIT": b"+OK bye\r\n",
}
_SMTP = {
    b"EHLO": b"250-mail.example.org\r\n250-PIPELINING\r\n250 SIZE 100000000\r\n",
    b"MAIL": b"250 2.1.0 ok\r\n",
    b"RCPT": b"250 2.1.5 ok\r\n",
    b"RSET": b"250 2.0.0 ok\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


# What is asked comes whole, because nobody asks again before the answer.
_ASKED = {"policy": b"action=permit\n\n", "socketmap": b"8:OK RELAY,", "tcpmap": b"200 RELAY\n"}


class Asked(asyncio.Protocol):
    """One connection: says yes to whatever comes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)


class Canned(asyncio.Protocol):
    """One connection: greets, answers by the first four letters, closes after QUIT."""

    def __init__(self, greeting: bytes, answers: dict[bytes, bytes]) -> None:
        self._greeting = greeting
        self._answers = answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answers[data[:4]])
        if data[:4] == b"QUIT":
            self._transport.close()


async def main(protocol: str, port: int) -> None:
    greeting, answers = (
        (b"+OK ready\r\n", _POP3) if protocol == "pop3" else (b"220 mail.example.org ESMTP\r\n", _SMTP)
    )
    asked = _ASKED.get(protocol)
    server = await asyncio.get_running_loop().create_server(
        lambda: Canned(greeting, answers) if asked is None else Asked(asked),
        "127.0.0.1",
        port,
        backlog=1024,
    )
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
