"""Envelope addresses as values. Reading them from the wire is protocols.envelope's work."""

from popgate.values.value import value


@value
class MailAddress:
    """`local`, as the client wrote it without quotes, and `domain` in lower case.

    `domain` is "" only for `<Postmaster>` (RFC 5321 4.1.1.3) and for names typed without one.
    `str()` is the form for the wire between angle brackets, quoted where RFC 5321 asks.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        local = self.local
        if not _is_dot_string(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def is_ascii(self) -> bool:
        return self.local.isascii() and self.domain.isascii()


# RFC 5321 4.1.2 Dot-string = Atom *("." Atom); RFC 6531 3.3 adds UTF8-non-ascii to atext
_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~")


def _is_dot_string(local: str) -> bool:
    for atom in local.split("."):
        if not atom or not (
            _ATEXT.issuperset(atom) or all(char in _ATEXT or ord(char) > 127 for char in atom)
        ):
            return False
    return True
