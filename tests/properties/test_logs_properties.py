"""Log lines of any kind: nothing raises, blocks and lines tell the same; allowed expressions are quick."""

import json
import re
import time
from zoneinfo import ZoneInfo

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from popgate.integrations.logs import LoginSeen, Recogniser, Reference, read_line, shipped
from popgate.integrations.logs.expressions import ExpressionError, expression
from popgate.integrations.logs.pattern import GROUPS
from popgate.integrations.logs.pattern_files import shipped_examples
from popgate.integrations.logs.syntaxes import OWN_FILES
from popgate.integrations.logs.times import written_out
from popgate.values.address import ClientAddress

UTC = ZoneInfo("UTC")
NOW = 1795521600.0
HERE = Reference(UTC, NOW, NOW)
LINES = [line for examples in shipped_examples().values() for example in examples for line in example.lines]


@st.composite
def near_lines(draw: st.DrawFn) -> str:
    """Lines near those of the examples: pieces of two of them, and text between."""
    one, other = draw(st.sampled_from(LINES)), draw(st.sampled_from(LINES))
    head = one[: draw(st.integers(0, len(one)))]
    tail = other[draw(st.integers(0, len(other))) :]
    return head + draw(st.text(max_size=8)) + tail


def everything() -> Recogniser:
    return Recogniser(list(shipped().values()), UTC, default_domain="example.org")


@settings(deadline=None)
@given(st.text() | near_lines())
@example("Nov 24 11:31:02 ")
@example('{"MESSAGE":"\\ud800","__REALTIME_TIMESTAMP":"1"}')
def test_no_line_raises(line: str) -> None:
    record = read_line(line, HERE, list(OWN_FILES.values()))
    assert record is None or record.at is None or isinstance(record.at, float)


@settings(deadline=None)
@given(st.binary() | near_lines().map(lambda line: line.encode("utf-8", "surrogatepass")))
def test_no_octets_raise(octets: bytes) -> None:
    everything().feed(octets, NOW)


@settings(deadline=None)
@given(st.lists(near_lines() | st.sampled_from(LINES), max_size=12))
def test_a_block_tells_what_its_lines_tell(lines: list[str]) -> None:
    octets = [line.replace("\n", "").encode("utf-8", "surrogatepass") + b"\n" for line in lines]
    block, single = everything(), everything()
    assert list(block.feed_block(b"".join(octets), NOW)) == [
        one for line in octets for one in single.feed(line, NOW)
    ]


WRITTEN = st.sampled_from(
    [
        "Nov 24 11:31:02 mail {program}[7]: {text}",
        "Nov 24 11:31:02 mail {program}[7]:{text}",
        "2026-11-24T11:31:02+00:00 mail {program}[7]: {text}",
        "<22>1 2026-11-24T11:31:02Z mail {program} 7 - - {text}",
        "<22>1 2026-11-24T11:31:02Z mail {program} 7 - - \ufeff{text}",
        "2026-11-24T11:31:02Z stderr F Nov 24 11:31:02 mail {program}[7]: {text}",
        "json",
        "docker",
    ]
)


@settings(deadline=None)
@given(st.sampled_from(LINES), WRITTEN)
def test_the_search_passes_over_no_line(line: str, written: str) -> None:
    """A line is searched for texts before it is read; what is seen in its record is seen in it."""
    own = read_line(line, HERE, list(OWN_FILES.values()))
    assert own is not None
    text, program = own.text.strip(), own.program
    if written == "json":
        fields = {"timestamp": "2026-11-24T11:31:02Z", "host": "mail", "appname": program, "procid": 7}
        line = json.dumps(fields | {"message": text})
    elif written == "docker":
        inner = f"Nov 24 11:31:02 mail {program}[7]: {text}\n"
        line = json.dumps({"log": inner, "stream": "stdout", "time": "2026-11-24T11:31:02Z"})
        line = line.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    else:
        line = written.format(program=program, text=text)
    record = read_line(line, HERE, list(OWN_FILES.values()))
    assert record is not None
    assert (record.program, record.text.strip()) == (program, text)
    assert list(everything().feed(line.encode(), NOW)) == list(everything().feed_record(record, NOW))


@settings(deadline=None)
@given(near_lines())
def test_a_login_s_address_and_user_stand_in_its_line(line: str) -> None:
    for one in everything().feed(line.encode("utf-8", "surrogatepass"), NOW):
        if isinstance(one, LoginSeen):
            addresses = set()
            for found in re.findall(r"[0-9A-Fa-f:.]{2,45}", line):
                for text in {found, found.strip(":."), found.rpartition(":")[0], found.lstrip(":.")}:
                    try:
                        addresses.add(ClientAddress.parse(text))
                    except ValueError:
                        pass
            assert one.address in addresses
            assert one.identity.user in line.lower()


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_time_raises(text: str) -> None:
    at = written_out(text, HERE)
    assert at is None or isinstance(at, float)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "MESSAGE",
                        "__REALTIME_TIMESTAMP",
                        "log",
                        "time",
                        "stream",
                        "message",
                        "timestamp",
                        "_UID",
                        "appname",
                    ]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=8,
    )
)
def test_no_json_raises(document: object) -> None:
    read_line(json.dumps(document), HERE)


# Expressions of all kinds: what the rules let through is quick.

ATOMS = st.sampled_from(
    ["a", "b", "x", ".", r"\w", r"\d", r"\S", r"\s", "[ab]", "[^a]", "[^x ]", ",", " ", r"\b", "$"]
)
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,40}", "*+", "++", "*?", "+?"])
EXPRESSIONS = st.recursive(
    st.tuples(ATOMS, REPEATS).map(
        lambda parts: parts[0] + (parts[1] if parts[0] not in (r"\b", "$") else "")
    ),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4).map("".join)
        | st.tuples(
            st.sampled_from(["(?:", "(?>", "(?=", "(?!"]), st.lists(inner, min_size=1, max_size=3), REPEATS
        ).map(
            lambda parts: (
                parts[0] + "|".join(parts[1]) + ")" + ("" if parts[0] in ("(?=", "(?!") else parts[2])
            )
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    EXPRESSIONS,
    st.lists(st.sampled_from(["a", "b", "x", "ab", "ba", "1", ",", " ", "a,", "aab"]), max_size=4),
)
def test_allowed_expressions_are_quick(text: str, pumps: list[str]) -> None:
    try:
        allowed = expression("^login " + text, GROUPS)
    except ExpressionError:
        assume(False)
    for pump in {*pumps, "".join(pumps)} - {""}:
        hostile = "login " + pump * (4000 // len(pump)) + "\x01"
        begun = time.process_time()
        allowed.pattern.match(hostile)
        assert time.process_time() - begun < 2.0, (text, pump)
