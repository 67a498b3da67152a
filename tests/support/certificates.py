"""A certificate for localhost on the disk, and a client that trusts it."""

import ssl
from pathlib import Path

import trustme

from popgate.servers.settings import TlsSettings


class Certificates:
    """`settings` name the files below `directory`; `client_context` believes them."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(str(directory / "cert"))
        issued.private_key_pem.write_to_path(str(directory / "key"))
        self.settings = TlsSettings(certificate=str(directory / "cert"), key=str(directory / "key"))
        self.client_context = ssl.create_default_context()
        authority.configure_trust(self.client_context)
