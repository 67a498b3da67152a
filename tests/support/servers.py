"""Fixtures of real servers: a Postfix as smart host, a Dovecot as reader of mailboxes."""

from collections.abc import Iterator

import pytest

from support.dovecot import Dovecot
from support.postfix import Postfix


@pytest.fixture(scope="session")
def _postfix() -> Iterator[Postfix]:
    with Postfix() as server:
        yield server


@pytest.fixture
def smarthost(_postfix: Postfix) -> Postfix:
    """Debian's Postfix on loopback ports, its inbox empty."""
    _postfix.forget()
    return _postfix


@pytest.fixture(scope="session")
def _dovecot() -> Iterator[Dovecot]:
    with Dovecot({"reader@example.org": "reader-secret", "second@example.org": "second-secret"}) as server:
        yield server


@pytest.fixture
def dovecot(_dovecot: Dovecot) -> Dovecot:
    """Debian's Dovecot, POP3 and IMAP on loopback ports, its mailboxes empty."""
    _dovecot.forget()
    return _dovecot
