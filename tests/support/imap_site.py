"""Where an IMAP server under test is: address, account, Maildir; and how to start Dovecot as one."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.dovecot import Dovecot
from support.popgate import Popgate

USER = "ann@example.org"
SECOND = "bob@example.org"
PASSWORD = "sesame open"


@dataclass(frozen=True)
class ImapSite:
    """`maildir`: of `user`. `server`: whose it is; scripts may leave out what one is known not to do."""

    host: str
    port: int
    user: str
    password: str
    maildir: Path
    server: str = "popgate"


DOVECOT_SETTINGS = """\
mail_plugins = quota zlib
protocol imap {
  mail_plugins = quota imap_quota zlib imap_zlib
}
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=1G
}
namespace inbox {
  inbox = yes
  separator = /
}
mail_max_userip_connections = 100
"""


@contextlib.contextmanager
def dovecot_site() -> Iterator[ImapSite]:
    """Debian's Dovecot: what the tests themselves are checked against."""
    with Dovecot({USER: PASSWORD, SECOND: PASSWORD}, settings=DOVECOT_SETTINGS) as server:
        yield ImapSite("127.0.0.1", server.imap_port, USER, PASSWORD, server.maildir(USER), "dovecot")


@contextlib.contextmanager
def popgate_site(directory: Path, settings: str = "[grants]\nnever = []\n") -> Iterator[ImapSite]:
    """A started popgate that serves IMAP."""
    listeners = [("imap", "plaintext_login = true")]
    server = Popgate(directory, listeners, settings)
    server.add_account(USER, PASSWORD, "--recoverable")
    with server:
        maildir = directory / "data/mail/example.org/ann"
        yield ImapSite("127.0.0.1", server.port("imap"), USER, PASSWORD, maildir)
