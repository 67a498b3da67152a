"""The proofs that SASL brings, asked of the authenticator: the same for every mail protocol."""

from popgate.auth.authenticator import Authenticator, MaybeLater, ScramAuthenticator
from popgate.protocols.sasl import Credentials, PlainCredentials, ScramCredentials


def check(authenticator: Authenticator, credentials: Credentials) -> MaybeLater:
    """Whether the proof is right."""
    if type(credentials) is PlainCredentials:
        return authenticator.check_password(credentials.name, credentials.password)
    if type(credentials) is ScramCredentials:
        assert isinstance(authenticator, ScramAuthenticator)  # or the engine would not offer it
        return authenticator.check_scram(credentials.name, credentials.keys, is_proven=credentials.is_proven)
    assert not isinstance(credentials, PlainCredentials | ScramCredentials)
    return authenticator.check_cram_md5(credentials.name, credentials.challenge, credentials.digest)


def mechanism_of(credentials: Credentials) -> str:
    """Its name, for events; of a command that takes a password, the command's."""
    if type(credentials) is PlainCredentials:
        return credentials.mechanism
    return "SCRAM-SHA-256" if type(credentials) is ScramCredentials else "CRAM-MD5"
