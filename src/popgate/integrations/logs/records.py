"""What a log line is and what it can tell: the values between line syntaxes, patterns and whoever grants."""

from popgate.grants.grant import LoginProtocol
from popgate.values.address import ClientAddress
from popgate.values.identity import Identity
from popgate.values.value import value


@value
class Origin:
    """Who wrote a journal entry, in the fields that journald itself fills in and no program can forge:
    `unit` (_SYSTEMD_UNIT), `command` (_COMM) and `uid` (_UID, -1 where it is missing)."""

    unit: str
    command: str
    uid: int


@value
class LogRecord:
    """One log line, read.

    `at` is Unix time, None where the line names none. `program` is the name before the pid
    (`pop3d`, `cyrus/imap`), or for a program with a log file of its own the name of its syntax.
    `pid` is "" where the line names none; what joins the lines of one session in a log without
    pids (a session number, say) stands there too. `origin` is None in plain files: their
    permissions are all that says who wrote them.
    """

    at: float | None
    host: str
    program: str
    pid: str
    text: str
    origin: Origin | None = None


@value
class LoginSeen:
    """A completed login. `at` is Unix time: the line's own, or when it was read where it names none.

    `session` joins the login to its LogoutSeen and is "" where no logout will be seen.
    `pattern` is the name of the pattern that recognised it.
    """

    at: float
    identity: Identity
    address: ClientAddress
    program: str
    pid: str
    protocol: LoginProtocol
    session: str
    pattern: str


@value
class LogoutSeen:
    """The end of a session. `session` is the same text as in the login, "" where it cannot be told;
    `identity` and `address` are None where neither line nor login names them."""

    at: float
    identity: Identity | None
    address: ClientAddress | None
    program: str
    pid: str
    protocol: LoginProtocol
    session: str
    pattern: str


Seen = LoginSeen | LogoutSeen
