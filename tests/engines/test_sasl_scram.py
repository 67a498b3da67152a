"""SCRAM-SHA-256 on the server's side, by itself."""

import base64
import hashlib
import hmac

import pytest

from popgate.protocols import sasl
from popgate.protocols.sasl import Challenge, Malformed, ScramCredentials, ScramKeys, Step
from support.scram import ScramClient

# RFC 7677 3
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"


def keys_of(password: bytes, salt: bytes = SALT, iterations: int = 4096) -> ScramKeys:
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    return ScramKeys(
        salt, iterations, hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")
    )


KEYS = keys_of(b"pencil")
ASKED: list[str] = []


def _keys(name: str) -> ScramKeys:
    ASKED.append(name)
    return KEYS


def begin(initial: bytes | None) -> Step:
    return sasl.begin(
        "SCRAM-SHA-256", initial, token=lambda: SERVER_NONCE, hostname="mail.example.org", scram_keys=_keys
    )


def respond(step: Step, data: bytes) -> Step:
    assert isinstance(step, Challenge), step
    return step.exchange.respond(data)


def test_the_exchange_of_rfc_7677() -> None:
    step = begin(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert isinstance(step, Challenge)
    nonce = b"rOprNGfwEbeRWgbNEkqO" + SERVER_NONCE.encode()
    assert step.data == b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    proof = b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    step = respond(step, b"c=biws,r=" + nonce + b",p=" + proof)
    assert isinstance(step, Challenge)
    assert step.data == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert respond(step, b"") == ScramCredentials("user", KEYS, is_proven=True)


def test_without_an_initial_response_and_with_whatever_the_grammar_allows() -> None:
    step = begin(None)
    assert isinstance(step, Challenge)
    assert step.data == b""
    client = ScramClient("a=b,c", "pencil", gs2="y,a=a=3Db=2Cc,")
    step = respond(step, client.first + b",x=extension")
    assert isinstance(step, Challenge)
    assert ASKED[-1] == "a=b,c"
    client._bare += ",x=extension"
    step = respond(step, client.final(step.data))
    assert isinstance(step, Challenge)
    assert client.believes(step.data)
    assert respond(step, b"") == ScramCredentials("a=b,c", KEYS, is_proven=True)


def test_a_wrong_password_proves_nothing_and_is_not_told_what_the_server_knows() -> None:
    client = ScramClient("user", "pen")
    step = begin(client.first)
    assert isinstance(step, Challenge)
    assert respond(step, client.final(step.data)) == ScramCredentials("user", KEYS, is_proven=False)


def test_without_keys_there_is_no_such_mechanism() -> None:
    step = sasl.begin("SCRAM-SHA-256", None, token=lambda: "t", hostname="h")
    assert isinstance(step, Malformed)
    assert "SCRAM-SHA-256" not in sasl.secret_mechanisms(has_scram=False)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,,n=user",
        b"n,,r=nonce,n=user",
        b"n,,n=,r=nonce",
        b"n,,n=user,r=",
        b"n,,n=user,r=two words",
        b"n,,n=user,r=del\x7f",
        b"n,,n=us=er,r=nonce",
        b"n,,n=us=2cer,r=nonce",
        b"n,,n=us\0er,r=nonce",
        b"n,,n=\xff,r=nonce",
        b"n,,n=" + b"u" * 256 + b",r=nonce",
        b"n,,m=must,n=user,r=nonce",  # RFC 5802 5.1 m=: unknown, so it must fail
        b"n,a=other,n=user,r=nonce",
        b"p=tls-unique,,n=user,r=nonce",
        b"x,,n=user,r=nonce",
        b"n,,n=user,r=nonce\n",
        b"n,,n=user,r=" + b"n" * 4000,
    ],
)
def test_first_messages_that_are_none(first: bytes) -> None:
    ASKED.clear()
    assert isinstance(begin(first), Malformed)
    assert not ASKED, "keys were looked for"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"c=biws", b"c=eSws"),  # it said "n,," and now that it said "y,,"
        (b"c=biws", b"c=biws="),
        (b"c=biws,", b""),
        (SERVER_NONCE.encode(), b"another"),
        (SERVER_NONCE.encode(), b""),
        (b",p=", b",p=AAAA"),
        (b",p=", b",p=A"),
        (b",p=", b",q="),
        (
            b"=",
            b"==",
        ),
    ],
)
def test_final_messages_that_are_none(old: bytes, new: bytes) -> None:
    client = ScramClient("user", "pencil")
    step = begin(client.first)
    assert isinstance(step, Challenge)
    final = client.final(step.data)
    assert old in final
    assert isinstance(respond(step, final.replace(old, new)), Malformed)


@pytest.mark.parametrize("bit", [0, 7, 100, 255])
def test_each_bit_of_the_proof_counts(bit: int) -> None:
    client = ScramClient("user", "pencil")
    step = begin(client.first)
    assert isinstance(step, Challenge)
    flip = (1 << bit).to_bytes(32, "big")
    final = client.final(
        step.data, change=lambda proof: bytes(a ^ b for a, b in zip(proof, flip, strict=True))
    )
    assert respond(step, final) == ScramCredentials("user", KEYS, is_proven=False)


def test_an_end_with_something_in_it_is_no_login() -> None:
    client = ScramClient("user", "pencil")
    step = begin(client.first)
    assert isinstance(step, Challenge)
    assert isinstance(respond(respond(step, client.final(step.data)), b"x"), Malformed)


def test_keys_stay_out_of_tracebacks() -> None:
    told = repr(ScramCredentials("user", KEYS, is_proven=True))
    assert repr(KEYS.stored_key) not in told and repr(KEYS.server_key) not in told
