"""How the programs of run scripts read their command lines: what is theirs, where the next program begins.

A row a program: options that take a value (`valued`, in getopt's letters), long options that do,
and how many words follow before the next program. A program that is not here is one that we know
nothing of; the chain goes on at the next word that names one we do know.
"""

from collections.abc import Sequence

from popgate.integrations.qmail.environment import Argument, Vanished
from popgate.values.value import value


@value
class Syntax:
    """`words`: own words after the options. `is_last`: runs no further program."""

    valued: str = ""
    long_valued: tuple[str, ...] = ()
    words: int = 0
    is_last: bool = False


_TCPSERVER = Syntax("xtugliBbcw", words=2)
_POPGATE_TCPSERVER = Syntax("xtugliBbcwC", long_valued=("--envdir", "--trust-user"), words=2)
_RELAY_CTRL = Syntax(long_valued=("--envdir",))

PROGRAMS: dict[str, Syntax] = {
    "tcpserver": _TCPSERVER,
    "tcp-env": Syntax("tl"),
    "sslserver": _TCPSERVER,
    "softlimit": Syntax("acdflmoprst"),
    "envdir": Syntax(words=1),
    "envuidgid": Syntax(words=1),
    "setuidgid": Syntax(words=1),
    "chpst": Syntax("uUeEbC/nlLmdofpcrtP"),
    "setlock": Syntax(words=1),
    "pgrphack": Syntax(),
    "fghack": Syntax(),
    "nohup": Syntax(),
    "nice": Syntax("n"),
    "ionice": Syntax("cn"),
    "env": Syntax("uC"),
    "rblsmtpd": Syntax("art"),
    "recordio": Syntax(),
    "fixcrio": Syntax(),
    "argv0": Syntax(),
    "multilog": Syntax(is_last=True),
    "splogger": Syntax(is_last=True),
    "svlogd": Syntax(is_last=True),
    "relay-ctrl-allow": _RELAY_CTRL,
    "relay-ctrl-check": _RELAY_CTRL,
    "relay-ctrl-chdir": _RELAY_CTRL,
    "relay-ctrl-send": _RELAY_CTRL,
    "popgate-allow": Syntax(),
    "relay-ctrl-age": Syntax(is_last=True),
    "relay-ctrl-udp": Syntax(long_valued=("--envdir",), is_last=True),
    "qmail-popup": Syntax(words=1),
    "imaplogin": Syntax(),
    "pop3login": Syntax(),
    "qmail-smtpd": Syntax(is_last=True),
    "qmail-pop3d": Syntax(is_last=True),
    "qmail-send": Syntax(is_last=True),
    "qmail-start": Syntax(is_last=True),
    "pop3d": Syntax(is_last=True),
    "imapd": Syntax(is_last=True),
    "courierpop3d": Syntax(is_last=True),
    "popgate": Syntax(is_last=True),
    # what run scripts do on the side; the names of programs among their words mean nothing
    **dict.fromkeys(
        (
            *("echo", "printf", "test", "[", "exit", "true", "false", ":", "sleep", "cd", "umask", "ulimit"),
            *("trap", "mkdir", "chown", "chmod", "ln", "rm", "touch", "kill", "wait", "shift", "return"),
            *("cat", "grep", "ps", "which", "type", "hash", "logger", "svc", "pkill", "killall", "expr"),
        ),
        Syntax(is_last=True),
    ),
}

SHELLS = frozenset({"sh", "bash", "dash", "ksh", "ash"})

ASK_PASSWORD = frozenset({"qmail-popup", "imaplogin", "pop3login"})
"""Programs that read name and password from the client and start a checker with them."""

SMTP_SERVERS = frozenset({"qmail-smtpd", "smtpd", "mailfront", "smtpfront-qmail", "ofmipd", "spamdyke"})
POP_SERVERS = frozenset(
    {"qmail-pop3d", "pop3d", "imapd", "courierpop3d", "pop3front-maildir", "imapfront-auth"}
)


LISTENERS = frozenset({"tcpserver", "sslserver"})

RUNNERS = (
    frozenset(PROGRAMS)
    - frozenset(name for name, syntax in PROGRAMS.items() if syntax.is_last or name in ASK_PASSWORD)
    - {"relay-ctrl-allow", "relay-ctrl-check", "relay-ctrl-send", "popgate-allow"}
)
"""Programs that change the surroundings and become the next one, whatever that is."""


@value
class Step:
    """One program of a chain with what is its own. `words` are those after its options; `is_popgate`:
    popgate stands for the program of that name."""

    name: str
    path: str
    line: int
    options: tuple[tuple[str, Argument], ...]
    flags: frozenset[str]
    words: tuple[Argument, ...]
    vanished: tuple[Vanished, ...]
    is_popgate: bool = False

    def option(self, letter: str) -> Argument | None:
        """The value of an option, the last one given."""
        return next((given for name, given in reversed(self.options) if name == letter), None)


def base_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def take(arguments: Sequence[Argument], vanished: Sequence[Vanished]) -> tuple[Step, int]:
    """The first program of a command line, and at which argument the next one begins."""
    name = base_name(arguments[0].text)
    if name == "popgate" and len(arguments) > 1 and arguments[1].text == "tcpserver":
        # the same command line, one word further in
        return _take_known(arguments, 2, "tcpserver", _POPGATE_TCPSERVER, vanished)
    syntax = PROGRAMS.get(name)
    if syntax is not None:
        return _take_known(arguments, 1, name, syntax, vanished)
    used = 1
    while used < len(arguments) and not is_program(arguments[used].text):
        used += 1
    words = tuple(arguments[1:used])
    own = tuple(one for one in vanished if one.index <= used)
    return Step(name, arguments[0].text, arguments[0].line, (), frozenset(), words, own), used


def is_program(word: str) -> bool:
    name = base_name(word)
    return name in PROGRAMS or name in SHELLS or name in SMTP_SERVERS or name in POP_SERVERS


def _take_known(
    arguments: Sequence[Argument], start: int, name: str, syntax: Syntax, vanished: Sequence[Vanished]
) -> tuple[Step, int]:
    options: list[tuple[str, Argument]] = []
    flags: set[str] = set()
    at = start
    while at < len(arguments) and (word := arguments[at].text).startswith("-") and word != "-":
        at += 1
        if word == "--":
            break
        if word.startswith("--"):
            long, equals, rest = word.partition("=")
            if equals:
                options.append((long, Argument(rest, arguments[at - 1].line, arguments[at - 1].unset)))
            elif long in syntax.long_valued and at < len(arguments):
                options.append((long, arguments[at]))
                at += 1
            else:
                flags.add(long)
            continue
        at = _take_letters(arguments, at, syntax, options, flags)
    end = len(arguments) if syntax.is_last else min(len(arguments), at + syntax.words)
    # a word that vanished before one of its own shifts all that follow
    own = tuple(one for one in vanished if one.index <= end)
    step = Step(
        name,
        arguments[0].text,
        arguments[0].line,
        tuple(options),
        frozenset(flags),
        tuple(arguments[at:end]),
        own,
        is_popgate=start == 2,
    )
    return step, end


def _take_letters(
    arguments: Sequence[Argument],
    at: int,
    syntax: Syntax,
    options: list[tuple[str, Argument]],
    flags: set[str],
) -> int:
    """The letters of one word, `-vRHl0`; `at` is the word behind it. Where the next one begins."""
    holder = arguments[at - 1]
    letters = holder.text[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter not in syntax.valued:
            flags.add(letter)
        elif letters:
            options.append((letter, Argument(letters, holder.line, holder.unset)))
            letters = ""
        elif at < len(arguments):
            options.append((letter, arguments[at]))
            at += 1
        else:
            options.append((letter, Argument("", holder.line, holder.unset)))
    return at
