"""The attack cases of the classes name, enum and apop, as far as accounts and recipients answer them.

A case of the corpus (cases.jsonl beside this file) is either played here or named in ELSEWHERE
with the reason, so that a new case cannot go unnoticed.
"""

import inspect
import json
import os
import stat
from pathlib import Path

import pytest

from popgate.auth.authenticator import Denied, Login
from popgate.auth.backends import accounts
from popgate.auth.backends.account_logins import AccountLogins
from popgate.auth.backends.accounts import AccountDatabase, BadName
from popgate.auth.recipients import Recipients
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress
from support.clock import ManualClock

CORPUS = Path(__file__).with_name("cases.jsonl")

ELSEWHERE = {
    "apop-006": "the sessions count failures and close",
    "enum-001": "the POP3 session answers USER alike for all",
    "enum-005": "SCRAM is not offered",
    "enum-007": "the SMTP session bounds guesses at recipients",
    "enum-008": "IMAP is not offered",
}

# Used where the corpus is absent; the corpus's own texts come on top of it.
HOSTILE = {
    "name-001": "../x",
    "name-002": "..",
    "name-003": ".",
    "name-004": "",
    "name-007": "a/../../b",
    "name-008": "a\\..\\b",
    "name-011": "a\rb",
    "name-013": "a ",
    "name-015": "~root",
    "name-017": "%u",
    "name-020": "a:2,S",
    "name-023": "x@../../etc",
    "name-027": "@",
    "name-031": "e\u0301",
    "name-032": "a" * 256,
    "name-033": "\xe9" * 200,
    "name-037": "nul\x7f",
    "name-039": "x@\u0435xample.com",
}
PLAYED_BELOW = {"name-030", "name-034", "apop-002", "apop-003", "apop-005", "apop-007", "apop-013",
                "enum-002", "enum-004", "enum-009", "enum-010"}  # fmt: skip
FOLDED = {"name-030", "name-031", "name-034"}


def corpus():
    if not CORPUS.exists():
        return []
    # Not splitlines: the cases hold characters that it takes for line ends.
    cases = map(json.loads, filter(str.strip, CORPUS.read_text(encoding="utf-8").split("\n")))
    return [case for case in cases if case.get("class") in ("name", "enum", "apop")]


def hostile():
    found = dict(HOSTILE)
    for case in corpus():
        if case["class"] == "name" and case["id"] not in FOLDED and isinstance(case["send"][0], str):
            text = case["send"][0]
            if text.startswith("{rep:"):
                what, _, times = text[5:-1].rpartition("*")
                text = what * int(times)
            found[case["id"]] = text
    return sorted(found.items())


class Site:
    def __init__(self, directory):
        self.directory = directory
        self.workers = Workers(1)
        self.database = AccountDatabase(str(directory / "accounts.sqlite"))
        for name in ("ann", "tmp"):
            self.database.add(f"{name}@example.org", "secret", is_recoverable=True)
        self.recipients = Recipients([self.database], ["example.org"], Identity("ann", "example.org"))
        self.logins = AccountLogins(
            self.database,
            VerifiedPasswords(ManualClock(), 60),
            self.workers,
            default_domain="example.org",
            apop=True,
        )

    async def login(self, name, password=b"secret"):
        answer = self.logins.check_password(name, password)
        return await answer if inspect.isawaitable(answer) else answer

    def close(self):
        self.workers.close()
        self.database.close()


@pytest.fixture
def site(tmp_path, monkeypatch):
    # What a hash costs is tested in the contract suite; here it would only take time.
    monkeypatch.setattr(accounts, "hash_password", lambda password: "hash of " + password.decode())
    monkeypatch.setattr(
        accounts, "is_password", lambda stored, password: stored == "hash of " + password.decode("latin-1")
    )
    monkeypatch.setattr(accounts, "is_outdated", lambda stored: False)
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.mark.parametrize(("case", "text"), hostile())
async def test_name(site, case, text):
    """As login, as recipient (local part, detail, domain) and as a new account: nobody, and no file."""
    before = sorted(path.name for path in site.directory.rglob("*"))
    assert await site.login(text) == Denied("name")
    assert isinstance(await site.login(f"ann@{text}"), Denied)
    for check in (site.logins.check_apop, site.logins.check_cram_md5):
        assert check(text, b"<c>", b"0" * 32) == Denied("name")
    assert site.recipients.resolve(MailAddress(text, "example.org")) is None
    assert site.recipients.resolve(MailAddress("ann", text)) is None or text == ""
    with_detail = site.recipients.resolve(MailAddress(f"ann+{text}", "example.org"))
    assert with_detail is None or with_detail.mailboxes == (Identity("ann", "example.org"),)
    for address in (text, f"{text}@example.org" if "@" not in text else text, f"ann@{text}"):
        with pytest.raises(BadName):
            site.database.add(address, "secret")
        with pytest.raises(BadName):
            site.database.add_alias(address, ["ann@example.org"])
    assert sorted(path.name for path in site.directory.rglob("*")) == before


async def test_name_030_case_is_folded_everywhere(site):
    ann = Identity("ann", "example.org")
    assert (await site.login("ANN@EXAMPLE.ORG")).identity == ann
    assert site.recipients.resolve(MailAddress("ANN", "example.org")).mailboxes == (ann,)
    with pytest.raises(accounts.AccountExists):
        site.database.add("Ann@example.org", "other")


@pytest.mark.parametrize("spelling", ["\xe9nn", "e\u0301nn", "\uff41nn", "\u0430nn", "ann\u200b", "\u212ann"])
async def test_name_031_no_two_spellings_of_one_glyph(site, spelling):
    assert await site.login(spelling) == Denied("name")
    assert site.recipients.resolve(MailAddress(spelling, "example.org")) is None


async def test_name_034_a_maildir_word_is_an_ordinary_name(site):
    assert (await site.login("tmp")).identity == Identity("tmp", "example.org")


@pytest.mark.parametrize(
    "digest", [b"A" * 32, b"0" * 31, b"0" * 33, b"g" * 32, b"", b"\0" * 32, b"\xff" * 32]
)
def test_apop_002_003_malformed_digests(site, digest):
    assert site.logins.check_apop("ann", b"<1@x>", digest) == Denied("password")


def test_apop_005_unknown_user_does_the_same_work(site, monkeypatch):
    worked = []
    original = site.logins.check_apop.__globals__["is_apop_proof"]
    monkeypatch.setitem(
        site.logins.check_apop.__globals__,
        "is_apop_proof",
        lambda *proof: worked.append(proof) or original(*proof),
    )
    for name in ("ann", "nobody", "../x"):
        assert isinstance(site.logins.check_apop(name, b"<1@x>", b"0" * 32), Denied)
    assert len(worked) == 3


def test_apop_007_digest_of_another_challenge(site):
    import hashlib

    digest = hashlib.md5(b"<1@x>secret").hexdigest().encode()
    assert isinstance(site.logins.check_apop("ann", b"<1@x>", digest), Login)
    assert site.logins.check_apop("ann", b"<2@x>", digest) == Denied("password")


def test_apop_013_the_secrets_file_is_its_owners_alone(site):
    for file in site.directory.iterdir():
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600, file


async def test_enum_every_failure_costs_one_check(site, monkeypatch):
    """enum-002, enum-004, enum-009, enum-010: one hash of today's parameters, whatever is wrong, and
    whether or not the right password is remembered. The times are measured in the contract suite."""
    checked = []
    monkeypatch.setattr(
        accounts, "is_password", lambda stored, password: checked.append(stored) or password == b"secret"
    )
    site.database.add("off@example.org", "secret")
    site.database.disable("off@example.org")
    await site.login("ann")
    for name, password in [
        ("ann", b"wrong"), ("ann", b"wrong"), ("nobody", b"wrong"), ("nobody", b"secret"), ("off", b"secret"),
        ("../x", b"secret"), ("ann", b""), ("ann", b"x" * 5000),
    ]:  # fmt: skip
        checked.clear()
        assert isinstance(await site.login(name, password), Denied)
        assert len(checked) == 1, (name, password[:10])
        assert checked[0] == (
            accounts.DUMMY_HASH if name != "ann" or password != b"wrong" else "hash of secret"
        )


def test_every_case_of_the_corpus_has_its_place():
    known = set(HOSTILE) | PLAYED_BELOW | set(ELSEWHERE)
    played = {case for case, _ in hostile()}
    missing = {case["id"] for case in corpus()} - known - played
    assert not missing
