"""Delays for failed logins.

What counts, each with a score that a failure raises and time lowers by half every few minutes:

- pair: one name from one address, a person or a device with a wrong password;
- address, subnet (/24, /64) and site (IPv6 /48): somebody who tries many names;
- name: many addresses that try one name. It only slows failed logins down, never the check of
  a proof: strangers must not be able to lock an owner out.

A success forgives what that same name failed from that same address, and nothing else. So a
typing error is forgotten, while somebody who tries lists of stolen passwords cannot wipe the
slate by logging in to an account of his own in between.

The scores live in tables of fixed size over one buffer, which several processes may share (an
anonymous shared mapping): one aligned 64-bit word a slot, read and written whole. Two
processes that write one slot in the same instant lose one count, never more. A key scatters
the entries, four places to each; a full set gives up the smallest score. So no flood makes the
tables grow, a million new subnets push each other out and not those with many failures, and
nobody is counted under another's score but by a chance of one in 2^22.
"""

import math
import secrets
import struct
from functools import lru_cache
from hashlib import blake2b

from popgate.auth.settings import AuthSettings
from popgate.values.address import ClientAddress
from popgate.values.clock import Clock

MAX_DELAY_SECONDS = 30.0
HALF_LIFE_SECONDS = 300.0
SLOTS = 65_536  # of each of the five tables, 8 bytes a slot
_WAYS = 4
_read_set = struct.Struct(f"@{_WAYS}Q").unpack_from  # word by word
_EMPTY_SET = (0,) * _WAYS
_PLACES = 4096
_KINDS = 5
_PAIR, _ADDRESS, _SUBNET, _SITE, _NAME = range(_KINDS)
_LAST = _KINDS * SLOTS  # the word behind the tables: when anything failed last
BUFFER_BYTES = (_LAST + 1) * 8

# One failure counts as much as this in each table; at a score of 1 the first delay is due. An
# address behind which a whole office sits, or a subnet of many customers, has more patience.
_WEIGHT = {_PAIR: 1.0, _ADDRESS: 1.0, _SUBNET: 1 / 8, _SITE: 1 / 32, _NAME: 1 / 2}
# More than this brings no longer delay, and would only make the penalty last longer.
_MAX_SCORE = 12.0
# Beyond this score a pair no longer counts against its address and subnet: one device with an
# outdated password that polls all day must not delay everybody around it.
_PAIR_SHARE = 4.0
# After so long without any failure no score is left that would delay anything.
_CALM_TICKS = int(8 * HALF_LIFE_SECONDS * 10)
# From this score on even the check of a proof waits (see wait_before_seconds).
_PATIENCE = 5.0

# A slot: 22 bits of tag, 26 bits of time in tenths of a second (77 days), 16 bits of score.
_TAG_BITS, _TIME_BITS, _SCORE_BITS = 22, 26, 16
_TIME_MASK = (1 << _TIME_BITS) - 1
_SCORE_MASK = (1 << _SCORE_BITS) - 1
_SCORE_UNIT = 4096.0  # 12 x 4096 fits 16 bits
_TICKS = 10.0


class Throttle:
    """Counts failed logins and says how long the next answer must wait.

    Processes that share the counts pass the same `buffer` (BUFFER_BYTES writable bytes, zero at
    the start) and the same `key`, and clocks whose `monotonic` agree. A session calls `failed`,
    then `delay_seconds`, and answers that much later. Never raises, never blocks: about 20 us.
    """

    def __init__(
        self,
        settings: AuthSettings,
        clock: Clock,
        buffer: memoryview | bytearray | None = None,
        key: bytes | None = None,
    ) -> None:
        view = memoryview(buffer if buffer is not None else bytearray(BUFFER_BYTES))
        if view.nbytes < BUFFER_BYTES or view.readonly:
            raise ValueError(f"the throttle needs {BUFFER_BYTES} writable bytes")
        self._slots = view.cast("B")[:BUFFER_BYTES].cast("Q")
        self._clock = clock
        self._first_seconds = settings.failure_delay_seconds
        key = key if key is not None else secrets.token_bytes(32)
        # Copied for each look-up: the key is set up once.
        self._keyed = [blake2b(key=key, digest_size=8, person=b"%d" % kind) for kind in range(_KINDS)]
        # Those who poll come again, so where they are counted is remembered, of at most so many.
        self._find = lru_cache(maxsize=_PLACES)(self._place)

    def failed(self, client: ClientAddress, name: str) -> None:
        """A login failed."""
        tick = self._tick()
        self._slots[_LAST] = tick + 1
        pair = self._add(self._place(_PAIR, _pair(client, name)), _WEIGHT[_PAIR], tick)
        if pair <= _PAIR_SHARE:
            self._add(self._place(_ADDRESS, client.packed), _WEIGHT[_ADDRESS], tick)
            self._add(self._place(_SUBNET, _subnet(client)), _WEIGHT[_SUBNET], tick)
            if client.is_ipv6:
                self._add(self._place(_SITE, client.packed[:6]), _WEIGHT[_SITE], tick)
        self._add(self._place(_NAME, _name(name)), _WEIGHT[_NAME], tick)

    def succeeded(self, client: ClientAddress, name: str) -> None:
        """A login was right: forgive what this name failed from this address."""
        tick = self._tick()
        if self._is_calm(tick):
            return
        place = self._find(_PAIR, _pair(client, name))
        pair = self._score(place, tick)
        if pair <= 0.0:
            return
        self._add(place, -pair, tick)
        self._add(self._find(_ADDRESS, client.packed), -min(pair, _PAIR_SHARE), tick)

    def delay_seconds(self, client: ClientAddress, name: str) -> float:
        """How long the answer to a login that failed now must wait; 0.0 without recent failures."""
        tick = self._tick()
        return self._delay(
            max(self._from(client, name, tick), self._score(self._find(_NAME, _name(name)), tick))
        )

    def wait_before_seconds(self, client: ClientAddress, name: str) -> float:
        """How long to wait before a proof is even looked at: 0.0 but for an address (with its subnet),
        or a name from this address, that failed many times in the last minutes.

        Without it somebody could open connections without end, take each one that does not
        answer at once as a failure and hang up: no delay after the check holds him.
        """
        tick = self._tick()
        if self._is_calm(tick):
            return 0.0
        score = self._from(client, name, tick)
        return self._delay(score - _PATIENCE + 1.0) if score >= _PATIENCE else 0.0

    def _is_calm(self, tick: int) -> bool:
        """Nobody failed lately, so nothing has to be looked up."""
        last = self._slots[_LAST]
        return not last or (tick - (last - 1)) & _TIME_MASK > _CALM_TICKS

    def _from(self, client: ClientAddress, name: str, tick: int) -> float:
        score = max(
            self._score(self._find(_PAIR, _pair(client, name)), tick),
            self._score(self._find(_ADDRESS, client.packed), tick),
            self._score(self._find(_SUBNET, _subnet(client)), tick),
        )
        if client.is_ipv6:
            score = max(score, self._score(self._find(_SITE, client.packed[:6]), tick))
        return score

    def _delay(self, score: float) -> float:
        # The score has lost a little since the failure; an eighth of a point is not worth a step.
        steps = math.floor(score + 0.125)
        if steps < 1:
            return 0.0
        return min(math.ldexp(self._first_seconds, steps - 1), MAX_DELAY_SECONDS)

    def _tick(self) -> int:
        return int(self._clock.monotonic() * _TICKS) & _TIME_MASK

    def _place(self, kind: int, what: bytes) -> tuple[int, int]:
        """The first slot of the set in which `what` is counted, and its tag."""
        mixed = self._keyed[kind].copy()
        mixed.update(what)
        number = int.from_bytes(mixed.digest(), "big")
        sets = SLOTS // _WAYS
        tag = (number >> 40) % ((1 << _TAG_BITS) - 1) + 1  # never 0: an empty slot is all zero
        return kind * SLOTS + number % sets * _WAYS, tag

    def _score(self, place: tuple[int, int], tick: int) -> float:
        first, tag = place
        slots = _read_set(self._slots, first * 8)
        if slots != _EMPTY_SET:
            for slot in slots:
                if slot >> (_TIME_BITS + _SCORE_BITS) == tag:
                    return _faded(slot, tick)
        return 0.0

    def _add(self, place: tuple[int, int], weight: float, tick: int) -> float:
        """Change the score, in the slot that has it or in the one with least to lose; the new score."""
        first, tag = place
        slots = self._slots
        best, least = first, math.inf
        score = 0.0
        for index in range(first, first + _WAYS):
            slot = slots[index]
            faded = _faded(slot, tick)
            if slot >> (_TIME_BITS + _SCORE_BITS) == tag:
                best, score = index, faded
                break
            if faded < least:
                best, least = index, faded
        score = min(max(score + weight, 0.0), _MAX_SCORE)
        word = round(score * _SCORE_UNIT)
        slots[best] = (tag << _TIME_BITS | tick) << _SCORE_BITS | word if word else 0
        return score


def _faded(slot: int, tick: int) -> float:
    if not slot:
        return 0.0
    age = (tick - (slot >> _SCORE_BITS)) & _TIME_MASK
    if age > _TIME_MASK - 600:
        age = 0  # written an instant later than we looked at the clock, by another process
    return (slot & _SCORE_MASK) / _SCORE_UNIT * math.exp2(-age / (HALF_LIFE_SECONDS * _TICKS))


def _pair(client: ClientAddress, name: str) -> bytes:
    return client.packed + b"\0" + _name(name)


def _subnet(client: ClientAddress) -> bytes:
    return client.packed[:8] if client.is_ipv6 else client.packed[:3]


def _name(name: str) -> bytes:
    return name[:320].lower().encode("utf-8", "surrogatepass")
