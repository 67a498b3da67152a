"""Every SMTP dialogue of transcripts/smtp over real sockets and real TLS, and a body that does not come."""

import asyncio
from pathlib import Path

import pytest

from popgate.protocols.engine import Wait
from popgate.servers.connection import Connection
from popgate.servers.limits import ConnectionLimits, ConnectionTable, buffer_size
from popgate.servers.listener import Deadlines, Listener
from popgate.servers.tls import CertificateWatch
from smtp_support import Dialogue
from support.certificates import Certificates
from transcripts.test_transcripts_smtp import FILES, scene, steps


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


async def start(
    dialogue: Dialogue,
    deadlines: Deadlines,
    certificates: Certificates | None = None,
    *,
    implicit_tls: bool = False,
) -> tuple[Listener, asyncio.Server, int]:
    """A listener with one connection: that of the dialogue."""
    listener = Listener(
        service="smtp",
        name="127.0.0.1:25",
        number=0,
        make_session=lambda peer: dialogue.session,
        busy_reply=b"421 busy\r\n",
        limits=ConnectionLimits(100, 100, 100),
        table=ConnectionTable(memoryview(bytearray(buffer_size(1))), workers=1, worker=0),
        deadlines=deadlines,
        clock=dialogue.clock,
        emit=dialogue.events.append,
        token=lambda: "token-token-token-tok",
        tls=CertificateWatch(certificates.settings, "modern", "smtp", print) if certificates else None,
        implicit_tls=implicit_tls,
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(listener), "127.0.0.1", 0)
    return listener, server, int(server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_transcript_over_a_socket(path: Path, certificates: Certificates) -> None:
    dialogue, _ = scene(path.read_text())
    is_tls = dialogue.session._peer.is_tls
    _, server, port = await start(
        dialogue, Deadlines(login=100, command=100, minimum_rate=500), certificates, implicit_tls=is_tls
    )
    context = certificates.client_context
    tls = {"ssl": context, "server_hostname": "localhost"} if is_tls else {}
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **tls)  # type: ignore[arg-type]
    async with server:
        for kind, what in steps(path.read_text()):
            if kind == "send":
                assert isinstance(what, bytes)
                writer.write(what)
            elif kind == "expect":
                assert isinstance(what, list)
                for number, line in what:
                    got = (await asyncio.wait_for(reader.readline(), 10)).decode().removesuffix("\r\n")
                    same = got.startswith(line[:-3]) if line.endswith("...") else got == line
                    assert same, f"line {number}: {got!r} is not {line!r}"
            elif kind == "T!":
                await writer.start_tls(context, server_hostname="localhost")
            elif kind == "S!" and what == "close":
                assert await asyncio.wait_for(reader.read(), 10) == b""
            elif kind == "M!":
                assert len(dialogue.intake.accepted) == int(str(what))
        writer.close()
        while "smtp.close" not in dialogue.names():
            await asyncio.sleep(0.001)
    assert all(incoming.is_committed or incoming.is_aborted for incoming in dialogue.intake.incoming)


@pytest.mark.parametrize("minimum_rate", [0, 1e9])
async def test_a_body_that_does_not_come_is_not_waited_for(minimum_rate: float) -> None:
    dialogue = Dialogue()
    listener, server, port = await start(
        dialogue, Deadlines(login=100, command=0.2, minimum_rate=minimum_rate, body_grace=0.0)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with server:
        writer.write(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n")
        assert (await reader.readuntil(b"354 ")).startswith(b"220")
        await asyncio.sleep(0.3)
        assert dialogue.engine.waiting_for is Wait.BODY
        listener.tick()
        rest = await asyncio.wait_for(reader.read(), 5)
        assert rest.endswith(b"\r\n421 4.4.2 you took too long\r\n")
        writer.close()
    assert dialogue.intake.incoming[0].is_aborted
    assert dialogue.events[-1].fields["reason"] == ("timeout" if minimum_rate == 0 else "too-slow")
