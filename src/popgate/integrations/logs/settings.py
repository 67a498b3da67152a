"""Settings of followed logs (tables [[follow]])."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from popgate.values.settings import Doc


@dataclass(slots=True)
class FollowSettings:
    """One [[follow]]: a log in which another server's logins are seen."""

    file: Annotated[
        str,
        Doc(
            "The log file to follow. Only root may write it and its directory, or `owner`. Empty where"
            " `journal` is followed.",
            example='"/var/log/mail.log"',
        ),
    ] = ""
    journal: Annotated[bool, Doc("Follow systemd's journal, by journalctl, instead of a file.")] = False
    patterns: Annotated[
        list[str],
        Doc(
            "Whose lines count: names of shipped patterns (docs/logs.md lists them), or paths of pattern"
            " files. Empty: all that are shipped, but those of programs with log files of their own.",
            example='["dovecot"]',
        ),
    ] = field(default_factory=list)
    owner: Annotated[
        str,
        Doc(
            "Who else than root may write the file: USER, or USER:GROUP where the group may too (Ubuntu:"
            " syslog). Everybody who can write it can let any address relay.",
            example='"syslog"',
        ),
    ] = ""
    units: Annotated[
        list[str],
        Doc(
            "Journal: the systemd units whose entries count, with * for any text, instead of those that"
            " each pattern names.",
            example='["dovecot.service"]',
        ),
    ] = field(default_factory=list)
    hosts: Annotated[
        list[str],
        Doc(
            "The hosts whose lines count, as the log names them. Empty: all.",
            example='["mail1", "mail2"]',
        ),
    ] = field(default_factory=list)
    protocols: Annotated[
        list[Literal["pop3", "imap"]], Doc("The logins that let an address relay.")
    ] = field(default_factory=lambda: ["pop3", "imap"])  # fmt: skip
    default_domain: Annotated[
        str,
        Doc(
            "The domain of users whom the log names without one. Empty: the first of local_domains.",
            example='"example.org"',
        ),
    ] = ""
    timezone: Annotated[
        str,
        Doc(
            "The zone of times that are written without one. Empty: this machine's.",
            example='"Europe/Vienna"',
        ),
    ] = ""
    start: Annotated[
        Literal["end", "beginning"],
        Doc(
            "Where to begin a log that was never followed: at its end, or at its beginning; then lines count"
            " whose window is not over. Later starts go on where the last one stopped."
        ),
    ] = "end"

    @property
    def source(self) -> str:
        """Its name in events: the path, or `journal`."""
        return "journal" if self.journal else self.file
