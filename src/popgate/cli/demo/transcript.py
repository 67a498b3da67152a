"""Prints the story: headings, what client and server say, and whether it came out as told.

The clients are Python's own poplib, imaplib and smtplib, so what is shown is what went over the wire.
"""

import imaplib
import poplib
import smtplib
import sys
import textwrap
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_COLOURS = {"head": "1", "client": "36", "server": "33", "good": "1;32", "bad": "1;31", "note": "2"}
_BODY_SHOWN = 3  # lines of a message
_LINE_SHOWN = 80  # characters of what an IMAP server says; its list of capabilities is not the story


class Transcript:
    """Writes to `out`; colours only on a terminal."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._has_colours = out.isatty()
        self._step = 0

    def title(self, text: str) -> None:
        self._print(text, "head")
        self._print("=" * len(text), "head")

    def step(self, text: str) -> None:
        self._step += 1
        self._print("")
        self._print(f"{self._step}. {text}", "head")

    def say(self, text: str) -> None:
        for line in text.splitlines():
            for part in textwrap.wrap(line, 92) or [""]:
                self._print("   " + part)

    def note(self, text: str) -> None:
        self._print("   " + text, "note")

    def verbatim(self, text: str) -> None:
        for line in text.splitlines():
            self._print("   | " + line, "note")

    def good(self, text: str) -> None:
        self._print("   ok  " + text, "good")

    def bad(self, text: str) -> None:
        self._print("   NOT AS TOLD  " + text, "bad")

    def client(self, protocol: str, line: str) -> None:
        self._print(f"   {protocol:4} C: {line}", "client")

    def server(self, protocol: str, line: str) -> None:
        self._print(f"   {protocol:4} S: {line}", "server")

    def _print(self, text: str, colour: str = "") -> None:
        if colour and self._has_colours and text:
            text = f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"
        print(text, file=self._out, flush=True)


class ShownSmtp(smtplib.SMTP):
    """An SMTP client whose dialogue is printed."""

    def __init__(self, transcript: Transcript, port: int) -> None:
        self._transcript = transcript
        super().__init__("127.0.0.1", port, local_hostname="scanner.example.org", timeout=20)

    def send(self, s: object) -> None:
        text = s if isinstance(s, str) else bytes(s).decode("utf-8", "replace")  # type: ignore[call-overload]
        lines = text.rstrip("\r\n").split("\r\n")
        for line in lines[:_BODY_SHOWN]:
            self._transcript.client("SMTP", line)
        if len(lines) > _BODY_SHOWN:
            self._transcript.client("SMTP", f"[{len(lines) - _BODY_SHOWN - 1} more lines]")
            self._transcript.client("SMTP", lines[-1])
        super().send(s)  # type: ignore[arg-type]

    def getreply(self) -> tuple[int, bytes]:
        code, message = super().getreply()
        lines = message.decode("utf-8", "replace").split("\n")
        for index, line in enumerate(lines):
            if len(lines) > 4 and 0 < index < len(lines) - 1:  # EHLO's list is not the story
                if index == 1:
                    self._transcript.server("SMTP", f"[{len(lines) - 2} more lines]")
                continue
            self._transcript.server("SMTP", f"{code}{' ' if index == len(lines) - 1 else '-'}{line}")
        return code, message


class ShownPop3(poplib.POP3):
    """A POP3 client whose dialogue is printed; the password is not."""

    def __init__(self, transcript: Transcript, port: int) -> None:
        self._transcript = transcript
        super().__init__("127.0.0.1", port, timeout=20)

    def _putline(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        if text.upper().startswith("PASS "):
            text = "PASS ********"
        self._transcript.client("POP3", text)
        super()._putline(line)  # type: ignore[misc]

    def _getline(self) -> tuple[bytes, int]:
        line, octets = super()._getline()  # type: ignore[misc]
        self._transcript.server("POP3", line.decode("utf-8", "replace"))
        return line, octets


class ShownImap(imaplib.IMAP4):
    """An IMAP client whose dialogue is printed; the password is not."""

    def __init__(self, transcript: Transcript, port: int) -> None:
        self._transcript = transcript
        super().__init__("127.0.0.1", port, timeout=20)

    def idle_quietly(self) -> None:
        """Ask to be told of changes, and say nothing more until `end_idling`."""
        self.send(b"idle IDLE\r\n")
        self.readline()

    def end_idling(self) -> None:
        self.send(b"DONE\r\n")
        while not self.readline().startswith(b"idle "):
            pass

    def send(self, data: "Buffer") -> None:
        line = bytes(data).rstrip(b"\r\n").decode("utf-8", "replace")
        words = line.split(" ")
        if len(words) > 3 and words[1].upper() == "LOGIN":
            line = " ".join([*words[:3], "********"])
        self._transcript.client("IMAP", line)
        super().send(data)

    def readline(self) -> bytes:
        line = super().readline()
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        self._transcript.server("IMAP", text if len(text) <= _LINE_SHOWN else text[:_LINE_SHOWN] + " ...")
        return line
