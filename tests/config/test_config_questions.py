"""Checks of the listeners that other mail servers ask."""

import pytest

from popgate.config import ConfigError, load_text

HEAD = 'hostname = "mail.example.org"\n[grants]\nsender = "{sender}"\n[[listener]]\n'


def listener(service: str, line: str) -> str:
    bind = "unix:/run/popgate/socket" if "socket_mode" in line else "127.0.0.1:1"
    return f'service = "{service}"\nbind = "{bind}"\n{line}'


def problems(lines: str, sender: str = "any") -> tuple[list[str], list[str]]:
    """Errors and warnings."""
    text = HEAD.format(sender=sender) + lines
    try:
        return [], [str(problem) for problem in load_text(text, "popgate.toml").warnings]
    except ConfigError as error:
        return [str(problem) for problem in error.problems], []


@pytest.mark.parametrize(
    "lines",
    [
        'service = "postfix_policy"\nbind = "127.0.0.1:22810"',
        'service = "postfix_policy"\nbind = "[::1]:22810"\nrefusal = "text"\ncharge = "end-of-message"',
        'service = "postfix_policy"\nbind = "fd:policy"\non_store_fault = "defer_if_permit"',
        'service = "socketmap"\nbind = "unix:/run/popgate/socketmap"\nsocket_group = "postfix"',
        'service = "tcp_table"\nbind = "192.0.2.1:22811"\ncallers = ["192.0.2.25"]\nmap_value = "permit"',
        'service = "line"\nbind = "unix:/run/popgate/line"\nline_end = "none"\nsocket_mode = "0666"',
        'service = "postfix_policy"\nbind = "127.0.0.1:22810"\nidentity_header = "X-Popgate-Identity"',
    ],
)
def test_what_is_right(lines: str) -> None:
    assert problems(lines) == ([], [])


@pytest.mark.parametrize("service", ["postfix_policy", "socketmap", "tcp_table", "line"])
@pytest.mark.parametrize("bind", ["0.0.0.0:22810", "[::]:22810", "192.0.2.1:22810", "10.0.0.1:22810"])
def test_nobody_from_elsewhere_may_ask_unless_listed(service: str, bind: str) -> None:
    errors, _ = problems(f'service = "{service}"\nbind = "{bind}"')
    (error,) = errors
    assert error.startswith("popgate.toml:4: listener.0.callers: is missing: whoever can connect to")
    assert 'callers = ["192.0.2.25"]' in error
    errors, _ = problems(f'service = "{service}"\nbind = "{bind}"\ncallers = ["0.0.0.0/0"]')
    assert len(errors) == 1
    assert "popgate.toml:7: listener.0.callers.0" in errors[0]


@pytest.mark.parametrize(
    ("service", "line", "text"),
    [
        ("line", 'tls = "implicit"', "mail servers ask in the clear"),
        ("line", 'proxy_from = ["192.0.2.1"]', "send no PROXY header"),
        ("line", 'relay_by = ["grant"]', "relays nothing"),
        ("postfix_policy", 'identity_header = "X: y"', "is no name of a header"),
        ("postfix_policy", 'identity_header = "X-\\r\\nBcc"', "is no name of a"),
        ("postfix_policy", 'on_store_fault = "run"', "no program runs here"),
        ("ucspi", 'command = ["/bin/true"]\non_store_fault = "defer_if_permit"', "is for Postfix"),
        ("socketmap", 'map_value = "a\\nb"', "is no result of a look-up"),
        ("tcp_table", 'map_value = ""', "is no result of a look-up"),
        ("line", 'socket_mode = "rw"', "is no mode of a file"),
        ("line", 'socket_mode = "0668"', "is no mode of a file"),
    ],
)
def test_what_is_wrong(service: str, line: str, text: str) -> None:
    errors, _ = problems(listener(service, line))
    assert any(text in error for error in errors), errors


@pytest.mark.parametrize(
    ("service", "line", "text"),
    [
        ("line", 'callers = ["192.0.2.1"]', "says nothing: only this machine can"),
        ("line", 'socket_group = "postfix"', "is no unix: socket"),
        ("line", 'refusal = "text"', "says nothing for"),
        ("line", 'map_value = "OK"', "says nothing for"),
        ("line", 'on_store_fault = "run"', "says nothing for"),
        ("socketmap", 'line_end = "none"', "says nothing for"),
        ("smtp", 'callers = ["192.0.2.1"]', "says nothing for"),
        ("line", "max_connections_per_address = 5", "says nothing for"),
    ],
)
def test_what_says_nothing(service: str, line: str, text: str) -> None:
    errors, warnings = problems(listener(service, line))
    assert not errors
    assert any(text in warning for warning in warnings), warnings


@pytest.mark.parametrize(
    ("service", "warned"), [("socketmap", 1), ("tcp_table", 1), ("postfix_policy", 0), ("line", 0)]
)
def test_a_map_cannot_hold_the_sender_bound(service: str, warned: int) -> None:
    _, warnings = problems(f'service = "{service}"\nbind = "127.0.0.1:1"', "bound")
    assert sum("cannot be held here" in warning for warning in warnings) == warned
