"""APOP and CRAM-MD5 against the examples of their RFCs, and what a login costs to share."""

import pytest

from popgate.auth.proofs import is_apop_proof, is_cram_md5_proof


def test_apop_example_of_rfc_1939():
    challenge = b"<1896.697170952@dbc.mtview.ca.us>"
    assert is_apop_proof(b"c4c9334bac560ecc979e58001b3e22fb", challenge, b"tanstaaf")
    assert not is_apop_proof(b"C4C9334BAC560ECC979E58001B3E22FB", challenge, b"tanstaaf")
    assert not is_apop_proof(b"c4c9334bac560ecc979e58001b3e22fb", challenge, b"tanstaaf ")


def test_cram_md5_example_of_rfc_2195():
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert is_cram_md5_proof(b"b913a602c7eda7a495b4e6e7334d3890", challenge, b"tanstaaftanstaaf")
    assert not is_cram_md5_proof(b"B913A602C7EDA7A495B4E6E7334D3890", challenge, b"tanstaaftanstaaf")
    assert not is_cram_md5_proof(b"b913a602c7eda7a495b4e6e7334d3890", challenge, b"tanstaaf")


@pytest.mark.parametrize("digest", [b"", b"\xff" * 32, b"c4c9334bac560ecc979e58001b3e22f", "é".encode() * 16])
def test_any_bytes_are_only_wrong(digest):
    assert not is_apop_proof(digest, b"<c>", b"secret")
    assert not is_cram_md5_proof(digest, b"<c>", b"secret")
