"""A scripted SMTP server that keeps every octet it was sent.

It knows as little SMTP as it can, so that it and the client under test share no mistakes:
lines end in CRLF, a body ends at CRLF.CRLF, and what comes is kept raw.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

Answer = Callable[[str], str | None]
"""Takes a command line; returns the reply lines, None for the usual reply, "" to hang up,
"hang" to say nothing."""


@dataclass
class Transaction:
    mail: str = ""
    rcpts: list[str] = field(default_factory=list)
    body: bytes = b""
    """As it stood on the wire, dot-stuffing included, without the final dot line."""

    @property
    def content(self) -> bytes:
        return b"".join(
            line.removeprefix(b".") if line.startswith(b".") else line
            for line in self.body.splitlines(keepends=True)
        )


class SmtpPeer:
    """`async with SmtpPeer() as peer:`; `peer.port`, `peer.transactions`, `peer.commands`."""

    def __init__(
        self,
        answer: Answer = lambda line: None,
        extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 0"),
        greeting: str = "220 peer.example ESMTP",
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        host: str = "127.0.0.1",
        end_of_data: Callable[[Transaction], str] = lambda transaction: "250 2.0.0 taken",
    ) -> None:
        self._answer = answer
        self._extensions = extensions
        self._greeting = greeting
        self._tls = tls
        self._implicit = implicit_tls
        self._host = host
        self._end_of_data = end_of_data
        self.commands: list[str] = []
        self.transactions: list[Transaction] = []
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "SmtpPeer":
        context = self._tls if self._implicit else None
        self._server = await asyncio.start_server(
            self._accept, self._host, self.port, ssl=context, limit=2**24
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self.open_now -= 1
            writer.close()
            self._tasks.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        if not self._greeting:
            return
        say(self._greeting)
        current = Transaction()
        while True:
            line = (await reader.readuntil(b"\r\n")).decode("utf-8", "surrogateescape")[:-2]
            self.commands.append(line)
            verb = line.split(" ")[0].split(":")[0].upper()
            reply = self._answer(line)
            if reply == "":
                return
            if reply == "hang":
                await asyncio.sleep(3600)
            if reply is not None:
                say(reply)
                if reply.startswith("2") and verb == "MAIL":
                    current = Transaction(line)
                if reply.startswith("2") and verb == "RCPT":
                    current.rcpts.append(line)
                if reply.startswith("421"):
                    return
                if not reply.startswith("354"):
                    continue
            elif verb == "EHLO":
                names = [*self._extensions]
                if self._tls is not None and writer.get_extra_info("sslcontext") is None:
                    names.append("STARTTLS")
                lines = ["peer.example", *names]
                for name in lines[:-1]:
                    say(f"250-{name}")
                say(f"250 {lines[-1]}")
            elif verb == "STARTTLS" and self._tls is not None:
                say("220 go ahead")
                await writer.drain()
                await writer.start_tls(self._tls)
            elif verb == "MAIL":
                current = Transaction(line)
                say("250 2.1.0 ok")
            elif verb == "RCPT":
                current.rcpts.append(line)
                say("250 2.1.5 ok")
            elif verb == "DATA":
                say("354 go ahead")
            elif verb == "QUIT":
                say("221 2.0.0 bye")
                await writer.drain()
                return
            else:
                say("250 2.0.0 ok")
            if verb == "DATA":
                current.body = await self._body(reader)
                reply = self._end_of_data(current)
                if reply == "":
                    return
                if reply.startswith("2"):
                    self.transactions.append(current)
                current = Transaction(current.mail)
                say(reply)

    async def _body(self, reader: asyncio.StreamReader) -> bytes:
        body = bytearray()
        while True:
            line = await reader.readline()
            if not line:
                raise asyncio.IncompleteReadError(bytes(body), None)
            if line == b".\r\n" and (not body or body.endswith(b"\r\n")):
                return bytes(body)
            body += line
