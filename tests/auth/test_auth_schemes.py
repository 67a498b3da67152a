"""Stored passwords in Dovecot's notation, against what Dovecot itself writes."""

import base64
import hashlib
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.auth.schemes import SchemeError, read_stored_password

PASSWORD = "pass word: ünïcode"

# Made with doveadm pw; each is a hash of "pass word".
KNOWN = {
    "ARGON2ID": "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$xfiIpR1caddcN7v9B4jHBw"
    "$1HIS8MuKsNLfFlIVrUeL/MlfXEfmDhLf/MQ4Qw125DA",
    "BLF-CRYPT": "{BLF-CRYPT}$2y$05$ihurS8jK0hs1ElHM6cuyCeLJog7/IRaUNFSe3.6vohod43rzkufGu",
    "BCRYPT": "{BCRYPT}$2y$05$ihurS8jK0hs1ElHM6cuyCeLJog7/IRaUNFSe3.6vohod43rzkufGu",
    "SHA512-CRYPT": "{SHA512-CRYPT}$6$8D6tSOuIfTCGfxhj$RckkucN31yEKiq66QBIiHLRojAskB3NccKd7ZqWMCdas9lhZkLfD"
    "cOpJfIJUyNch/sE42D3/FAA12kxv2PJqS0",
    "SHA256-CRYPT": "{SHA256-CRYPT}$5$clZoCdgrjVknOrKR$G25bc1zllrtWl8oclSv0wCpFPoHIN1oFN1HNhnYGja0",
    "SSHA512": "{SSHA512}ykHrf2aVSE9iPPqWBVPwqlz7AbxKpOEUvIiY2PjW+R5o8wp5mcw7e/+GchrK0brJN/lJV6HHQgbwPseOv"
    "mr2BX7JV7Q=",
    "PLAIN": "{PLAIN}pass word",
    "bare $2y$": "$2y$05$MgJwYz66JoLaGY5avp1c8eNM3931iP/yupaZuF5bVW6YWRQ6WixMe",
    "bare $5$": "$5$clZoCdgrjVknOrKR$G25bc1zllrtWl8oclSv0wCpFPoHIN1oFN1HNhnYGja0",
    "CRYPT": "{CRYPT}$2y$05$MgJwYz66JoLaGY5avp1c8eNM3931iP/yupaZuF5bVW6YWRQ6WixMe",
    "lower case": "{plain}pass word",
    "PLAIN.b64": "{PLAIN.b64}" + base64.b64encode(b"pass word").decode(),
    "PLAIN.hex": "{PLAIN.HEX}" + b"pass word".hex(),
    "SSHA512.hex": "{SSHA512.hex}" + hashlib.sha512(b"pass wordsalt").hexdigest() + b"salt".hex(),
    "SSHA256": "{SSHA256}" + base64.b64encode(hashlib.sha256(b"pass wordsalt").digest() + b"salt").decode(),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_hashes(name):
    stored = read_stored_password(KNOWN[name])
    assert stored.verify(b"pass word")
    for wrong in (b"", b"pass Word", b"pass word ", b"pass word\0", b"\xff", b"x" * 1024):
        assert not stored.verify(wrong), wrong
    assert bool(stored.cost) == ("$" in KNOWN[name])
    assert (stored.secret is not None) == ("plain" in KNOWN[name].lower())


@pytest.mark.peer("dovecot-core")
@pytest.mark.skipif(shutil.which("doveadm") is None, reason="needs doveadm of dovecot-core")
@pytest.mark.parametrize(
    "scheme",
    [
        "ARGON2ID",
        "BLF-CRYPT",
        "SHA512-CRYPT",
        "SHA256-CRYPT",
        "SSHA512",
        "SSHA256",
        "PLAIN",
        "CRYPT",
        "SSHA512.HEX",
    ],
)
def test_what_doveadm_writes(scheme):
    made = subprocess.run(
        ["doveadm", "pw", "-s", scheme, "-p", PASSWORD], capture_output=True, text=True, check=True
    )
    stored = read_stored_password(made.stdout.rstrip("\n"))
    assert stored.verify(PASSWORD.encode())
    assert not stored.verify(PASSWORD.upper().encode())


def test_bcrypt_reads_72_bytes_as_dovecot_does():
    import bcrypt

    stored = read_stored_password("{BLF-CRYPT}" + bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode())
    assert stored.verify(b"x" * 100)
    assert not stored.verify(b"x" * 71)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "{PLAIN}",
        "{MD5}abc",
        "{}x",
        "{ARGON2ID}",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$",
        "{ARGON2ID}\udc80",
        "{BLF-CRYPT}$2y$99$" + "a" * 53,
        "{BLF-CRYPT}$2y$05$short",
        "{SHA512-CRYPT}$6$salt",
        "{SHA512-CRYPT}$5$x$y",
        "{SHA512-CRYPT}",
        "{SSHA512}AAAA",
        "{SSHA512}***",
        "{SSHA512.rot13}AAAA",
        "$1$salt$hash",
        "{PLAIN.b64}!",
        "{PLAIN.hex}0",
        "{CRYPT}xy1234567890.",
        "{SSHA512}" + base64.b64encode(b"x" * 64).decode(),
    ],
)
def test_unusable_ones_say_what_would_be_right(text):
    with pytest.raises(SchemeError) as caught:
        read_stored_password(text)
    assert len(str(caught.value)) > 10


@given(
    st.text(max_size=80)
    | st.sampled_from(sorted(KNOWN.values())).flatmap(
        lambda known: st.integers(0, len(known)).map(lambda cut: known[:cut] + "\udc99" + known[cut:])
    )
)
def test_no_text_raises_anything_else(text):
    try:
        stored = read_stored_password(text)
    except SchemeError:
        return
    if not stored.cost:
        stored.verify(b"x")
