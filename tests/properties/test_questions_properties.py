"""What other servers ask, in whatever order and encoding: the same question has the same answer."""

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols import socketmap, tcp_table
from popgate.protocols.postfix_policy import PostfixPolicyServer, action
from popgate.protocols.socketmap import SocketmapServer
from popgate.protocols.tcp_table import TcpTableServer
from relay_site import RelaySite, policy_request

HOME = "203.0.113.9"
words = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=30)
names = st.from_regex(r"[a-z_]{1,20}", fullmatch=True).map("x_".__add__)
clients = (
    st.sampled_from([HOME, f"::ffff:{HOME}", f"[{HOME}]", "203.0.113.10", "2001:db8::9", "unknown", ""])
    | words
)
senders = st.sampled_from(["alice@example.org", "ALICE@example.org", "bob@example.org", "", "<>"]) | words
states = st.sampled_from(["RCPT", "DATA", "MAIL", "END-OF-MESSAGE", "CONNECT", ""]) | words


def site() -> RelaySite:
    site = RelaySite()
    site.log_in(HOME)
    return site


@given(
    clients, senders, states, st.dictionaries(names, words, max_size=20), st.randoms(use_true_random=False)
)
def test_the_order_of_attributes_and_unknown_ones_change_no_answer(
    client, sender, state, more, chance
) -> None:  # type: ignore[no-untyped-def]
    plain = policy_request(client, sender, protocol_state=state)
    lines = plain.decode()[:-1].splitlines(keepends=True) if "\r" not in plain.decode() else []
    answer = site().talk("postfix_policy").send(plain)
    expected = (
        state == "RCPT"
        and client in (HOME, f"::ffff:{HOME}", f"[{HOME}]")
        and sender.lower() in ("alice@example.org", "", "<>")
    )
    assert (answer == b"action=permit\n\n") is expected
    if len(lines) == plain.count(b"\n") - 1:  # no other line end of Python's in a value
        lines += [f"{name}={content}\n" for name, content in more.items()]
        chance.shuffle(lines)
        assert site().talk("postfix_policy").send("".join(lines).encode() + b"\n") == answer


@given(st.dictionaries(names | st.just("sender"), words, min_size=1, max_size=90))
def test_a_policy_request_is_read_as_it_was_written(attributes: dict[str, str]) -> None:
    attributes = {"request": "smtpd_access_policy", **attributes}
    server = PostfixPolicyServer()
    server.receive("".join(f"{name}={content}\n" for name, content in attributes.items()).encode() + b"\n")
    request = server.next_event()
    assert request is not None
    assert request.attributes == attributes  # type: ignore[attr-defined]


@given(st.text(max_size=200))
def test_an_action_is_one_line(text: str) -> None:
    wire = action(text)
    assert wire.startswith(b"action=")
    assert wire.endswith(b"\n\n")
    assert b"\n" not in wire[:-2]


@given(words.map(lambda word: word.replace(" ", "")), st.text(max_size=300))
def test_a_netstring_is_read_as_it_was_written(name: str, key: str) -> None:
    octets = f"{name} {key}".encode()
    server = SocketmapServer()
    server.receive(b"%d:%s,rest" % (len(octets), octets))
    event = server.next_event()
    assert event == socketmap.LookUp(name, key)


@given(st.text(max_size=200))
def test_an_answer_of_a_socketmap_is_one_netstring(text: str) -> None:
    for wire in (socketmap.found(text), socketmap.temporary(text), socketmap.not_found()):
        length, _, rest = wire.partition(b":")
        assert len(rest) == int(length) + 1
        assert rest.endswith(b",")


@given(st.binary(max_size=200))
def test_a_key_of_a_tcp_table_is_read_however_it_is_encoded(key: bytes) -> None:
    for always in (True, False):
        encoded = b"".join(
            b"%%%02X" % octet if always or octet <= 32 or octet >= 127 or octet == 0x25 else b"%c" % octet
            for octet in key
        )
        server = TcpTableServer()
        server.receive(b"get " + encoded + b"\n")
        assert server.next_event() == socketmap.LookUp("", key.decode("utf-8", "replace"))


@given(st.text(max_size=200))
def test_an_answer_of_a_tcp_table_is_one_line_that_decodes_to_what_was_said(text: str) -> None:
    for wire in (tcp_table.found(text), tcp_table.temporary(text)):
        line = wire.removesuffix(b"\n")
        assert len(wire) == len(line) + 1
        assert line.isascii()
        assert line.decode().isprintable()
        assert unquote_to_bytes(line[4:]) == text.encode("utf-8", "replace")
