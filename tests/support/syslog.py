"""Debian's rsyslog as the /dev/log of one mount namespace, so that a server's lines take the real way."""

from pathlib import Path

_CONFIGURATION = """\
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{site}/dev-log")
mail.* action(type="omfile" file="{log}")
"""

# Lines of a shell script of root's in a mount namespace of its own.
_START = """\
for name in null zero random urandom; do
    : >{site}/dev/$name
    mount --bind /dev/$name {site}/dev/$name
done
ln -s {site}/dev-log {site}/dev/log
mount --rbind {site}/dev /dev
rsyslogd -n -i NONE -f {site}/rsyslog.conf &
while ! test -S {site}/dev-log; do sleep 0.05; done
"""


def lay_out(site: Path) -> str:
    """Make what rsyslog needs below `site`; returns the script that starts it. The lines of facility
    mail are in `mail_log(site)`."""
    (site / "dev").mkdir()
    log = mail_log(site)
    log.parent.mkdir(mode=0o755)
    log.touch(mode=0o640)
    (site / "rsyslog.conf").write_text(_CONFIGURATION.format(site=site, log=log))
    return _START.format(site=site)


def mail_log(site: Path) -> Path:
    return site / "var-log/mail.log"
