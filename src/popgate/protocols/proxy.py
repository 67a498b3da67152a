"""The PROXY protocol, versions 1 and 2: who the client behind a load balancer is.

Grants hang on the client's address, so a header that could be read in two ways is refused, and
so is one that is merely odd. Only the addresses are believed: what TLVs say of TLS, of client
certificates or of names is checked for shape and then dropped, because the balancer's word is no
login. Whether a peer may or must send a header at all is its caller's business, as are the
deadline and the end of file before the header is complete.

Specification: HAProxy's proxy-protocol.txt, sections 2.1 (version 1) and 2.2 (version 2).
"""

import re
from typing import NoReturn

from popgate.protocols.engine import MisuseError
from popgate.values.address import AddressError, ClientAddress
from popgate.values.value import value

MAX_V1_OCTETS = 107
MAX_V2_OCTETS = 536
"""The header of 16 octets and 520 more: the largest address block (216) and 304 of TLVs."""

_V1_PREFIX = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEADER_OCTETS = 16

# Family and transport, with the octets of its address block: 2.2, "all other values must be rejected"
_V2_BLOCKS = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
_STREAM_INET, _STREAM_INET6 = 0x11, 0x21
_DATAGRAMS = frozenset({0x12, 0x22, 0x32})

_TLV_CRC32C, _TLV_UNIQUE_ID, _TLV_SSL = 0x03, 0x05, 0x20
_TLV_MOST = {_TLV_UNIQUE_ID: 128}
_SSL_HEAD_OCTETS = 5

# 2.1: decimal without leading zeros, 0 to 65535
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")


class ProxyError(Exception):
    """The header is missing or malformed: close the connection. The text is for the log."""


@value
class ProxyHeader:
    """What a header says. `source` is None where it names no address that counts: the caller
    then uses the real peer. `local`: the balancer speaks for itself (a health check).
    `rest`: octets behind the header, the client's first."""

    source: ClientAddress | None
    source_port: int
    local: bool
    rest: bytes


class ProxyParser:
    """Reads one header from the start of a connection.

    Feed it until `result` is there. Whatever is refused is refused at its first wrong octet, and
    nothing is kept beyond the largest header.
    """

    __slots__ = ("_buffer", "_error", "_most_v2", "result")

    def __init__(self, max_v2_octets: int = MAX_V2_OCTETS) -> None:
        self._buffer = b""
        self._most_v2 = max_v2_octets
        self._error: ProxyError | None = None
        self.result: ProxyHeader | None = None

    def feed(self, data: bytes) -> None:
        """Take octets from the peer. Raises ProxyError, again for everything fed after it."""
        if self.result is not None:
            raise MisuseError("the header is complete")
        if self._error is not None:
            raise self._error
        self._buffer += data
        try:
            self.result = self._read(self._buffer)
        except ProxyError as error:
            self._error = error
            raise
        finally:
            if self.result is not None or self._error is not None:
                self._buffer = b""

    def _read(self, data: bytes) -> ProxyHeader | None:
        if data.startswith(_V1_PREFIX):
            return self._read_v1(data)
        if data.startswith(_V2_SIGNATURE):
            return self._read_v2(data)
        if _V1_PREFIX.startswith(data) or _V2_SIGNATURE.startswith(data):
            return None
        raise ProxyError("no PROXY header where one is due")

    def _read_v1(self, data: bytes) -> ProxyHeader | None:
        end = data.find(b"\r\n", 0, MAX_V1_OCTETS)
        if end < 0:
            line = data[:MAX_V1_OCTETS]
            # A CR may still get its LF
            if not (line[:-1] if line.endswith(b"\r") else line).isascii() or b"\n" in line:
                raise ProxyError("version 1: the line does not end in CR LF")
            if len(data) >= MAX_V1_OCTETS:
                raise ProxyError(f"version 1: no line end in {MAX_V1_OCTETS} octets")
            return None
        line = data[:end]
        if not line.isascii() or not line.decode("ascii").isprintable():
            raise ProxyError("version 1: the line holds other octets than text")
        source, port = _read_v1_fields(line.split(b" "))
        return ProxyHeader(source, port, local=False, rest=data[end + 2 :])

    def _read_v2(self, data: bytes) -> ProxyHeader | None:
        if len(data) > 12 and data[12] not in (0x20, 0x21):
            raise ProxyError(f"version 2: version and command 0x{data[12]:02x}")
        if len(data) < _V2_HEADER_OCTETS:
            return None
        total = _V2_HEADER_OCTETS + int.from_bytes(data[14:16], "big")
        if total > self._most_v2:
            raise ProxyError(f"version 2: a header of {total} octets")
        is_local, family = data[12] == 0x20, data[13]
        if not is_local:
            if family not in _V2_BLOCKS:
                raise ProxyError(f"version 2: family and transport 0x{family:02x}")
            if family in _DATAGRAMS:
                raise ProxyError("version 2: datagrams on a stream")
            if total - _V2_HEADER_OCTETS < _V2_BLOCKS[family]:
                raise ProxyError("version 2: shorter than its addresses")
        if len(data) < total:
            return None
        rest = data[total:]
        if is_local:
            # 2.2: accept, use the real endpoints, discard the block and the family
            return ProxyHeader(None, 0, local=True, rest=rest)
        block_end = _V2_HEADER_OCTETS + _V2_BLOCKS[family]
        if family:  # after UNSPEC, 2.2 has everything skipped
            _check_tlvs(data[:total], block_end)
        if family == _STREAM_INET:
            return ProxyHeader(ClientAddress(data[16:20]), _port(data[24:26]), local=False, rest=rest)
        if family == _STREAM_INET6:
            return ProxyHeader(ClientAddress(data[16:32]), _port(data[48:50]), local=False, rest=rest)
        return ProxyHeader(None, 0, local=False, rest=rest)


def _port(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _read_v1_fields(fields: list[bytes]) -> tuple[ClientAddress | None, int]:
    # 2.1: "PROXY" family source destination source-port destination-port, one space between them
    family = fields[1]
    if family == b"UNKNOWN":
        return None, 0  # 2.1: what follows on the line is ignored
    if family not in (b"TCP4", b"TCP6"):
        raise ProxyError("version 1: the family is not TCP4, TCP6 or UNKNOWN")
    if len(fields) != 6:
        raise ProxyError("version 1: two addresses and two ports are needed")
    for field in fields[2:4]:
        if (b":" in field) is not (family == b"TCP6"):
            raise ProxyError(f"version 1: an address that is not of {family.decode()}")
    for field in fields[4:]:
        if not _PORT.fullmatch(field) or int(field) > 65535:
            raise ProxyError("version 1: a port is 0 to 65535 without leading zeros")
    try:
        source = ClientAddress.parse(fields[2].decode("ascii"))
        ClientAddress.parse(fields[3].decode("ascii"))
    except AddressError as error:
        raise ProxyError(f"version 1: {error}") from None
    return source, int(fields[4])


def _check_tlvs(header: bytes, start: int) -> None:
    """Walk the TLVs behind the addresses: each must fit, and a checksum must be right."""
    for kind, at, length in _tlvs(header, start, len(header)):
        if length > _TLV_MOST.get(kind, length):
            _refuse_tlv(kind)
        if kind == _TLV_SSL:
            if length < _SSL_HEAD_OCTETS:
                _refuse_tlv(kind)
            _tlvs(header, at + _SSL_HEAD_OCTETS, at + length)
        elif kind == _TLV_CRC32C:
            if length != 4:
                _refuse_tlv(kind)
            # 2.2.4: computed with the field's own octets zero
            blanked = header[:at] + b"\0\0\0\0" + header[at + 4 :]
            if _crc32c(blanked) != int.from_bytes(header[at : at + 4], "big"):
                raise ProxyError("version 2: wrong checksum")


def _tlvs(header: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """Kind, place of the value and its length of each TLV between `start` and `end`."""
    found = []
    while start < end:
        if end - start < 3:
            raise ProxyError("version 2: octets left over behind the TLVs")
        length = int.from_bytes(header[start + 1 : start + 3], "big")
        if length > end - start - 3:
            raise ProxyError("version 2: a TLV runs over the end")
        found.append((header[start], start + 3, length))
        start += 3 + length
    return found


def _refuse_tlv(kind: int) -> NoReturn:
    raise ProxyError(f"version 2: TLV 0x{kind:02x} has a wrong length")


def _crc32c_table() -> list[int]:
    table = []
    for number in range(16):
        for _ in range(4):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_CRC32C = _crc32c_table()  # Castagnoli's polynomial, reflected, half an octet at a time


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        crc = crc >> 4 ^ _CRC32C[crc & 15]
        crc = crc >> 4 ^ _CRC32C[crc & 15]
    return crc ^ 0xFFFFFFFF
