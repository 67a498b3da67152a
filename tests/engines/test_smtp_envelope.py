"""The strict reader of addresses and parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols.envelope import (
    EnvelopeError,
    MailFrom,
    RcptTo,
    decode_xtext,
    encode_xtext,
    read_address,
    read_mail,
    read_rcpt,
)
from popgate.values.mail import MailAddress


def rcpt(text: str, *, smtputf8: bool = False, tolerant: bool = False) -> RcptTo:
    return read_rcpt(text.encode(), smtputf8=smtputf8, tolerant=tolerant)


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("a@example.org", "a", "example.org"),
        ("A.b-c+d=e@EXAMPLE.Org", "A.b-c+d=e", "example.org"),
        ("o'brien&co!#$%*/?^`{|}~@example.org", "o'brien&co!#$%*/?^`{|}~", "example.org"),
        ('"plain"@example.org', "plain", "example.org"),
        ('"with space"@example.org', "with space", "example.org"),
        ('"q\\"b\\\\"@example.org', 'q"b\\', "example.org"),
        ('"a>b"@example.org', "a>b", "example.org"),
        ("a@localhost", "a", "localhost"),
        ("a@[192.0.2.7]", "a", "[192.0.2.7]"),
        ("a@[IPv6:2001:DB8::1]", "a", "[IPv6:2001:db8::1]"),
        ("a@xn--bcher-kva.example", "a", "xn--bcher-kva.example"),
        ("a" * 242 + "@example.org", "a" * 242, "example.org"),
    ],
)
def test_addresses(text: str, local: str, domain: str) -> None:
    assert read_address(text) == MailAddress(local, domain)
    assert rcpt(f"TO:<{text}>") == RcptTo(MailAddress(local, domain))
    assert read_mail(f"from:<{text}>".encode()) == MailFrom(MailAddress(local, domain))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "@example.org",
        "a@",
        "a@@example.org",
        ".a@example.org",
        "a.@example.org",
        "a..b@example.org",
        "a b@example.org",
        "a@example.org.",
        "a@.example.org",
        "a@example..org",
        "a@-example.org",
        "a@example-.org",
        "a@exa mple.org",
        "a@exa_mple.org",
        "a@127.0.0.1",
        "a@2130706433",
        "a@0x7f000001",
        "a@example.0x1",
        "a@[127.1]",
        "a@[0177.0.0.1]",
        "a@[::1]",
        "a@[IPv6:::1%lo]",
        "a@[IPv6:192.0.2.1]",
        "a@[x-tag:y]",
        "a@[192.0.2.7",
        "a@example.org,b@example.org",
        "a@example.org;b",
        "@relay.example.com:a@example.org",
        "@relay.example.com,@r2.example.com:a@example.org",
        "(comment)a@example.org",
        "a@example.org(comment)",
        "a@(comment)example.org",
        '"a"b@example.org',
        '""@example.org',
        '"a@example.org',
        "a@example.org\t",
        "a\x7f@example.org",
        '"a\x01"@example.org',
        "<a@example.org>",
        "a" * 243 + "@example.org",
        "a@" + "b" * 64 + ".org",
        "a@" + "b.c" * 100,
        "a@xample\uff0eorg",
        "a\u2028b@example.org",
        "a\u0085b@example.org",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(EnvelopeError):
        read_address(text)
    with pytest.raises(EnvelopeError) as caught:
        rcpt(f"TO:<{text}>", smtputf8=True)
    assert caught.value.code in (501, 553)
    if text:
        with pytest.raises(EnvelopeError) as caught:
            read_mail(f"FROM:<{text}> SMTPUTF8".encode())
        assert caught.value.code == 501


@pytest.mark.parametrize(
    "line",
    [
        "TO:a@example.org",
        "TO:<a@example.org",
        "TO:a@example.org>",
        "TO <a@example.org>",
        "TO:<a@example.org>x",
        "TO:<a@example.org> ORCPT",
        "TO:<a@example.org>\tNOTIFY=NEVER",
        "TO:  <a@example.org>",
        "TO:<>",
        "FROM:<a@example.org>",
        "",
    ],
)
def test_what_is_no_rcpt(line: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        rcpt(line, tolerant=True)
    assert caught.value.code == 501


def test_devices_put_a_space() -> None:
    assert rcpt("TO: <a@example.org>", tolerant=True).recipient == MailAddress("a", "example.org")
    with pytest.raises(EnvelopeError):
        rcpt("TO: <a@example.org>")


def test_postmaster_needs_no_domain() -> None:
    assert rcpt("TO:<PostMaster>") == RcptTo(MailAddress("postmaster", ""))
    with pytest.raises(EnvelopeError):
        read_mail(b"FROM:<Postmaster>")


def test_parameters() -> None:
    line = b"FROM:<> SIZE=12 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=a+2Bb AUTH=a@example.org  "
    assert read_mail(line) == MailFrom(None, 12, True, True, "HDRS", "a+b", "a@example.org")
    line = "TO:<a@example.org> notify=failure,Delay ORCPT=rfc822;A+20b@example.org"
    assert rcpt(line) == RcptTo(
        MailAddress("a", "example.org"), ("FAILURE", "DELAY"), "rfc822;A b@example.org"
    )
    assert rcpt("TO:<a@example.org> ORCPT=utf-8;\u00fc@example.org", smtputf8=True).orcpt


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("SIZE", 501),
        ("SIZE=", 501),
        ("SIZE=-1", 501),
        ("SIZE=1e3", 501),
        ("SIZE=\u0661", 501),
        ("SIZE=" + "1" * 21, 501),
        ("SIZE=1 size=1", 501),
        ("BODY=BINARYMIME", 501),
        ("SMTPUTF8=1", 501),
        ("RET=NONE", 501),
        ("ENVID=", 501),
        ("ENVID=a+0A", 501),
        ("ENVID=a+2b", 501),
        ("ENVID=a+", 501),
        ("ENVID=" + "x" * 101, 501),
        ("ENVID=\u00fc", 501),
        ("AUTH=x", 501),
        ("AUTH=+3C+3E", 250),
        ("X", 555),
        ("X=y", 555),
        ("=y", 501),
        ("SIZE=1;x", 501),
        ("NOTIFY=NEVER", 555),
    ],
)
def test_bad_parameters_of_mail(parameters: str, code: int) -> None:
    try:
        read_mail(f"FROM:<> {parameters}".encode())
    except EnvelopeError as error:
        assert error.code == code
    else:
        assert code == 250


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("NOTIFY", 501),
        ("NOTIFY=NEVER,SUCCESS", 501),
        ("NOTIFY=SUCCESS,SUCCESS", 501),
        ("NOTIFY=SUCCESS,", 501),
        ("NOTIFY=x", 501),
        ("ORCPT=a@example.org", 501),
        ("ORCPT=rfc822;", 501),
        ("ORCPT=;a", 501),
        ("ORCPT=rfc822;a+0D+0ARCPT", 501),
        ("ORCPT=rfc822;" + "x" * 500, 501),
        ("ORCPT=utf-8;\u00fc", 501),
        ("SIZE=1", 555),
    ],
)
def test_bad_parameters_of_rcpt(parameters: str, code: int) -> None:
    with pytest.raises(EnvelopeError) as caught:
        rcpt(f"TO:<a@example.org> {parameters}")
    assert caught.value.code == code


def test_other_alphabets_need_smtputf8() -> None:
    for text in ("\u00fc@example.org", "a@b\u00fccher.example"):
        with pytest.raises(EnvelopeError) as caught:
            rcpt(f"TO:<{text}>")
        assert (caught.value.code, caught.value.status) == (553, "5.6.7")
        assert not rcpt(f"TO:<{text}>", smtputf8=True).recipient.is_ascii
    # two spellings of one name are one name
    assert read_address("a@o\u0308l.example") == read_address("a@\u00d6L.example")
    with pytest.raises(EnvelopeError):
        read_rcpt(b"TO:<\xff@example.org>", smtputf8=True)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40))
def test_xtext_comes_back(text: str) -> None:
    assert decode_xtext(encode_xtext(text)) == text
    assert " " not in encode_xtext(text)


@given(st.binary(max_size=60))
def test_what_is_read_is_written_the_same_and_read_again(octets: bytes) -> None:
    """Whatever passes is one address, and stays it when it is sent on."""
    try:
        command = read_rcpt(b"TO:<" + octets + b">", smtputf8=True)
    except EnvelopeError:
        return
    again = read_rcpt(f"TO:<{command.recipient}>".encode(), smtputf8=True)
    assert again.recipient == command.recipient
    assert "\r" not in str(command.recipient)
    assert "\n" not in str(command.recipient)


@given(st.from_regex(r'("[ -~]{0,8}"|[a-z.!%]{1,8})@[a-zA-Z0-9.\[\]:-]{1,20}', fullmatch=True))
def test_addresses_that_pass_survive_the_wire(text: str) -> None:
    try:
        address = read_address(text)
    except EnvelopeError:
        return
    assert read_address(str(address)) == address
