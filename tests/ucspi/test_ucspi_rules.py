"""tcprules files: read as tcpserver reads them, and never trusted to be whole."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popgate.integrations.ucspi.cdb import Cdb, CdbError
from popgate.integrations.ucspi.rule_file import RuleFile, RulesUnavailable
from popgate.integrations.ucspi.rules import RuleError, Verdict, candidates, parse_instructions

RULES = """\
127.:allow,RELAYCLIENT="",X="a,b"
10.:deny
10.1-3.:allow,RANGE="1"
10.2.0.5:deny
1.2.3.4:allow,A=/q "uoted/,B="x"
=host.example:deny
=.example:allow,N="1"
user@1.2.3.4:deny
user@=h.example:allow,WHO="user"
=:allow,E="named"
:allow,LAST="1"
"""
CLIENTS = ("127.0.0.1", "10.9.9.9", "10.2.0.5", "10.2.0.6", "1.2.3.4", "1.2.3.40", "192.0.2.7", "203.0.113.1")
HOSTS = (None, "host.example", "h.example", "a.b.example", "other.test", "example")
INFOS = (None, "user", "root")


def compiled(directory: Path, rules: str, name: str = "rules.cdb") -> str:
    path = str(directory / name)
    subprocess.run(["tcprules", path, path + ".tmp"], input=rules.encode(), check=True)
    return path


def told_by_tcprulescheck(path: str, client: str, host: str | None, info: str | None) -> Verdict:
    environment = {"TCPREMOTEIP": client}
    if host is not None:
        environment["TCPREMOTEHOST"] = host
    if info is not None:
        environment["TCPREMOTEINFO"] = info
    program = shutil.which("tcprulescheck")
    assert program
    out = subprocess.run([program, path], env=environment, capture_output=True, text=True, check=False).stdout
    settings = {}
    is_denied = False
    for line in out.splitlines():
        if line.startswith("set environment variable "):
            name, _, text = line.removeprefix("set environment variable ").partition("=")
            settings[name.encode()] = text.encode()
        is_denied |= line.startswith("deny connection")
    return Verdict(is_denied, settings)


@pytest.mark.peer("ucspi-tcp")
def test_the_same_verdicts_as_tcprulescheck(tmp_path: Path) -> None:
    path = compiled(tmp_path, RULES)
    file = RuleFile(path)
    seen = set()
    for client, host, info in itertools.product(CLIENTS, HOSTS, INFOS):
        ours = file.decide(client, host, info)
        theirs = told_by_tcprulescheck(path, client, host, info)
        assert (ours.is_denied, dict(ours.settings)) == (theirs.is_denied, dict(theirs.settings)), (
            client,
            host,
            info,
        )
        seen.add((ours.is_denied, tuple(ours.settings)))
    assert len(seen) >= 8


@pytest.mark.peer("ucspi-tcp")
def test_ten_thousand_rules(tmp_path: Path) -> None:
    rules = "".join(f'10.{n // 256}.{n % 256}.1:allow,N="{n}"\n' for n in range(10000))
    file = RuleFile(compiled(tmp_path, rules))
    for n in (0, 1, 255, 256, 5000, 9999):
        assert file.decide(f"10.{n // 256}.{n % 256}.1", None, None).settings == {b"N": b"%d" % n}
    assert file.decide("10.0.0.2", None, None) == Verdict(False, {})


@pytest.mark.peer("ucspi-tcp")
def test_rules_are_read_again_when_they_change_and_nobody_enters_without(tmp_path: Path) -> None:
    file = RuleFile(compiled(tmp_path, ":deny\n"))
    assert file.decide("192.0.2.1", None, None).is_denied
    path = compiled(tmp_path, ":allow\n")
    assert not file.decide("192.0.2.1", None, None).is_denied
    os.unlink(path)
    with pytest.raises(RulesUnavailable):
        file.decide("192.0.2.1", None, None)
    assert not RuleFile(path, may_be_missing=True).decide("192.0.2.1", None, None).is_denied
    for broken in (b"", b"short", bytes(3000)[:2047]):
        Path(path).write_bytes(broken)
        with pytest.raises(RulesUnavailable):
            RuleFile(path, may_be_missing=True).decide("192.0.2.1", None, None)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(RulesUnavailable):
        file.decide("192.0.2.1", None, None)


def test_the_order_of_addresses_is_that_of_the_manual_page() -> None:
    assert [each.decode() for each in candidates("1.2.3.4", "a.b.example", "joe")] == [
        "joe@1.2.3.4", "joe@=a.b.example", "1.2.3.4", "=a.b.example", "1.2.3.", "1.2.", "1.",
        "=.b.example", "=.example", "=", "",
    ]  # fmt: skip
    assert [each.decode() for each in candidates("2001:db8::1", None, None)] == ["2001:db8::1", ""]


@pytest.mark.parametrize("record", [b"D", b"X\0", b"+\0", b"+=x\0", b"+NAME\0", b"\0", b"+A=b\0+"])
def test_instructions_that_tcprules_does_not_write_let_nobody_in(record: bytes) -> None:
    with pytest.raises(RuleError):
        parse_instructions(record)


@given(st.binary(min_size=2048, max_size=4096), st.binary(max_size=40))
def test_no_file_makes_a_look_up_fail_otherwise_than_told(octets: bytes, key: bytes) -> None:
    try:
        Cdb(octets).find(key)
    except CdbError:
        pass


@pytest.mark.peer("ucspi-tcp")
def test_a_file_that_is_cut_or_bent_anywhere_is_told_or_answers(tmp_path: Path) -> None:
    whole = Path(compiled(tmp_path, RULES)).read_bytes()
    for cut in range(2048, len(whole), 7):
        for key in (b"127.", b"10.", b"", b"="):
            try:
                Cdb(whole[:cut]).find(key)
                Cdb(whole[:cut] + b"\xff" * (len(whole) - cut)).find(key)
            except CdbError:
                pass
