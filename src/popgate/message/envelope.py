"""The ENVELOPE of a message from its header (RFC 9051 7.5.2). Never fails, whatever the header."""

from popgate.message import header as fields
from popgate.message.addresses import addresses
from popgate.message.part import Address, Envelope

_ADDRESSES = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
_TEXTS = (b"date", b"subject", b"in-reply-to", b"message-id")
_WANTED = frozenset(_ADDRESSES + _TEXTS)


def envelope(header: bytes) -> Envelope:
    """What the fields of `header` say; encoded words stay."""
    texts: dict[bytes, str] = {}
    lists: dict[bytes, tuple[Address, ...]] = {}
    for name, raw in fields.fields(header):
        key = name.lower()
        if key not in _WANTED:
            continue
        value = fields.text(fields.unfold(raw[raw.find(b":") + 1 :]))
        if key in _TEXTS:
            texts.setdefault(key, value)
        else:
            lists[key] = lists.get(key, ()) + addresses(value)
    from_ = lists.get(b"from", ())
    return Envelope(
        texts.get(b"date"),
        texts.get(b"subject"),
        from_,
        # RFC 9051 7.5.2: the server must not leave these empty where there is a From
        lists.get(b"sender") or from_,
        lists.get(b"reply-to") or from_,
        lists.get(b"to", ()),
        lists.get(b"cc", ()),
        lists.get(b"bcc", ()),
        texts.get(b"in-reply-to"),
        texts.get(b"message-id"),
    )
