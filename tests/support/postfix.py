"""A private Postfix that takes mail from loopback for every domain and keeps what it got.

It is Debian's own program with its own configuration, queue and data directories, so the
Postfix of the machine, if there is one, is neither used nor disturbed. Only master runs as
root, which Postfix insists on; the rest runs as postfix, deliveries as nobody.
"""

import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trustme

from support import peers, ports
from support.process import ServerProcess

_DAEMONS = Path("/usr/lib/postfix/sbin")

# Nothing is added, rewritten or bounced on the way in, so a test may compare every byte below
# the one Received field that smtpd writes.
_MAIN = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
config_directory = {root}/etc
meta_directory = /etc/postfix
daemon_directory = {daemons}
command_directory = /usr/sbin
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = {root}/log/postfix.log
maillog_file_prefixes = {root}/log
myhostname = smarthost.example.net
myorigin = $myhostname
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
local_header_rewrite_clients =
local_transport = capture
default_transport = capture
relay_transport = capture
capture_destination_recipient_limit = 1
allow_percent_hack = no
swap_bangpath = no
message_size_limit = 0
mailbox_size_limit = 0
header_size_limit = 1000000
smtputf8_enable = yes
disable_vrfy_command = yes
smtpd_tls_security_level = may
smtpd_tls_chain_files = {root}/etc/server.pem
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
smtpd_discard_ehlo_keywords =
smtpd_recipient_restrictions =
    check_recipient_access inline:{{
        {{refuse@refuse.example = 550 5.1.1 nobody here}}
        {{defer@refuse.example = 451 4.2.0 come back later}} }}
    {restrictions}
"""

_MASTER = """\
{smtp}     inet  n - {chroot} - - smtpd
{smtps}    inet  n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
anvil     unix  - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
capture   unix  - n n - 10 pipe
  flags= null_sender= eol=\\r\\n user=nobody
  argv=/bin/sh {root}/etc/capture {root}/inbox ${{queue_id}} ${{recipient}} ${{sender}}
"""

_CAPTURE = """\
# usage: capture INBOX QUEUE-ID RECIPIENT [SENDER]: keep one delivery; rename makes it visible whole
set -eu
name=$(mktemp "$1/.XXXXXXXXXX")
cat >"$name"
printf '%s\\n%s\\n' "$3" "${4-}" >"$name.envelope"
chmod 644 "$name" "$name.envelope"
final=$(basename "$name")
mv "$name.envelope" "$1/${final#.}.envelope"
mv "$name" "$1/${final#.}.message"
"""


@dataclass(frozen=True)
class Delivered:
    """One message for one recipient; `sender` is "" for the null reverse-path."""

    sender: str
    recipient: str
    content: bytes

    @property
    def body(self) -> bytes:
        """The content below the Received field that Postfix put on top."""
        lines = self.content.split(b"\r\n")
        if not lines[0].startswith(b"Received:"):
            return self.content
        end = next(index for index, line in enumerate(lines) if index and line[:1] not in b" \t")
        return b"\r\n".join(lines[end:])


class Postfix:
    """A context manager; skips the test where Postfix is missing or we are not root.

    `port` speaks SMTP with STARTTLS, `tls_port` TLS from the first byte; `certificate_authority`
    signed the certificate for localhost and smarthost.example.net. `refuse@refuse.example` is
    answered 550, `defer@refuse.example` 451. With `sasl_socket`, a Dovecot's, only clients that
    authenticate may send. `options` are further lines of main.cf.
    `is_chrooted`: smtpd is locked into the queue directory, as Debian has it.
    """

    def __init__(
        self,
        options: Mapping[str, str] | None = None,
        sasl_socket: Path | None = None,
        *,
        is_chrooted: bool = False,
    ) -> None:
        self._options = dict(options or {})
        self._chroot = "y" if is_chrooted else "n"
        if sasl_socket is not None:
            self._options |= {
                "smtpd_sasl_auth_enable": "yes",
                "smtpd_sasl_type": "dovecot",
                "smtpd_sasl_path": str(sasl_socket),
                "smtpd_sasl_security_options": "noanonymous",
            }
        self._restrictions = (
            "permit_mynetworks, reject" if sasl_socket is None else "permit_sasl_authenticated, reject"
        )
        self.certificate_authority = trustme.CA()

    def __enter__(self) -> "Postfix":
        peers.require("postfix")
        peers.require_root("postfix")
        # Not below pytest's own directory: that is closed to the users postfix and nobody.
        self.root = Path(tempfile.mkdtemp(prefix="popgate-postfix-"))
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise
        return self

    def _start(self) -> None:
        root = self.root
        self.port, self.tls_port = ports.free_ports(2)
        root.chmod(0o755)
        for name in ("etc", "queue", "data", "log", "inbox"):
            (root / name).mkdir(mode=0o755)
        postfix, nobody = pwd.getpwnam("postfix"), pwd.getpwnam("nobody")
        shutil.chown(root / "data", postfix.pw_uid, postfix.pw_gid)
        shutil.chown(root / "inbox", nobody.pw_uid, nobody.pw_gid)
        etc = root / "etc"
        main = _MAIN.format(root=root, daemons=_DAEMONS, restrictions=self._restrictions)
        for name, setting in self._options.items():
            # Named twice, each process warns of it, postlogd too: then its own socket is full at times, and
            # nothing moves any more.
            main = re.sub(rf"^{name} *=.*\n(?:[ \t].*\n)*", "", main, flags=re.MULTILINE)
            main += f"{name} = {setting}\n"
        (etc / "main.cf").write_text(main)
        (etc / "master.cf").write_text(
            _MASTER.format(
                root=root,
                smtp=f"127.0.0.1:{self.port}",
                smtps=f"127.0.0.1:{self.tls_port}",
                chroot=self._chroot,
            )
        )
        (etc / "capture").write_text(_CAPTURE)
        certificate = self.certificate_authority.issue_cert("localhost", "127.0.0.1", "smarthost.example.net")
        certificate.private_key_and_cert_chain_pem.write_to_path(etc / "server.pem")
        (etc / "server.pem").chmod(0o600)
        # Makes the directories below queue; talks about the machine's own files, which we leave alone.
        check = subprocess.run(["/usr/sbin/postfix", "-c", str(etc), "check"], capture_output=True)
        if check.returncode:  # it says why to the system log alone; postconf says it to us
            why = subprocess.run(["/usr/sbin/postconf", "-c", str(etc), "-n"], capture_output=True, text=True)
            raise AssertionError(f"postfix does not like its configuration:\n{why.stderr}\n{self.log}")
        self._process = ServerProcess([str(_DAEMONS / "master"), "-c", str(etc), "-s"], root / "log/output")
        self._process.wait_for_ports([self.port, self.tls_port])

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        path = self.root / "log/postfix.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def messages(self) -> list[Delivered]:
        """Everything delivered so far, in no order."""
        delivered = []
        for path in (self.root / "inbox").glob("*.message"):
            recipient, sender = path.with_suffix(".envelope").read_text().splitlines()
            delivered.append(Delivered(sender, recipient, path.read_bytes()))
        return delivered

    def wait_for(self, count: int, seconds: float = 15) -> list[Delivered]:
        """Wait for `count` deliveries. Raises AssertionError with the end of the log."""
        deadline = time.monotonic() + seconds
        while len(messages := self.messages()) < count:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{len(messages)} of {count} messages came; the log:\n{self.log[-3000:]}"
                )
            time.sleep(0.02)
        return messages

    def forget(self) -> None:
        """Empty the inbox."""
        for path in (self.root / "inbox").iterdir():
            path.unlink(missing_ok=True)
