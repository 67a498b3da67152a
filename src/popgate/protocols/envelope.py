"""The one strict reader of envelope addresses and of the parameters of MAIL and RCPT.

Two programs that read one address differently are how relays are opened, so there is one
reading only: no source routes, no comments, no white space inside, no missing brackets, no
rewriting of `%` or `!`. What is not understood whole is refused. It knows the grammar and
nothing about who may send what to whom.
"""

import binascii
import re
import unicodedata
from functools import lru_cache

from popgate.values.address import AddressError, ClientAddress
from popgate.values.mail import MailAddress
from popgate.values.value import value


class EnvelopeError(ValueError):
    """What the client wrote is refused; `code`, `status` (RFC 3463) and `text` are the reply."""

    def __init__(self, code: int, status: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.status = status
        self.text = text


@value
class MailFrom:
    """MAIL FROM as it was read.

    `sender` is None for the null reverse-path. `size` is what SIZE announced, 0 when absent.
    `ret` is "", "FULL" or "HDRS"; `envid` is decoded. `submitter` is AUTH= decoded, "" when absent.
    """

    sender: MailAddress | None
    size: int = 0
    is_8bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    submitter: str = ""


@value
class RcptTo:
    """RCPT TO as it was read. `notify`: NOTIFY's keywords in upper case; `orcpt`: decoded
    ("rfc822;user@example.org"), "" when absent."""

    recipient: MailAddress
    notify: tuple[str, ...] = ()
    orcpt: str = ""


# RFC 5321 4.1.2, with UTF8-non-ascii added by RFC 6531 3.3:
#   Path         = "<" [ A-d-l ":" ] Mailbox ">"       (A-d-l, the source route, is refused)
#   Mailbox      = Local-part "@" ( Domain / address-literal )
#   Local-part   = Dot-string / Quoted-string
#   Dot-string   = Atom *("." Atom)
#   QcontentSMTP = qtextSMTP / quoted-pairSMTP
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\x80-\U0010ffff]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = r"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*"
_MAILBOX = rf'(?:({_DOT_STRING})|"({_QUOTED})")@(\[[^\[\]\s<>]*\]|[^\[\]\s<>@"(),:;\\]+)'
_MAIL = re.compile(rf"FROM:( ?)<(?:{_MAILBOX})?>( .*)?", re.IGNORECASE | re.ASCII | re.DOTALL)
_RCPT = re.compile(rf"TO:( ?)<(?:{_MAILBOX}|(postmaster))>( .*)?", re.IGNORECASE | re.ASCII | re.DOTALL)
_WHOLE_MAILBOX = re.compile(_MAILBOX, re.ASCII)

# RFC 5321 4.1.2 Domain = sub-domain *("." sub-domain); sub-domain = Let-dig [Ldh-str]
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ULABEL = re.compile(r"[a-z0-9\x80-\U0010ffff](?:[a-z0-9\-\x80-\U0010ffff]*[a-z0-9\x80-\U0010ffff])?")
# inet_aton reads such names as addresses, so the next hop may
_NUMBER_AT_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

# RFC 5321 4.5.3.1.3. The limit of 64 octets for a local part (4.5.3.1.1) is not enforced: the bounce
# addresses of large senders are longer, and refusing them would lose good mail.
MAX_PATH = 256
MAX_ENVID = 100  # RFC 3461 4.4
MAX_ORCPT = 500  # RFC 3461 4.2


def read_mail(argument: bytes, *, tolerant: bool = False) -> MailFrom:
    """Read what follows `MAIL `. Raises EnvelopeError. `tolerant` lets one space follow the colon."""
    found = _MAIL.fullmatch(_text(argument))
    if found is None:
        raise EnvelopeError(501, "5.1.7", "syntax: MAIL FROM:<address> [parameters]")
    space, dots, quoted, domain, tail = found.groups()
    if space and not tolerant:
        raise EnvelopeError(501, "5.5.4", "syntax: no space between FROM: and <")
    sender = None
    if domain is not None:
        try:
            sender = _address(dots, quoted, domain)
        except ValueError as error:
            raise EnvelopeError(501, "5.1.7", f"bad sender address: {error}") from None
    # most commands carry no parameters
    command = _mail_parameters(sender, tail) if tail else MailFrom(sender)
    if sender is not None and not command.smtputf8 and not sender.is_ascii:
        raise EnvelopeError(553, "5.6.7", "an address with non-ASCII characters needs SMTPUTF8")
    return command


def read_rcpt(argument: bytes, *, smtputf8: bool, tolerant: bool = False) -> RcptTo:
    """Read what follows `RCPT `; `smtputf8`: what MAIL declared. Raises EnvelopeError."""
    found = _RCPT.fullmatch(_text(argument))
    if found is None:
        if argument[3:].lstrip().startswith(b"<@"):  # RFC 5321 appendix C
            raise EnvelopeError(553, "5.1.3", "source routes are not accepted")
        raise EnvelopeError(501, "5.1.3", "syntax: RCPT TO:<address> [parameters]")
    space, dots, quoted, domain, postmaster, tail = found.groups()
    if space and not tolerant:
        raise EnvelopeError(501, "5.5.4", "syntax: no space between TO: and <")
    if postmaster:
        recipient = MailAddress("postmaster", "")  # RFC 5321 4.1.1.3
    else:
        try:
            recipient = _address(dots, quoted, domain)
        except ValueError as error:
            raise EnvelopeError(501, "5.1.3", f"bad recipient address: {error}") from None
    if not smtputf8 and not recipient.is_ascii:
        raise EnvelopeError(553, "5.6.7", "an address with non-ASCII characters needs SMTPUTF8")
    return _rcpt_parameters(recipient, tail, smtputf8=smtputf8) if tail else RcptTo(recipient)


def read_address(text: str) -> MailAddress:
    """Read one bare `local@domain`. Raises EnvelopeError."""
    found = _WHOLE_MAILBOX.fullmatch(text)
    if found is None:
        raise EnvelopeError(501, "5.1.3", "that is not a mail address")
    try:
        return _address(*found.groups())
    except ValueError as error:
        raise EnvelopeError(501, "5.1.3", str(error)) from None


def decode_xtext(text: str) -> str | None:
    """RFC 3461 4: xtext, or None when it is malformed or holds anything but printable ASCII."""
    if "+" not in text:
        return text if _XCHARS.fullmatch(text) else None
    if not _XTEXT.fullmatch(text):
        return None
    decoded = _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), text)
    # a line break or other control character must not come in by encoding
    return decoded if decoded.isascii() and decoded.isprintable() else None


# RFC 3461 4: xchar = any ASCII CHAR between "!" and "~" except "+" and "="; hexchar = "+" 2HEXDIG
_XCHARS = re.compile(r"[!-*,-<>-~]*")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")


def _text(argument: bytes) -> str:
    try:
        return argument.decode("utf-8")
    except UnicodeDecodeError:
        raise EnvelopeError(501, "5.5.2", "addresses and parameters are ASCII or UTF-8") from None


def _address(dots: str | None, quoted: str | None, domain: str) -> MailAddress:
    """Raises ValueError with words for the client."""
    if dots is not None:
        local = dots
        written = len(dots) if dots.isascii() else len(dots.encode())
    else:
        assert quoted is not None
        local = re.sub(r"\\(.)", r"\1", quoted)
        if not local:
            raise ValueError("the local part is empty")
        written = len(quoted.encode())
    domain = _read_domain(domain)
    # octets in brackets, "@" and the quotes included
    if written + len(domain.encode()) + (3 if dots is not None else 5) > MAX_PATH:
        raise ValueError("the address is longer than 256 octets")
    if not local.isascii() and not _is_plain_text(local):
        raise ValueError("the local part holds characters that have no place in an address")
    return MailAddress(local, domain)


@lru_cache(maxsize=1024)  # bounded: the names come from the network
def _read_domain(text: str) -> str:
    """The domain in lower case and NFC. Raises ValueError."""
    if text.startswith("["):
        return _read_literal(text)
    domain = text.lower()
    if domain.isascii():
        if not _DOMAIN.fullmatch(domain):
            raise ValueError("the domain is not a host name")
    else:
        domain = unicodedata.normalize("NFC", domain)
        if not _is_plain_text(domain) or not all(map(_ULABEL.fullmatch, domain.split("."))):
            raise ValueError("the domain is not a host name")
    if _NUMBER_AT_END.fullmatch(domain):
        raise ValueError("the domain is a number; an address literal stands in square brackets")
    return domain


def _read_literal(text: str) -> str:
    # RFC 5321 4.1.3: IPv4, or "IPv6:" and IPv6; the general form has no tag registered
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            if ":" not in inner[5:]:
                raise ValueError("no IPv6 address stands after IPv6:")
            ClientAddress.parse(inner[5:])
            return f"[IPv6:{inner[5:].lower()}]"
        if ":" in inner:
            raise ValueError("an address literal is [a.b.c.d] or [IPv6:...]")
        return f"[{ClientAddress.parse(inner).text}]"
    except AddressError:
        raise ValueError("an address literal is [a.b.c.d] or [IPv6:...]") from None


def _is_plain_text(text: str) -> bool:
    """No control, format, separator or unassigned character, and no second kind of dot."""
    return all(
        char.isascii() or (unicodedata.category(char)[0] in "LMNS" and char not in "\u3002\uff0e\uff61")
        for char in text
    )


def _words(tail: str) -> list[tuple[str, str | None]]:
    # RFC 5321 4.1.2 esmtp-param = esmtp-keyword ["=" esmtp-value]
    words: list[tuple[str, str | None]] = []
    seen = set()
    for word in tail.split(" "):
        if not word:
            continue
        found = _PARAMETER.fullmatch(word)
        if found is None:
            raise EnvelopeError(501, "5.5.4", "a parameter is KEYWORD or KEYWORD=VALUE")
        keyword = found[1].upper()
        if keyword in seen:
            raise EnvelopeError(501, "5.5.4", f"{keyword} is given twice")
        seen.add(keyword)
        words.append((keyword, found[2]))
    return words


_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\U0010ffff]+))?")


def _mail_parameters(sender: MailAddress | None, tail: str) -> MailFrom:
    size, is_8bit, smtputf8, ret, envid, submitter = 0, False, False, "", "", ""
    for keyword, text in _words(tail):
        if keyword == "SIZE" and text and len(text) <= 20 and text.isascii() and text.isdigit():
            size = int(text)  # RFC 1870 4: 1*20DIGIT
        elif keyword == "BODY" and text and text.upper() in ("7BIT", "8BITMIME"):
            is_8bit = text.upper() == "8BITMIME"  # RFC 6152 2; BINARYMIME is not offered
        elif keyword == "SMTPUTF8" and text is None:
            smtputf8 = True  # RFC 6531 3.4
        elif keyword == "RET" and text and text.upper() in ("FULL", "HDRS"):
            ret = text.upper()  # RFC 3461 4.3
        elif keyword == "ENVID" and text and len(text) <= MAX_ENVID and (decoded := decode_xtext(text)):
            envid = decoded  # RFC 3461 4.4
        elif keyword == "AUTH" and text and (decoded := decode_xtext(text)):
            submitter = _read_submitter(decoded)  # RFC 4954 5
        elif keyword in ("SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"):
            raise EnvelopeError(501, "5.5.4", f"bad value of {keyword}")
        else:
            raise EnvelopeError(555, "5.5.4", f"unknown parameter {keyword}")
    return MailFrom(sender, size, is_8bit, smtputf8, ret, envid, submitter)


def _read_submitter(text: str) -> str:
    if text != "<>":
        try:
            read_address(text)
        except EnvelopeError:
            raise EnvelopeError(501, "5.5.4", "bad value of AUTH") from None
    return text


def _rcpt_parameters(recipient: MailAddress, tail: str, *, smtputf8: bool) -> RcptTo:
    notify: tuple[str, ...] = ()
    orcpt = ""
    for keyword, text in _words(tail):
        if keyword == "NOTIFY" and text:
            notify = _read_notify(text)
        elif keyword == "ORCPT" and text and len(text.encode()) <= MAX_ORCPT:
            orcpt = _read_orcpt(text, smtputf8=smtputf8)
        elif keyword in ("NOTIFY", "ORCPT"):
            raise EnvelopeError(501, "5.5.4", f"bad value of {keyword}")
        else:
            raise EnvelopeError(555, "5.5.4", f"unknown parameter {keyword}")
    return RcptTo(recipient, notify, orcpt)


def _read_notify(text: str) -> tuple[str, ...]:
    # RFC 3461 4.1: "NEVER", or a list of the others
    words = tuple(text.upper().split(","))
    if words == ("NEVER",) or (
        len(set(words)) == len(words) and {"SUCCESS", "FAILURE", "DELAY"}.issuperset(words)
    ):
        return words
    raise EnvelopeError(501, "5.5.4", "bad value of NOTIFY")


def _read_orcpt(text: str, *, smtputf8: bool) -> str:
    # RFC 3461 4.2: original-recipient-address = addr-type ";" xtext; RFC 6533 3 for type utf-8
    kind, separator, address = text.partition(";")
    if separator and address and _ADDRESS_TYPE.fullmatch(kind):
        if smtputf8 and kind.lower() == "utf-8" and not address.isascii() and _is_plain_text(address):
            return text
        decoded = decode_xtext(address)
        if decoded:
            return f"{kind};{decoded}"
    raise EnvelopeError(501, "5.5.4", "bad value of ORCPT")


_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+")


def encode_xtext(text: str) -> str:
    """RFC 3461 4: the xtext form of printable ASCII text, for sending ENVID and ORCPT on."""
    if _XCHARS.fullmatch(text):
        return text
    return "".join(
        char if _XCHARS.fullmatch(char) else "+" + binascii.hexlify(char.encode()).decode().upper()
        for char in text
    )
