"""A private Dovecot: reads Maildirs by POP3 and IMAP, and is the peer of benchmarks.

Debian's own program with a configuration and a base directory of its own. Its master runs as
root, logins as dovenull, mail processes as nobody, who owns the Maildirs.
"""

import pwd
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from support import peers, ports
from support.process import ServerProcess

_CONFIGURATION = """\
base_dir = {root}/run
state_dir = {root}/state
instance_name = {root}
log_path = {root}/log
protocols = pop3 imap
listen = {listen}
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5
mail_location = {mail_location}
mail_privileged_group =
first_valid_uid = {uid}
first_valid_gid = {gid}
mmap_disable = no
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {root}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={root}/mail/%u
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
  chroot =
  {login}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
  chroot =
  {login}
}}
service anvil {{
  chroot =
}}
service pop3 {{
  {mail}
}}
service imap {{
  {mail}
}}
service auth {{
  unix_listener sasl {{
    mode = 0666
  }}
}}
{settings}
"""

# Dovecot's documentation calls this the high-performance mode: processes serve many connections.
_FAST_LOGIN = "service_count = 0\n  process_min_avail = 2\n  client_limit = 1000"
_FAST_MAIL = "service_count = 0\n  process_min_avail = 2\n  client_limit = 1"


class Dovecot:
    """A context manager; skips the test where Dovecot is missing or we are not root.

    `users` maps names to passwords. `mail_location` is Dovecot's setting; by default each
    user's Maildir is the one that `maildir(name)` returns. `sasl_socket` speaks Dovecot's
    authentication protocol, for Postfix. `settings`: further lines of its configuration.
    """

    def __init__(
        self,
        users: Mapping[str, str],
        *,
        is_fast: bool = False,
        mail_location: str = "maildir:~/Maildir",
        listen: str = "127.0.0.1",
        settings: str = "",
    ) -> None:
        self._users = dict(users)
        self._is_fast = is_fast
        self._mail_location = mail_location
        self._listen = listen
        self._settings = settings

    def __enter__(self) -> "Dovecot":
        for package in ("dovecot-core", "dovecot-pop3d", "dovecot-imapd"):
            peers.require(package)
        peers.require_root("dovecot-core")
        self.root = Path(tempfile.mkdtemp(prefix="popgate-dovecot-"))
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise
        return self

    def _start(self) -> None:
        root = self.root
        root.chmod(0o755)
        owner = pwd.getpwnam("nobody")
        self.uid, self.gid = owner.pw_uid, owner.pw_gid
        self.pop3_port, self.imap_port = ports.free_ports(2)
        for name in ("run", "state", "mail"):
            (root / name).mkdir(mode=0o755)
        (root / "users").write_text("".join(f"{name}:{word}\n" for name, word in self._users.items()))
        for name in self._users:
            self._make_maildir(name)
        (root / "dovecot.conf").write_text(
            _CONFIGURATION.format(
                root=root,
                uid=self.uid,
                gid=self.gid,
                pop3=self.pop3_port,
                imap=self.imap_port,
                mail_location=self._mail_location,
                listen=self._listen,
                settings=self._settings,
                login=_FAST_LOGIN if self._is_fast else "service_count = 1",
                mail=_FAST_MAIL if self._is_fast else "service_count = 1",
            )
        )
        command = [peers.require("dovecot-core"), "-F", "-c", str(root / "dovecot.conf")]
        self._process = ServerProcess(command, root / "output")
        self._process.wait_for_ports([self.pop3_port, self.imap_port])

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        path = self.root / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def sasl_socket(self) -> Path:
        return self.root / "run/sasl"

    def maildir(self, name: str) -> Path:
        """The user's Maildir; call `give` after writing into it as another user."""
        return self.root / "mail" / name / "Maildir"

    def give(self, path: Path) -> None:
        """Make Dovecot's user the owner of `path` and everything below."""
        for below in (path, *path.rglob("*")):
            shutil.chown(below, self.uid, self.gid)

    def deliver(self, name: str, unique: str, content: bytes) -> None:
        """Put a message with LF line ends into the user's `new`."""
        path = self.maildir(name) / "new" / unique
        path.write_bytes(content)
        self.give(path)

    def forget(self) -> None:
        """Empty every mailbox, indexes too."""
        for name in self._users:
            shutil.rmtree(self.root / "mail" / name, ignore_errors=True)
            self._make_maildir(name)

    def _make_maildir(self, name: str) -> None:
        for part in ("cur", "new", "tmp"):
            (self.maildir(name) / part).mkdir(parents=True)
        self.give(self.root / "mail" / name)
