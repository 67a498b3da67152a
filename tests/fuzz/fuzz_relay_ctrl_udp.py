"""A datagram is a login, an answer to be repeated, or refused; only with the key's signature is it a login.

The octets are also signed with the key, so that the reader behind the signature is reached.
"""

import hmac

from popgate.protocols.relay_ctrl_udp import PacketError, PeerLogin, Receiver, is_answer, signed_login
from popgate.values.address import ClientAddress
from support import fuzzing

KEY = b"the key of both machines"
HERE = ClientAddress.parse("127.0.0.1")
NOW = 1_000_000.0


def check(data: bytes) -> None:
    try:
        result = Receiver(KEY, (), 0).receive(data, HERE, NOW)
        assert isinstance(result, PeerLogin)
        assert data[-64:] == hmac.digest(KEY, data[:-64], "sha256").hex().encode()
    except PacketError:
        pass
    is_answer(data, "0" * 32, KEY)
    signed = data + hmac.digest(KEY, data, "sha256").hex().encode()
    try:
        login = Receiver(KEY, (), 0).receive(signed, HERE, NOW)
    except PacketError:
        return
    assert isinstance(login, PeerLogin) and len(login.nonce) == 32
    again = Receiver(KEY, (), 0).receive(signed_login(login, KEY), HERE, NOW)
    assert isinstance(again, PeerLogin)
    assert (again.address, again.user, again.domain) == (login.address, login.user, login.domain)


if __name__ == "__main__":
    fuzzing.main(check)
