"""Where popgate's programs differ from relay-ctrl 3.2 on purpose, row by row of behaviour.jsonl.

Each name is an anchor in docs/relay-ctrl.md, where the reason stands. The values replace
those of the row; `after` is changed file by file, and None there means that the file is gone.
"""

from collections.abc import Mapping
from typing import Any

HERE = "cwd={T}/cwd\n"


class Difference:
    def __init__(self, *names: str, after: Mapping[str, Any] | None = None, **changed: Any) -> None:
        self.names = names
        self.changed = changed
        self.after = after or {}


def _file(content: str, mode: str = "600", uid: int = 0) -> dict[str, Any]:
    return {"mode": mode, "uid": uid, "size": len(content), "content": content, "age": 0}


def _warns(program: str, text: str) -> str:
    return f"relay-ctrl-{program}[PID]: Warning: {text}\n"


def _no_address(program: str, shown: str, why: str) -> str:
    return _warns(program, f"No grant for the client '{shown}': {why}")


def _ignored(why: str) -> str:
    return _warns("check", f"Ignored '192.0.2.7': {why}")


_STRICT = _ignored("it holds what is no record of a login")
_PLAIN = _ignored("a grant is a plain file with one name and up to 8192 bytes")
_NUMBERS = "is not an IPv4 address: four decimal numbers are needed"
_ENTRY = "allow/192.0.2.7"

DIFFERENCES: Mapping[str, Difference] = {
    # A bad address never breaks a login, and makes no file.
    "allow-empty-ip": Difference("address", stderr=_no_address("allow", "", f"'' {_NUMBERS}")),
    "allow-bad-ip": Difference(
        "address",
        exit=7,
        stdout=HERE,
        stderr=_no_address(
            "allow", "1.2.3.4x", "'1.2.3.4x' is not an IPv4 address: '4x' is not a decimal number"
        ),
    ),
    "allow-ip6": Difference("address", exit=7, stdout=HERE, stderr="", after={"allow/::1": _file("")}),
    "allow-mapped-upper": Difference("address", exit=7, stdout=HERE, stderr="", after={_ENTRY: _file("")}),
    "allow-ip-16": Difference(
        "address",
        stderr=_no_address("allow", "1234567890123456", f"'1234567890123456' {_NUMBERS}"),
        after={"allow/1234567890123456": None},
    ),
    "allow-ip-17": Difference(
        "address",
        exit=7,
        stdout=HERE,
        stderr=_no_address("allow", "12345678901234567", f"'12345678901234567' {_NUMBERS}"),
    ),
    "allow-ip-dots": Difference(
        "address",
        stderr=_no_address("allow", "....", f"'....' {_NUMBERS}"),
        after={"allow/....": None},
    ),
    "allow-ip-dotdot": Difference("address", stderr=_no_address("allow", "..", f"'..' {_NUMBERS}")),
    "send-bad-ip": Difference(
        "address",
        exit=7,
        stdout=HERE,
        stderr=_no_address("send", "x", f"'x' {_NUMBERS}"),
    ),
    "check-mapped": Difference("address", stdout=f"RELAYCLIENT=[]\nUSER=[bob]\n{HERE}", stderr=""),
    "check-ip-dot": Difference(
        "address",
        "plain-files",
        "working-directory",
        stdout=HERE,
        stderr=_warns("check", f"'.' is no client's address: '.' {_NUMBERS}"),
    ),
    # What relay-ctrl-chdir opened does not reach the mail programs.
    "allow-dir-unset-fd": Difference("descriptor", stdout=HERE),
    "allow-fd": Difference("descriptor", stdout=f"USER=[bob]\n{HERE}"),
    "chdir-allow": Difference("descriptor", stdout=f"USER=[bob]\n{HERE}"),
    "check-found-fd": Difference(
        "descriptor", "working-directory", stdout=f"RELAYCLIENT=[]\nUSER=[bob]\n{HERE}"
    ),
    "check-fd-only": Difference(
        "descriptor", "working-directory", stdout=f"RELAYCLIENT=[]\nUSER=[bob]\n{HERE}"
    ),
    "chain-allow-allow": Difference(
        "descriptor", stdout=f"USER=[bob]\n{HERE}", stderr="", after={_ENTRY: _file("USER=bob\0", "666")}
    ),
    "chain-allow-check": Difference("descriptor", stdout=f"RELAYCLIENT=[]\nUSER=[bob]\n{HERE}", stderr=""),
    "check-fd-leak-expired": Difference(
        "descriptor", "checker-removes-nothing", stdout="4\n", after={_ENTRY: "as before"}
    ),
    "allow-fd-bad": Difference(
        "messages", stderr=_warns("allow", "Could not chdir to FD 99: Bad file descriptor")
    ),
    "send-remote-bad": Difference(
        "messages",
        stderr=_warns("send", "Could not parse IP 'bogus'.")
        + _warns("send", "Timed out waiting for response from '127.0.0.1'."),
    ),
    "send-remote-all-bad": Difference("messages", stderr=_warns("send", "Could not parse IP 'bogus'.")),
    # Names and files.
    "allow-user-newline": Difference(
        "names",
        stderr=_warns(
            "allow", "No grant for 'a?b=c': a user name has 1 to 64 of the characters A-Z a-z 0-9 . _ + - ="
        ),
        after={_ENTRY: None},
    ),
    "allow-replace": Difference("merging", after={_ENTRY: "merged"}),
    "udp-existing": Difference("merging", after={_ENTRY: None, "allow/192.0.2.1": "merged"}),
    "check-env-any": Difference(
        "strict-content", "working-directory", stdout="FOO=[old]\n" + HERE, stderr=_STRICT
    ),
    "check-env-override-rc": Difference("strict-content", "working-directory", stdout=HERE, stderr=_STRICT),
    "check-env-noeq": Difference("strict-content", "working-directory", stdout=HERE, stderr=_STRICT),
    "check-env-emptypiece": Difference("strict-content", "working-directory", stdout=HERE, stderr=_STRICT),
    "check-env-8192": Difference("strict-content", "working-directory", stdout=HERE, stderr=_PLAIN),
    "check-env-8192-fit": Difference("strict-content", "working-directory", stdout="0\n", stderr=_STRICT),
    "check-entry-link": Difference("plain-files", "working-directory", stdout=HERE, stderr=_PLAIN),
    "check-entry-dir-expired": Difference("plain-files", "working-directory", stdout=HERE, stderr=_PLAIN),
    "check-future": Difference("future", "working-directory", stdout=HERE),
    # The checker.
    "check-dir-missing": Difference("no-other-directory", stdout=HERE),
    "check-boundary-plus1": Difference(
        "checker-removes-nothing", "working-directory", stdout=HERE, after={_ENTRY: "as before"}
    ),
    "check-default-901": Difference(
        "checker-removes-nothing", "working-directory", stdout=HERE, after={_ENTRY: "as before"}
    ),
    "check-expiry-20x-21": Difference(
        "checker-removes-nothing", "working-directory", stdout=HERE, after={_ENTRY: "as before"}
    ),
    "check-log-expired": Difference(
        "checker-removes-nothing",
        "working-directory",
        stdout=HERE,
        stderr="relay-ctrl-check[PID]: Expired IP 192.0.2.7 found\n",
        after={_ENTRY: "as before"},
    ),
    # The ager.
    "age-link": Difference("plain-files", after={"allow/b": None}),
    "age-future": Difference("future", after={"allow/10.0.0.1": None}),
    # The receiver.
    "udp-empty": Difference("address", stderr="relay-ctrl-udp: Warning: Invalid IP from '127.0.0.1'.\n" * 3),
    "udp-nopaddr": Difference(
        "address",
        stderr="relay-ctrl-udp: Warning: Invalid IP from '127.0.0.1'.\n" * 3,
        replies=[None, None, None],
        after={"allow/999.999.999.999": None, "allow/...": None, "allow/1": None},
    ),
    "allow-concurrent": Difference("merging"),
    "allow-syscalls": Difference("working-directory", "merging"),
}

# Rows in which nothing differs but the working directory of the program behind the checker.
WORKING_DIRECTORY = Difference("working-directory")


def difference(row: Mapping[str, Any]) -> Difference | None:
    """What is different in a row, or None: it is exactly as observed."""
    found = DIFFERENCES.get(row["id"])
    if found is None and row["program"] == "relay-ctrl-check" and "cwd={T}/allow\n" in row["stdout"]:
        return WORKING_DIRECTORY
    return found
