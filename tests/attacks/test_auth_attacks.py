"""The attack cases of the classes name, enum and apop, as far as accounts and recipients answer them.

A case of the corpus (cases.jsonl beside this file) is either played here or named in ELSEWHERE
with the reason, so that a new case cannot go unnoticed.
"""

import inspect
import os
import stat

import pytest

from attacks.attack_cases import CASES, octets, of_class
from popgate.auth.authenticator import Denied, Login
from popgate.auth.backends import accounts
from popgate.auth.backends.account_logins import AccountLogins
from popgate.auth.backends.accounts import AccountDatabase, BadName
from popgate.auth.recipients import Recipients
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.protocols import sasl
from popgate.values.identity import Identity
from popgate.values.mail import MailAddress
from support.clock import ManualClock
from support.scram import ScramClient

ELSEWHERE = {
    "apop-006": "the sessions count failures and close",
    "enum-001": "the POP3 session answers USER alike for all",
    "enum-007": "the SMTP session bounds guesses at recipients",
    "enum-008": "IMAP is not offered",
}

PLAYED_BELOW = {
    "apop-002",
    "apop-003",
    "apop-005",
    "apop-007",
    "apop-013",
    "enum-002",
    "enum-004",
    "enum-005",
    "enum-009",
    "enum-010",
    "name-030",
    "name-031",
    "name-034",
}

# Names that stand beside those of the corpus.
MORE_NAMES = [
    "/etc/passwd",
    "a\0b",
    "a\nb",
    " a",
    "-rf",
    "$(id)",
    "`id`",
    "x@.",
    "x@",
    "a@b@c",
    "\ud800",
    "a*b",
    "x@-y.org",
]


def names():
    """Case and text of each hostile name, as the latin-1 reading of its octets and as their UTF-8."""
    found = [("more", text) for text in MORE_NAMES]
    for case in of_class("name"):
        if case in PLAYED_BELOW:
            continue
        raw = octets(CASES[case]["send"][0], {})
        found.extend(
            (case, text) for text in dict.fromkeys((raw.decode("latin-1"), raw.decode("utf-8", "replace")))
        )
    return found


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


@pytest.mark.parametrize(("case", "text"), names())
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


async def test_enum_002_enum_004_enum_009_enum_010_every_failure_costs_one_check(site, monkeypatch):
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
    played = {case for case, _ in names()} | PLAYED_BELOW | set(ELSEWHERE)
    assert not set(of_class("name", "enum", "apop")) - played


async def test_enum_005_scram_shows_every_name_the_same_kind_of_salt(site):
    """Stable within the exchange's process, of one length and one count, for names that are and are not."""
    site.database.add("plain@example.org", "secret")
    for name in ("ann", "nobody", "plain", "no such/name"):
        one, two = site.logins.scram_keys(name), site.logins.scram_keys(name)
        assert one == two
        assert (len(one.salt), one.iterations) == (16, 4096)
    names = ("ann", "nobody", "plain", "tmp")
    assert len({site.logins.scram_keys(name).salt for name in names}) == len(names)


@pytest.mark.parametrize("gs2", ["p=tls-server-end-point,,", "n,a=tmp@example.org,", "x,,", ""])
def test_auth_024_scram_with_another_channel_or_for_another_user(site, gs2):
    client = ScramClient("ann@example.org", "secret", gs2=gs2)
    step = sasl.begin(
        "SCRAM-SHA-256", client.first, token=lambda: "t", hostname="h", scram_keys=site.logins.scram_keys
    )
    assert isinstance(step, sasl.Malformed)


def test_auth_024_scram_by_a_proof_of_before(site):
    """A recorded exchange is worth nothing: the server's part of the nonce is new each time."""
    client = ScramClient("ann@example.org", "secret")
    tokens = iter(["0123456789abcdef", "fedcba9876543210"])
    finals = []
    for _ in range(2):
        step = sasl.begin(
            "SCRAM-SHA-256",
            client.first,
            token=lambda: next(tokens),
            hostname="h",
            scram_keys=site.logins.scram_keys,
        )
        finals.append(client.final(step.data))
    assert isinstance(step.exchange.respond(finals[0]), sasl.Malformed)
    assert isinstance(step.exchange.respond(finals[1]), sasl.Challenge)


def test_auth_024_the_count_of_iterations_is_ours(site):
    """The client sends none, so it cannot make us work; what one exchange costs is bounded."""
    assert site.logins.scram_keys("x" * 1000).iterations == 4096
