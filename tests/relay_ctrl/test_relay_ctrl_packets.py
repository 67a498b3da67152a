"""Datagrams of logins: the forms, what counts, and what the receiver remembers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols import relay_ctrl_udp as wire
from popgate.protocols.relay_ctrl_udp import PacketError, PeerLogin, Receiver
from popgate.values.address import ClientAddress, Network

KEY, OTHER_KEY = b"the key of both machines", b"the key of somebody else"
HERE, CALLER = ClientAddress.parse("127.0.0.1"), ClientAddress.parse("198.51.100.9")
CALLERS = (Network.parse("198.51.100.0/24"),)
NOW = 1_000_000.0


def login(nonce: int = 1, sent: float = NOW, user: str = "bob", domain: str = "example.org") -> PeerLogin:
    return PeerLogin(ClientAddress.parse("2001:db8::1"), user, domain, sent, f"{nonce:032x}")


def receiver(**options: bool) -> Receiver:
    return Receiver(KEY, CALLERS, NOW - 1000, **options)


addresses = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).map(
    ClientAddress
)
names = st.from_regex(r"[a-zA-Z0-9_=+](-?[a-zA-Z0-9_=+]){0,20}", fullmatch=True)
domains = st.one_of(st.just(""), st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,3}", fullmatch=True))


@given(addresses, st.one_of(st.just(""), names), domains, st.integers(0, 10**6))
def test_what_is_signed_is_received(address: ClientAddress, user: str, domain: str, moment: int) -> None:
    sent = moment / 1000 + NOW
    data = wire.signed_login(PeerLogin(address, user, domain, sent, "0f" * 16), KEY)
    assert len(data) <= wire.MAX_OCTETS
    got = Receiver(KEY, CALLERS, 0).receive(data, CALLER, sent)
    assert isinstance(got, PeerLogin)
    assert (got.address, got.user, got.domain, got.nonce) == (address, user, domain, "0f" * 16)
    assert abs(got.sent - sent) < 0.002


@given(st.binary(max_size=1200))
def test_nothing_but_a_login_passes_and_nothing_else_is_raised(data: bytes) -> None:
    for start in (b"", b"popgate-login-1 "):
        with pytest.raises(PacketError):
            receiver().receive(start + data, CALLER, NOW)
    assert wire.is_answer(data, "0" * 32, KEY) is None


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_octet_anywhere_is_noticed(position: int, change: int) -> None:
    data = bytearray(wire.signed_login(login(), KEY))
    data[position % len(data)] ^= change
    with pytest.raises(PacketError):
        receiver().receive(bytes(data), CALLER, NOW)


@given(st.binary(max_size=80))
def test_the_plain_form_is_an_address_or_nothing(data: bytes) -> None:
    try:
        address = wire.plain_login(data)
    except PacketError:
        return
    assert ClientAddress.parse(data.partition(b"\0")[0].decode("ascii")) == address


def test_the_wrong_key_a_strange_caller_and_no_key() -> None:
    with pytest.raises(PacketError, match="signature"):
        receiver().receive(wire.signed_login(login(), OTHER_KEY), CALLER, NOW)
    with pytest.raises(PacketError, match="caller"):
        receiver().receive(wire.signed_login(login(), KEY), ClientAddress.parse("203.0.113.1"), NOW)
    with pytest.raises(PacketError, match="no key"):
        Receiver(None, CALLERS, 0).receive(wire.signed_login(login(), KEY), CALLER, NOW)
    with pytest.raises(ValueError):
        Receiver(b"short", CALLERS, 0)


@pytest.mark.parametrize(
    ("off", "counts"), [(-60, True), (60, True), (-61, False), (61, False), (-86400, False)]
)
def test_clocks_may_differ_by_a_minute(off: float, counts: bool) -> None:
    data = wire.signed_login(login(sent=NOW + off), KEY)
    if counts:
        assert isinstance(receiver().receive(data, CALLER, NOW), PeerLogin)
    else:
        with pytest.raises(PacketError, match="clock"):
            receiver().receive(data, CALLER, NOW)


def test_a_repetition_is_answered_and_grants_nothing() -> None:
    here = receiver()
    data = wire.signed_login(login(), KEY)
    first = here.receive(data, CALLER, NOW)
    assert isinstance(first, PeerLogin)
    with pytest.raises(PacketError):
        here.receive(data, CALLER, NOW)
    answer = here.answer(first, is_done=False)
    assert answer is not None and wire.is_answer(answer, first.nonce, KEY) is False
    assert here.receive(data, CALLER, NOW + 59) == answer
    assert (
        wire.is_answer(answer, f"{2:032x}", KEY) is None
        and wire.is_answer(answer, first.nonce, OTHER_KEY) is None
    )


def test_an_answer_is_no_login_and_a_login_no_answer() -> None:
    data = wire.signed_login(login(), KEY)
    assert wire.is_answer(data, login().nonce, KEY) is None
    here = receiver()
    first = here.receive(data, CALLER, NOW)
    assert isinstance(first, PeerLogin)
    answer = here.answer(first, is_done=True)
    assert answer is not None
    with pytest.raises(PacketError):
        here.receive(answer, CALLER, NOW)


def test_before_the_receiver_started_nothing_counts() -> None:
    with pytest.raises(PacketError, match="started"):
        Receiver(KEY, CALLERS, NOW + 1).receive(wire.signed_login(login(), KEY), CALLER, NOW + 2)


def test_what_is_remembered_is_bounded_and_never_forgotten_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "REMEMBERED_AT_MOST", 100)
    here = receiver()
    datagrams = [wire.signed_login(login(number), KEY) for number in range(101)]
    for data in datagrams[:100]:
        first = here.receive(data, CALLER, NOW)
        assert isinstance(first, PeerLogin)
        here.answer(first, is_done=True)
    with pytest.raises(PacketError, match="too many"):
        here.receive(datagrams[100], CALLER, NOW + 2)
    assert isinstance(here.receive(datagrams[0], CALLER, NOW + 2), bytes)
    later = wire.signed_login(login(1000, NOW + 61), KEY)
    assert isinstance(here.receive(later, CALLER, NOW + 61), PeerLogin)


def test_the_plain_form_counts_where_it_was_asked_for() -> None:
    for here, caller in (
        (Receiver(None, (), 0), HERE),
        (Receiver(None, CALLERS, 0, is_insecure=True), CALLER),
        (receiver(is_insecure=True), CALLER),
    ):
        got = here.receive(b"192.0.2.1", caller, NOW)
        assert isinstance(got, PeerLogin) and not got.is_signed
        assert here.answer(got, is_done=True) == wire.ANSWER and here.answer(got, is_done=False) is None
