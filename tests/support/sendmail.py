"""Debian's Sendmail, with lines of a document in its sendmail.mc."""

import socket

from support.namespace import Namespace

_MC = """\
include(`/usr/share/sendmail/cf/m4/cf.m4')
OSTYPE(`debian')
define(`confPID_FILE', `/run/sendmail.pid')
define(`confTO_IDENT', `0')
define(`confDONT_BLAME_SENDMAIL', `GroupWritableDirPathSafe,MapInUnsafeDirPath')
define(`confMAX_DAEMON_CHILDREN', `0')
define(`confCONNECTION_RATE_THROTTLE', `0')
define(`confDOMAIN_NAME', `mail.example.org')
define(`confBIND_OPTS', `-DNSRCH -DEFNAMES')
FEATURE(`accept_unresolvable_domains')
FEATURE(`nocanonify')
FEATURE(`no_default_msa')
LOCAL_DOMAIN(`here.example')
DAEMON_OPTIONS(`Name=MTA, Addr=127.0.0.1, Port={port}')
{features}
MAILER(`local')
MAILER(`smtp')
{more}
"""
_START = """\
mkdir -p /var/spool/mqueue
m4 /etc/mail/sendmail.mc > {cf}
export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu
/usr/libexec/sendmail/sendmail -C {cf} -bD &
"""


def hosts() -> str:
    """Sendmail waits a minute for the full name of a machine that has none."""
    return f"127.0.0.1 localhost\n127.0.1.1 mail.example.org {socket.gethostname()}\n"


class Sendmail(Namespace):
    """A context manager. It takes mail for here.example."""

    def __init__(self, port: int, more: str, features: str = "") -> None:
        # braces stand for macros in there
        mc = _MC.replace("{port}", str(port)).replace("{features}", features).replace("{more}", more)
        texts = {"mail/sendmail.mc": mc, "mail/aliases": "", "mail/local-host-names": "", "hosts": hosts()}
        super().__init__("sendmail-bin", "", texts, ["smmta", "smmsp"])
        self.port = port
        self._names = texts

    def _start(self) -> None:
        self.cf = self.site / "sendmail.cf"
        self._files = {
            name: text.replace("/run/popgate", str(self.run)).replace(
                "/etc/mail/access", f"{self.run}/access"
            )
            for name, text in self._names.items()
        }
        self._script = _START.replace("{cf}", str(self.cf))
        super()._start()
        self.wait_for_port(self.port)

    def decides(self, address: str, recipient: str) -> str:
        """The ruleset's last word about a client from `address`, in Sendmail's own test mode."""
        said = self.command(
            "/usr/libexec/sendmail/sendmail", "-C", str(self.cf), "-bt",
            stdin=f".D{{client_addr}}{address}\ncheck_rcpt {recipient}\n",
        )  # fmt: skip
        return [line for line in said.splitlines() if "check_rcpt" in line and "returns:" in line][-1]
