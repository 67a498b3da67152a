"""The story of POP before SMTP, step by step, each step checked."""

import imaplib
import poplib
import signal
import smtplib
import tempfile
import threading
import time
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from popgate.cli.demo.server import GATE, PARTNER, Account, DemoFailed, DemoServer
from popgate.cli.demo.transcript import ShownImap, ShownPop3, ShownSmtp, Transcript

WINDOW_SECONDS = 5
_RECIPIENT = "invoices@partner.example"
_DELIVERY_SECONDS = 20.0


class Story:
    """Tells the story on `transcript`. `run` returns True when every step came out as told."""

    def __init__(self, transcript: Transcript, directory: Path) -> None:
        self._out = transcript
        self._partner = DemoServer(directory / "partner", PARTNER)
        self._directory = directory
        self._seen = 0

    def start(self) -> None:
        self._partner.start()
        self._inbox = self._partner.add_account(_RECIPIENT)
        self._gate = DemoServer(self._directory / "gate", self._configuration(WINDOW_SECONDS, 0, 0, 0))
        self._alice = self._gate.add_account("alice@example.org", "--recoverable")
        self._gate.start()
        ports = self._gate.ports
        self._smtp_port, self._pop3_port, self._imap_port = ports["smtp"], ports["pop3"], ports["imap"]

    def stop(self) -> None:
        for server in (getattr(self, "_gate", None), self._partner):
            if server is not None:
                server.stop()

    def run(self) -> bool:
        try:
            self._tell()
        except (DemoFailed, OSError, smtplib.SMTPException, poplib.error_proto, imaplib.IMAP4.error) as fault:
            self._out.bad(str(fault))
            log = self._gate.log.read_text(errors="replace").splitlines()[-12:]
            self._out.verbatim("\n".join(log))
            return False
        return True

    def _tell(self) -> None:
        out = self._out
        out.title("POP before SMTP, live")
        out.say(
            f"A scanner at 127.0.0.1 wants to send to {_RECIPIENT}. It knows no SMTP authentication."
            " It can log in by POP3 or IMAP, though, and that opens the relay for its address for a while."
        )
        out.note(
            f"mail.example.org: SMTP 127.0.0.1:{self._smtp_port}, POP3 127.0.0.1:{self._pop3_port},"
            f" IMAP 127.0.0.1:{self._imap_port}"
        )
        out.note(f"mx.partner.example, where the mail is to arrive: 127.0.0.1:{self._partner.ports['smtp']}")

        out.step("Nobody has logged in: relaying is refused")
        self._expect_refused()

        out.step("The scanner checks mail by POP3")
        self._log_in_pop3()

        out.step("The same address may relay now, as alice@example.org")
        self._expect_relayed("by POP3", "by pop3")

        out.step("Why? The server keeps the story of every address")
        out.verbatim(self._gate.popgate("grant", "explain", "127.0.0.1"))

        out.step(f"The window of {WINDOW_SECONDS} seconds lapses: refused again")
        self._wait_for_lapse()
        self._expect_refused()

        out.step("The same by APOP, where the password never crosses the wire")
        self._log_in_apop()
        self._expect_relayed("by APOP", "by apop")

        out.step("And it lapses too")
        self._wait_for_lapse()
        self._expect_refused()

        out.step("The same by IMAP, where a session may last all day: the grant lasts as long")
        client = self._log_in_imap()
        try:
            self._wait_for_lapse()
            self._expect_relayed("by IMAP", "by imap")
            client.end_idling()
        except BaseException:
            client.shutdown()
            raise
        client.logout()
        self._logged_in = time.monotonic()

        out.step("The window runs from the end of the session, and lapses")
        self._wait_for_lapse()
        self._expect_refused()
        out.say("")
        out.good("every step came out as told")

    def _expect_refused(self) -> None:
        client = ShownSmtp(self._out, self._smtp_port)
        try:
            client.ehlo()
            client.mail(self._alice.address)
            code, _ = client.rcpt(_RECIPIENT)
            client.quit()
        finally:
            client.close()
        if code != 550:
            raise DemoFailed(f"the server answered {code} where 550 was due")
        self._out.good("refused, and the reply says what to do")

    def _log_in_pop3(self) -> None:
        client = ShownPop3(self._out, self._pop3_port)
        client.user(self._alice.address)
        client.pass_(self._alice.password)
        client.stat()
        client.quit()
        self._logged_in = time.monotonic()
        self._out.good("logged in; the grant was there before the client read +OK")

    def _log_in_apop(self) -> None:
        client = ShownPop3(self._out, self._pop3_port)
        client.apop(self._alice.address, self._alice.password)
        client.stat()
        client.quit()
        self._logged_in = time.monotonic()
        self._out.good("logged in by a digest of the banner's challenge")

    def _log_in_imap(self) -> ShownImap:
        """The session is left open, idle."""
        client = ShownImap(self._out, self._imap_port)
        client.login(self._alice.address, self._alice.password)
        client.select("INBOX")
        client.idle_quietly()
        self._logged_in = time.monotonic()
        self._out.good("logged in, and told of new mail from now on")
        return client

    def _expect_relayed(self, subject: str, proof: str) -> None:
        client = ShownSmtp(self._out, self._smtp_port)
        try:
            client.sendmail(
                self._alice.address,
                [_RECIPIENT],
                f"From: Scanner <{self._alice.address}>\r\nTo: {_RECIPIENT}\r\n"
                f"Subject: Scanned {subject}\r\n\r\nPage 1\r\n",
            )
            client.quit()
        finally:
            client.close()
        message = self._fetch()
        if message["Subject"] != f"Scanned {subject}":
            raise DemoFailed(f"another message arrived: {message['Subject']}")
        received = next((text for text in message.get_all("Received", []) if proof in text), None)
        if received is None:
            raise DemoFailed(f"no Received: field names the login ({proof})")
        self._out.good("accepted, and it has arrived at mx.partner.example with")
        self._out.verbatim("Received: " + received)

    def _fetch(self) -> Message:
        """The next message in the recipient's mailbox, by POP3 from the other server."""
        deadline = time.monotonic() + _DELIVERY_SECONDS
        while time.monotonic() < deadline:
            client = poplib.POP3("127.0.0.1", self._partner.ports["pop3"], timeout=20)
            client.user(self._inbox.address)
            client.pass_(self._inbox.password)
            count, _ = client.stat()
            lines = client.retr(count)[1] if count > self._seen else None
            client.quit()
            if lines is not None:
                self._seen = count
                return message_from_bytes(b"\r\n".join(lines))
            time.sleep(0.1)
        raise DemoFailed("the message did not arrive")

    def _wait_for_lapse(self) -> None:
        left = self._logged_in + WINDOW_SECONDS + 1.5 - time.monotonic()
        if left > 0:
            self._out.note(f"waiting {left:.0f} seconds")
            time.sleep(left)

    def _configuration(self, window_seconds: int, smtp_port: int, pop3_port: int, imap_port: int) -> str:
        return GATE.format(
            window_seconds=window_seconds,
            smtp_port=smtp_port,
            pop3_port=pop3_port,
            imap_port=imap_port,
            partner_port=self._partner.ports["smtp"],
        )

    def keep_serving(self, stop: threading.Event) -> None:
        """Serve on with a usual window until `stop` is set."""
        window = 180
        self._gate.config.write_text(
            self._configuration(window, self._smtp_port, self._pop3_port, self._imap_port)
        )
        self._gate.reload()
        out, alice = self._out, self._alice
        out.say("")
        out.title("Now try it yourself")
        out.say(f"The server goes on, with a window of {window} seconds. Ctrl-C ends it.")
        _account(out, alice, self._gate.ports)
        out.note(f"configuration: {self._gate.config}")
        out.note(f"log:           {self._gate.log}")
        stop.wait()


def _account(out: Transcript, account: Account, ports: dict[str, int]) -> None:
    smtp_port, pop3_port, imap_port = ports["smtp"], ports["pop3"], ports["imap"]
    name = account.address.replace("@", "%40")
    out.say("")
    out.say(f"account   {account.address}\npassword  {account.password}")
    out.say(
        f"POP3      127.0.0.1:{pop3_port}\nIMAP      127.0.0.1:{imap_port}\nSMTP      127.0.0.1:{smtp_port}"
    )
    out.say("")
    out.verbatim(
        f"curl pop3://{name}:{account.password}@127.0.0.1:{pop3_port}/\n"
        f"curl imap://{name}:{account.password}@127.0.0.1:{imap_port}/\n"
        f"swaks --server 127.0.0.1:{smtp_port} --from {account.address} --to {_RECIPIENT}"
    )


def run_demo(*, once: bool) -> int:
    """The exit status: 0 when every step came out as told, else 1."""
    out = Transcript()
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="popgate-demo-") as name:
        story = Story(out, Path(name))
        told = False
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: _interrupt(stop))
            story.start()
            told = story.run()
            if told and not once:
                story.keep_serving(stop)
            return 0 if told else 1
        except DemoFailed as fault:
            out.bad(str(fault))
            return 1
        except _Interrupted:
            return 0 if told else 130
        finally:
            story.stop()


class _Interrupted(BaseException):
    """Ctrl-C before the story had ended."""


def _interrupt(stop: threading.Event) -> None:
    if stop.is_set():
        return
    stop.set()
    raise _Interrupted
