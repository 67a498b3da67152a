"""aiosmtpd as the smart host: somebody else's idea of SMTP, in this process."""

from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from support import ports
from support.queue_site import QueueSite


class Keeper:
    def __init__(self) -> None:
        self.got: list[Any] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("no"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.got.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 taken"


async def test_aiosmtpd_takes_what_was_accepted(tmp_path: Path) -> None:
    keeper = Keeper()
    (port,) = ports.free_ports(1)
    controller = Controller(keeper, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        body = b"Subject: x\r\n\r\n.\r\n..dots\r\ngr\xc3\xbc\xc3\x9fe\r\n"
        async with QueueSite(tmp_path, smarthost=f"smtp://127.0.0.1:{port}") as site:
            await site.send("a@example.net", "no@example.net", "b@example.com", body=body)
            await site.send("c@example.net", body=b"x" * 100 + b"\r\n")
            await site.wait_for("delivery.sent", 3)
            await site.wait_for("delivery.failed")
    finally:
        controller.stop()
    assert ("me@example.org", ["a@example.net", "b@example.com"], body) in keeper.got
    assert ("me@example.org", ["c@example.net"], b"x" * 100 + b"\r\n") in keeper.got
