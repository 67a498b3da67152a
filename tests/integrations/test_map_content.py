"""What stands in map files: constant databases, tcprules, plain lists, and how addresses are spelled."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.integrations.maps.constant import constant_database, record_of
from popgate.integrations.maps.content import Content
from popgate.integrations.maps.rule_lines import Rules, instructions
from popgate.integrations.maps.settings import MapSettings
from popgate.integrations.ucspi.cdb import Cdb
from popgate.integrations.ucspi.rule_file import RuleFile
from popgate.integrations.ucspi.rules import RuleError, parse_instructions
from popgate.values.address import ClientAddress
from popgate.values.spelling import read_spelling, write_spelling
from support import peers

A4, A6 = ClientAddress.parse("192.0.2.7"), ClientAddress.parse("2001:db8::1")
ADDRESSES = st.builds(ClientAddress, st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=20), max_size=300), st.binary(max_size=20))
def test_a_constant_database_has_what_was_put_in_and_nothing_else(
    records: dict[bytes, bytes], other: bytes
) -> None:
    database = Cdb(constant_database([record_of(*each) for each in records.items()]))
    assert {key: database.find(key) for key in records} == records
    assert database.find(other) == records.get(other)


def test_of_two_records_with_one_key_the_first_is_found() -> None:
    assert Cdb(constant_database([record_of(b"k", b"1"), record_of(b"k", b"2")])).find(b"k") == b"1"


@pytest.mark.parametrize("form", ["plain", "bracketed", "sendmail", "dotted"])
@given(address=ADDRESSES)
def test_what_is_written_is_read_as_the_same_address(form: str, address: ClientAddress) -> None:
    assert read_spelling(write_spelling(address, form)) == address  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("plain", "2001:db8::1"),
        ("bracketed", "[2001:db8::1]"),
        ("sendmail", "IPv6:2001:db8:0:0:0:0:0:1"),
        ("dotted", "2001.0db8.0000.0000.0000.0000.0000.0001"),
    ],
)
def test_a_plain_list(form: str, text: str) -> None:
    content = Content(MapSettings("/x", "text", spelling=form))  # type: ignore[arg-type]
    assert content.octets([A6, A4]) == f"192.0.2.7\n{text}\n".encode()
    content = Content(MapSettings("/x", "text", value="RELAY", spelling=form))  # type: ignore[arg-type]
    assert content.octets([A6, A4]) == f"192.0.2.7\tRELAY\n{text}\tRELAY\n".encode()
    assert content.octets([]) == b""
    content = Content(MapSettings("/x", "text", lines=["0.0.0.0", "# site"]))
    assert content.octets([A4]) == b"0.0.0.0\n# site\n192.0.2.7\n"


def test_a_database_of_addresses() -> None:
    database = Cdb(Content(MapSettings("/x", "cdb")).octets([A4, A6]))
    assert database.find(b"192.0.2.7") == database.find(b"2001:db8::1") == b"RELAY"
    assert database.find(b"192.0.2.8") is None
    assert Cdb(Content(MapSettings("/x", "cdb", value="OK")).octets([A4])).find(b"192.0.2.7") == b"OK"


def decided(
    tmp_path: Path, rules: list[str], client: str, value: str = ""
) -> tuple[bool, dict[bytes, bytes]]:
    (tmp_path / "rules").write_bytes(
        Content(MapSettings("/x", "tcprules", value=value, rules=rules)).octets([A4, A6])
    )
    verdict = RuleFile(str(tmp_path / "rules")).decide(client, None, None)
    return verdict.is_denied, dict(verdict.settings)


def test_rules_for_tcpserver(tmp_path: Path) -> None:
    assert decided(tmp_path, [":allow"], "192.0.2.7") == (False, {b"RELAYCLIENT": b""})
    assert decided(tmp_path, [":allow"], "192.0.2.8") == (False, {})
    assert decided(tmp_path, [":deny"], "192.0.2.8") == (True, {})
    value = 'allow,RELAYCLIENT="@relay"'
    assert decided(tmp_path, [], "192.0.2.7", value) == (False, {b"RELAYCLIENT": b"@relay"})


def test_further_rules_keep_their_say_over_a_granted_address(tmp_path: Path) -> None:
    for denying in ("192.0.2.7:deny", "192.0.2.:deny", "192.:deny", "192.0.0-9.:deny"):
        assert decided(tmp_path, [denying, ":allow"], "192.0.2.7") == (True, {})
    both = decided(tmp_path, ['192.0.2.:allow,DATABYTES="1"', ":allow"], "192.0.2.7")
    assert both == (False, {b"DATABYTES": b"1", b"RELAYCLIENT": b""})
    # the nearest rule counts, as tcpserver has it
    assert decided(tmp_path, ["192.0.2.7:allow", "192.0.2.:deny"], "192.0.2.7")[0] is False
    assert decided(tmp_path, [":deny"], "192.0.2.7")[0] is True


@pytest.mark.peer("ucspi-tcp")
def test_the_rules_are_those_that_tcprules_makes(tmp_path: Path) -> None:
    peers.require("ucspi-tcp")
    lines = [
        "# comment", "", "10.0.0.1:deny", '10.0.1-3.:allow,A="1",B=/x"y/', "192.0.2.9-12:allow",
        "=host.example:deny",
        "=.example:allow,C=''", "user@10.9.9.9:deny", "=:allow", 'a@=b:allow,D="=,:"', ":deny",
    ]  # fmt: skip
    tcprules = shutil.which("tcprules")
    assert tcprules is not None
    subprocess.run(
        [tcprules, tmp_path / "theirs", tmp_path / "new"],
        input="\n".join(lines) + "\n",
        text=True,
        check=True,
    )
    theirs = Cdb((tmp_path / "theirs").read_bytes())
    ours = Rules(lines).records
    assert len(ours) == 14
    assert {key: theirs.find(key) for key in ours} == ours


@pytest.mark.parametrize(
    "line",
    [
        "10.0.0.1", "10.0.0.1:permit", ":allow,A", ":allow,=1", ':allow,A="1', ":allow,A=", ':allow,A="1"x',
        "1-:allowed",
        "9-3:allow", "1.2.3-999:allow", ":", "x\0:allow", ':allow,A="\0"', ':allow,A="\n"', "x\ny:allow",
        ':allowA="1"',
    ],
)  # fmt: skip
def test_lines_that_are_no_rules(line: str) -> None:
    with pytest.raises(RuleError):
        Rules([line])


@given(st.text(max_size=40))
def test_whatever_is_a_rule_is_read_back_by_the_listener(text: str) -> None:
    try:
        record = instructions(text)
    except RuleError:
        return
    parse_instructions(record)
