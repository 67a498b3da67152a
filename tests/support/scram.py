"""A SCRAM-SHA-256 client (RFC 5802, RFC 7677), written from the RFC and sharing nothing with the server."""

import base64
import hashlib
import hmac
from collections.abc import Callable


class ScramClient:
    """`first` is the client-first-message; `final` answers the server's, and `believes` checks its end."""

    def __init__(
        self, name: str, password: str, nonce: str = "rOprNGfwEbeRWgbNEkqO", gs2: str = "n,,"
    ) -> None:
        self._password = password.encode()
        self._nonce = nonce
        self._gs2 = gs2
        self._bare = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self.first = (gs2 + self._bare).encode()
        self.salt = b""
        self.iterations = 0

    def final(self, server_first: bytes, *, change: Callable[[bytes], bytes] = lambda proof: proof) -> bytes:
        fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
        assert fields["r"].startswith(self._nonce) and len(fields["r"]) >= len(self._nonce) + 16
        self.salt, self.iterations = base64.b64decode(fields["s"]), int(fields["i"])
        salted = hashlib.pbkdf2_hmac("sha256", self._password, self.salt, self.iterations)
        key = hmac.new(salted, b"Client Key", "sha256").digest()
        binding = base64.b64encode(self._gs2.encode()).decode()
        unproven = f"c={binding},r={fields['r']}".encode()
        said = b",".join((self._bare.encode(), server_first, unproven))
        signature = hmac.new(hashlib.sha256(key).digest(), said, "sha256").digest()
        proof = change(bytes(one ^ other for one, other in zip(key, signature, strict=True)))
        server_key = hmac.new(salted, b"Server Key", "sha256").digest()
        self._wanted = b"v=" + base64.b64encode(hmac.new(server_key, said, "sha256").digest())
        return unproven + b",p=" + base64.b64encode(proof)

    def believes(self, server_final: bytes) -> bool:
        return server_final == self._wanted
