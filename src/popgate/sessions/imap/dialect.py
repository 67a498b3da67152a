"""What a client has enabled, and so how it is spoken to."""


class Dialect:
    """RFC 5161 ENABLE and what enables by itself (RFC 7162 3.1)."""

    __slots__ = ("condstore", "is_rev2", "is_utf8", "qresync")

    def __init__(self) -> None:
        self.condstore = False
        self.qresync = False
        self.is_rev2 = False
        self.is_utf8 = False

    def enable(self, extensions: tuple[str, ...]) -> None:
        for extension in extensions:
            if extension == "IMAP4REV2":
                self.is_rev2 = self.is_utf8 = True
            elif extension == "UTF8=ACCEPT":
                self.is_utf8 = True
            elif extension == "CONDSTORE":
                self.condstore = True
            elif extension == "QRESYNC":
                self.condstore = self.qresync = True  # RFC 7162 3.2.3

    @property
    def tells_uid(self) -> bool:
        """Whether each unsolicited FETCH has the UID in it (RFC 7162 3.2.4, RFC 9051 7.5.2)."""
        return self.condstore or self.is_rev2
