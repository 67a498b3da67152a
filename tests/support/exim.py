"""Debian's Exim with Debian's own configuration, and lines of a document in its ACL for RCPT."""

from support import peers
from support.namespace import Namespace

_DEBCONF = """\
dc_eximconfig_configtype='internet'
dc_other_hostnames='here.example'
dc_local_interfaces='127.0.0.1.{port} ; ::1.{port}'
dc_readhost=''
dc_relay_domains=''
dc_minimaldns='true'
dc_relay_nets='192.0.2.0/28'
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='false'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
"""
_START = """\
mkdir -p /var/spool/exim4/input /var/spool/exim4/db /var/spool/exim4/msglog
mkdir -p /var/log/exim4 /var/lib/exim4 /run/exim4
chown -R Debian-exim:Debian-exim /var/spool/exim4 /var/log/exim4 /run/exim4
update-exim4.conf
exim4 -bd
tail -F /var/log/exim4/mainlog /var/log/exim4/paniclog &
"""
_BEFORE = "  require\n    message = relay not permitted\n"


class Exim(Namespace):
    """A context manager. It takes mail for here.example; `rcpt` stands right before its refusal to relay."""

    def __init__(self, port: int, rcpt: str, data: str = "") -> None:
        peers.require("exim4-daemon-light")
        template = (peers.UNPACKED / "etc/exim4/exim4.conf.template").read_text()
        assert template.count(_BEFORE) == 1
        files = {
            "mailname": "mail.example.org\n",
            "exim4/update-exim4.conf.conf": _DEBCONF.format(port=port),
            "exim4/exim4.conf.template": template.replace(_BEFORE, f"{rcpt}\n{_BEFORE}"),
        }
        if data:
            files["exim4/popgate_data"] = data
            files["exim4/exim4.conf.localmacros"] = "CHECK_DATA_LOCAL_ACL_FILE = /etc/exim4/popgate_data\n"
        super().__init__("exim4-daemon-light", _START, files, ["Debian-exim"])
        self.port = port
        self._names = files

    def _start(self) -> None:
        self._files = {
            name: text.replace("/run/popgate", str(self.run)) for name, text in self._names.items()
        }
        super()._start()
        self.wait_for_port(self.port)
