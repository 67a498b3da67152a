"""The SASL exchanges: what becomes credentials and what is malformed."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.protocols import sasl
from popgate.protocols.sasl import Challenge, CramCredentials, Malformed, PlainCredentials, Step

TOKEN = "AbCdEfGhIjKlMnOpQrStUv"


def begin(mechanism: str, initial: bytes | None = None) -> Step:
    return sasl.begin(mechanism, initial, token=lambda: TOKEN, hostname="mail.example.org")


def respond(step: Step, data: bytes) -> Step:
    assert isinstance(step, Challenge)
    return step.exchange.respond(data)


def test_plain_with_and_without_initial_response() -> None:
    expected = PlainCredentials("PLAIN", "ann@example.org", b"pass word")
    assert begin("PLAIN", b"\0ann@example.org\0pass word") == expected
    step = begin("PLAIN")
    assert isinstance(step, Challenge)
    assert step.data == b""
    assert respond(step, b"ann@example.org\0ann@example.org\0pass word") == expected


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"u",
        b"\0u",
        b"\0a\0b\0c\0",
        b"other\0u\0p",
        b"U\0u\0p",
        b"\0\0p",
        b"\0u\0",
        b"\0" + b"u" * 256 + b"\0p",
        b"\0u\0" + b"p" * 1025,
        b"\0\xff\0p",
        b"\0a\r\nLogin: user=<x>\0p",
        b"\0a\xe2\x80\xa8b\0p",
        b"\0a\xc2\x85b\0p",
    ],
)
def test_plain_refuses(message: bytes) -> None:
    assert isinstance(begin("PLAIN", message), Malformed)


def test_plain_takes_the_longest_names_and_passwords() -> None:
    name, password = b"u" * 255, b"p" * 1024
    message = name + b"\0" + name + b"\0" + password
    assert len(message) == sasl.MAX_RESPONSE
    assert len(base64.b64encode(message)) + 2 <= sasl.MAX_LINE
    assert begin("PLAIN", message) == PlainCredentials("PLAIN", name.decode(), password)


def test_login_prompts_are_those_that_devices_know() -> None:
    first = begin("LOGIN")
    assert isinstance(first, Challenge)
    assert base64.b64encode(first.data) == b"VXNlcm5hbWU6"
    second = respond(first, b"ann")
    assert isinstance(second, Challenge)
    assert base64.b64encode(second.data) == b"UGFzc3dvcmQ6"
    assert respond(second, b"s3cret") == PlainCredentials("LOGIN", "ann", b"s3cret")


def test_login_initial_response_is_the_name() -> None:
    second = begin("LOGIN", b"ann")
    assert isinstance(second, Challenge)
    assert second.data == b"Password:"
    assert respond(second, b"s3cret") == PlainCredentials("LOGIN", "ann", b"s3cret")


@pytest.mark.parametrize("name", [b"", b"\xff", b"a\0b", b"a\r\nb", b"u" * 256])
def test_login_refuses_names(name: bytes) -> None:
    assert isinstance(begin("LOGIN", name), Malformed)


@pytest.mark.parametrize("password", [b"", b"a\0b", b"p" * 1025])
def test_login_refuses_passwords(password: bytes) -> None:
    assert isinstance(respond(begin("LOGIN", b"ann"), password), Malformed)


def test_cram_md5() -> None:
    step = begin("CRAM-MD5")
    assert isinstance(step, Challenge)
    assert step.data == b"<" + TOKEN.encode() + b"@mail.example.org>"
    digest = b"b913a602c7eda7a495b4e6e7334d3890"
    assert respond(step, b"tim jones " + digest) == CramCredentials("tim jones", step.data, digest)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"tim",
        b"b913a602c7eda7a495b4e6e7334d3890",
        b" b913a602c7eda7a495b4e6e7334d3890",
        b"tim B913A602C7EDA7A495B4E6E7334D3890",
        b"tim b913a602c7eda7a495b4e6e7334d389",
        b"tim b913a602c7eda7a495b4e6e7334d38900",
        b"tim b913a602c7exa7a495b4e6e7334d3890",
        b"tim b913a602c7eda7a495b4e6e7334d3890 ",
        b"\xff b913a602c7eda7a495b4e6e7334d3890",
    ],
)
def test_cram_md5_refuses(response: bytes) -> None:
    assert isinstance(respond(begin("CRAM-MD5"), response), Malformed)


def test_cram_md5_has_no_initial_response_and_a_new_challenge_each_time() -> None:
    assert isinstance(begin("CRAM-MD5", b""), Malformed)
    tokens = iter(["one", "two"])
    steps = [sasl.begin("CRAM-MD5", None, token=lambda: next(tokens), hostname="h") for _ in range(2)]
    assert [step.data for step in steps if isinstance(step, Challenge)] == [b"<one@h>", b"<two@h>"]


def test_unknown_mechanism() -> None:
    assert isinstance(begin("EXTERNAL", b""), Malformed)


def test_no_password_in_a_repr() -> None:
    assert "hunter2" not in repr(PlainCredentials("PLAIN", "ann", b"hunter2"))


@pytest.mark.parametrize(
    ("line", "data"),
    [(b"", b""), (b"dQ==", b"u"), (b"dWI=", b"ub"), (b"dWJj", b"ubc"), (b"/+8=", b"\xff\xef")],
)
def test_decode_base64(line: bytes, data: bytes) -> None:
    assert sasl.decode_base64(line) == data


@pytest.mark.parametrize(
    "line",
    [
        b"=",
        b"!!!!",
        b"dQ",
        b"dQ=",
        b"dR==",
        b"dQ==\n",
        b" dQ==",
        b"dQ==dQ==",
        b"d Q==",
        b"d",
        b"_-8=",
        b"\xff",
        b"A===",
    ],
)
def test_decode_base64_is_strict(line: bytes) -> None:
    assert sasl.decode_base64(line) is None


@given(st.binary(max_size=60))
def test_only_one_line_means_a_response(line: bytes) -> None:
    data = sasl.decode_base64(line)
    if data is not None:
        assert base64.b64encode(data) == line


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_names_are_always_printable_and_credentials_never_empty(first: bytes, second: bytes) -> None:
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
        step: Step = begin(mechanism)
        for data in (first, second):
            if isinstance(step, Challenge):
                step = step.exchange.respond(data)
        if isinstance(step, PlainCredentials):
            assert step.name.isprintable()
            assert step.name
            assert step.password
