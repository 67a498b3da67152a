"""What every authentication back end must do, and the attacks that each must withstand."""

import asyncio
import base64
import hashlib
import hmac
import inspect
import resource
import sys
import threading
from pathlib import Path

import pytest

from popgate.auth.authenticator import Denied, Login, Unavailable
from popgate.auth.backends import accounts
from popgate.auth.backends.account_logins import AccountLogins
from popgate.auth.backends.accounts import AccountDatabase
from popgate.auth.backends.checkpassword import CheckpasswordLogins
from popgate.auth.backends.passwd_file import PasswdFile, PasswdFileLogins
from popgate.auth.chain import Chain
from popgate.auth.hashing import hash_password
from popgate.auth.proofs import DUMMY_SECRET, scram_keys
from popgate.auth.verified import VerifiedPasswords
from popgate.auth.workers import Workers
from popgate.grants.grant import Terms
from popgate.protocols import sasl
from popgate.values.identity import Identity
from support.scram import ScramClient

ANN = Identity("ann", "example.org")
PASSWORD = "pass word: ünïcode"
PASSWORD_BASE64 = base64.b64encode(PASSWORD.encode()).decode()
CHECKPASSWORD = Path(__file__).with_name("checkpassword_program.py")


class TestClock:
    __test__ = False

    def __init__(self):
        self.time = 1000.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.time


class Site:
    """One back end with the accounts that the suite speaks of: ann and device (recoverable), bob
    (disabled where the back end knows that)."""

    can_disable = True
    hashes = True
    has_recoverable = True

    def __init__(self, directory: Path):
        self.directory = directory
        self.clock = TestClock()
        self.workers = Workers(2)
        self.verified = VerifiedPasswords(self.clock, 60)
        self.events = []

    def close(self):
        self.authenticator.close()
        self.workers.close()


class AccountsSite(Site):
    def __init__(self, directory, apop=True):
        super().__init__(directory)
        self.database = AccountDatabase(str(directory / "accounts.sqlite"))
        self.database.add("ann@example.org", PASSWORD, is_recoverable=True)
        self.database.add("bob@example.org", PASSWORD, is_recoverable=True)
        self.database.add("plain@example.org", PASSWORD)
        self.database.disable("bob@example.org")
        self.authenticator = AccountLogins(
            self.database, self.verified, self.workers, default_domain="example.org", apop=apop
        )

    def change_password(self, password):
        self.database.set_password("ann@example.org", password)

    def disable(self):
        self.database.disable("ann@example.org")

    def remove(self):
        self.database.remove("ann@example.org")

    def close(self):
        super().close()
        self.database.close()


class PasswdFileSite(Site):
    def __init__(self, directory, apop=True):
        super().__init__(directory)
        self.path = directory / "passwd"
        self.write(f"ann@example.org:{hash_password(PASSWORD.encode())}")
        self.file = PasswdFile(str(self.path), self.clock, self.events.append, "example.org")
        self.authenticator = PasswdFileLogins(
            self.file, self.verified, self.workers, default_domain="example.org", apop=apop
        )

    def write(self, ann):
        hashed = hash_password(b"other")
        self.path.write_text(f"{ann}\nbob:{hashed}::::::nologin\nplain:{hashed}\nlocked:!{hashed}\n")

    def change_password(self, password):
        self.write(f"ann@example.org:{hash_password(password.encode())}")

    def disable(self):
        self.write(f"ann@example.org:{hash_password(PASSWORD.encode())}::::::nologin=y")

    def remove(self):
        self.write("# nobody")


class PlainPasswdFileSite(PasswdFileSite):
    def write(self, ann):
        name = ann.partition(":")[0]
        if not name.startswith("#"):
            ann = f"{name}:{{PLAIN.b64}}{PASSWORD_BASE64}" + ("::::::nologin" if ann.endswith("=y") else "")
        super().write(ann)

    def change_password(self, password):
        super().write(f"ann@example.org:{{PLAIN}}{password}")


class CheckpasswordSite(Site):
    can_disable = False
    hashes = False

    def __init__(self, directory, apop=True):
        super().__init__(directory)
        self.users = directory / "users"
        self.write({"ann@example.org": PASSWORD, "other-name@example.org": "x", "bad-user@example.org": "x"})
        self.verified = VerifiedPasswords(self.clock, 0)
        self.authenticator = CheckpasswordLogins(
            f"{sys.executable} -I -S {CHECKPASSWORD} '{self.users}'",
            self.verified,
            self.workers,
            default_domain="example.org",
            apop=apop,
            timeout_seconds=5,
        )

    def write(self, users):
        self.users.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))

    def change_password(self, password):
        self.write({"ann@example.org": password})

    def disable(self):
        self.write({})

    remove = disable


SITES = {
    "accounts": AccountsSite,
    "passwd_file": PasswdFileSite,
    "passwd_file_plain": PlainPasswdFileSite,
    "checkpassword": CheckpasswordSite,
}


@pytest.fixture(params=SITES)
def site(request, tmp_path):
    site = SITES[request.param](tmp_path)
    yield site
    site.close()


async def settled(answer):
    return await answer if inspect.isawaitable(answer) else answer


async def login(site, name="ann@example.org", password=PASSWORD):
    return await settled(site.authenticator.check_password(name, password.encode()))


async def test_right_password(site):
    result = await login(site)
    assert isinstance(result, Login)
    assert result.identity == ANN and result.has_mailbox


@pytest.mark.parametrize("name", ["ANN@Example.Org", "ann", "Ann"])
async def test_other_forms_of_the_name(site, name):
    assert (await login(site, name)).identity == ANN


@pytest.mark.parametrize(
    "password", ["", " ", PASSWORD + " ", PASSWORD.upper(), PASSWORD + "\0", "x" * 1024, "x" * 5000]
)
async def test_wrong_password(site, password):
    assert await login(site, password=password) == Denied("password")


async def test_unknown_name(site):
    assert isinstance(await login(site, "nobody@example.org"), Denied)
    assert isinstance(await login(site, "ann@example.net"), Denied)
    if site.can_disable:
        assert await login(site, "nobody@example.org") == Denied("unknown")


async def test_disabled_account_with_the_right_password(site):
    if site.can_disable:
        assert await login(site, "bob@example.org") == Denied("disabled")
    assert isinstance(await login(site, "bob@example.org"), Denied)


async def test_changed_password_counts_at_once(site):
    assert isinstance(await login(site), Login)
    site.change_password("another")
    assert await login(site) == Denied("password")
    assert isinstance(await login(site, password="another"), Login)
    assert await login(site) == Denied("password")


async def test_disabled_and_removed_account_is_not_served_from_memory(site):
    assert isinstance(await login(site), Login)
    site.disable()
    assert isinstance(await login(site), Denied)
    site.remove()
    assert isinstance(await login(site), Denied)


NAMES = [
    "../x",
    "..",
    ".",
    "",
    "/etc/passwd",
    "/abs",
    "a/../../b",
    "a\\..\\b",
    "a\0b",
    "a\nb",
    "a\rb",
    " a",
    "a ",
    "-rf",
    "~root",
    "%u",
    "$(id)",
    "`id`",
    "a:2,S",
    "a;b",
    "x@../../etc",
    "x@.",
    "x@",
    "@",
    "@@",
    "a@b@c",
    "e\u0301",
    "\xe9",
    "a" * 256,
    "\xe9" * 200,
    "nul\x7f",
    "x@\u0435xample.com",
    "\ud800",
    "a,b",
    "a*b",
    "x@-y.org",
    "x@y..org",
    "x" * 65,
]


async def test_name_attacks_are_denied_and_touch_nothing(site, monkeypatch):
    """Corpus class name: no name outside the allow-list reaches a table, a file or a program."""

    async def attempt(name):
        return name, await settled(site.authenticator.check_password(name, b"x"))

    monkeypatch.setattr(accounts, "is_password", lambda stored, password: False)
    before = sorted(path.name for path in site.directory.rglob("*"))
    for name, result in await asyncio.gather(*(attempt(name) for name in dict.fromkeys(NAMES))):
        assert result == Denied("name"), name
        for other in (site.authenticator.check_apop, site.authenticator.check_cram_md5):
            assert isinstance(await settled(other(name, b"<c>", b"0" * 32)), Denied)
    after = [
        name for name in sorted(path.name for path in site.directory.rglob("*")) if "sqlite-" not in name
    ]
    assert after == [name for name in before if "sqlite-" not in name]
    assert not (site.directory / "users.asked").exists()


async def test_name_030_034_case_folds_and_maildir_names_are_only_names(site):
    assert (await login(site, "ANN@EXAMPLE.ORG")).identity == (await login(site, "ann@example.org")).identity
    assert isinstance(await login(site, "tmp"), Denied)


def cpu_seconds():
    """Of this process and of the programs it has run: other work on the machine does not count."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(times.ru_utime + times.ru_stime for times in used)


async def test_enum_002_009_unknown_disabled_and_wrong_cost_the_same(site):
    """Alternating tries; the least of several, because whatever disturbs a try makes it longer."""
    names = ["ann@example.org", "nobody@example.org", "bob@example.org"]
    costs = {name: [] for name in names}
    for round_ in range(9):
        for name in names:
            before = cpu_seconds()
            assert isinstance(await login(site, name, f"wrong{round_}"), Denied)
            costs[name].append(cpu_seconds() - before)
    least = {name: min(found) for name, found in costs.items()}
    assert max(least.values()) < 1.6 * min(least.values()), least


async def test_enum_010_the_cache_answers_right_passwords_only(site):
    """A wrong password costs a check whether or not the account's right one is remembered."""
    if not site.hashes:
        pytest.skip("remembers nothing")
    await login(site)
    assert isinstance(site.authenticator.check_password("ann@example.org", PASSWORD.encode()), Login)
    answer = site.authenticator.check_password("ann@example.org", b"wrong")
    assert inspect.isawaitable(answer)
    assert await answer == Denied("password")
    answer = site.authenticator.check_password("ann@example.org", b"wrong")
    assert inspect.isawaitable(answer), "failures are not remembered"
    await answer


async def test_remembered_password_expires(site):
    if not site.hashes:
        pytest.skip("remembers nothing")
    await login(site)
    site.clock.time += 59
    assert isinstance(site.authenticator.check_password("ann@example.org", PASSWORD.encode()), Login)
    site.clock.time += 1
    answer = site.authenticator.check_password("ann@example.org", PASSWORD.encode())
    assert inspect.isawaitable(answer), "the time runs from the check, not from the last use"
    assert isinstance(await answer, Login)


async def test_equal_checks_at_one_time_share_the_work(site, monkeypatch):
    asked, runs = [], []
    all_have_asked = threading.Event()
    original = Workers.run

    def counting(self, key, work):
        def counted():
            runs.append(key)
            assert all_have_asked.wait(30)
            return work()

        asked.append(key)
        return original(self, key, counted)

    monkeypatch.setattr(Workers, "run", counting)
    logins = [asyncio.ensure_future(login(site)) for _ in range(20)]
    while len(asked) < 20:
        await asyncio.sleep(0)
    all_have_asked.set()
    results = await asyncio.gather(*logins)
    assert all(isinstance(result, Login) for result in results)
    assert len(runs) == 1


async def test_too_many_checks_are_temporary(site, monkeypatch):
    monkeypatch.setattr(site.workers, "_most", 3)
    names = ["ann@example.org", "nobody@example.org"]
    results = await asyncio.gather(*(login(site, names[index % 2], f"wrong{index}") for index in range(12)))
    assert sum(isinstance(result, Unavailable) for result in results) == 9
    assert isinstance(await login(site), Login)


async def test_a_client_that_hangs_up_cancels_only_its_own_check(site):
    one = asyncio.ensure_future(login(site))
    other = asyncio.ensure_future(login(site))
    await asyncio.sleep(0)
    one.cancel()
    assert isinstance(await other, Login)
    with pytest.raises(asyncio.CancelledError):
        await one


CHALLENGE = b"<1896.697170952@dbc.mtview.ca.us>"


def apop_digest(challenge=CHALLENGE, secret=PASSWORD):
    return hashlib.md5(challenge + secret.encode()).hexdigest().encode()


def cram_digest(challenge=CHALLENGE, secret=PASSWORD):
    return hmac.new(secret.encode(), challenge, "md5").hexdigest().encode()


class ChallengeSites:
    recoverable = ("accounts", "passwd_file_plain", "checkpassword")


@pytest.fixture(params=ChallengeSites.recoverable)
def apop_site(request, tmp_path):
    site = SITES[request.param](tmp_path)
    yield site
    site.close()


async def test_apop(apop_site):
    check = apop_site.authenticator.check_apop
    assert (await settled(check("ann@example.org", CHALLENGE, apop_digest()))).identity == ANN
    assert (await settled(check("Ann", CHALLENGE, apop_digest()))).identity == ANN
    assert await settled(check("ann", b"<other@x>", apop_digest())) == Denied("password")
    assert isinstance(await settled(check("nobody", CHALLENGE, apop_digest())), Denied)
    assert isinstance(await settled(check("bob", CHALLENGE, apop_digest())), Denied)


@pytest.mark.parametrize(
    "digest",
    [
        apop_digest().upper(),
        apop_digest()[:31],
        apop_digest() + b"0",
        b"",
        b"g" * 32,
        b"\xff" * 32,
        PASSWORD.encode(),
    ],
)
async def test_apop_002_003_digest_of_any_other_form(apop_site, digest):
    assert isinstance(await settled(apop_site.authenticator.check_apop("ann", CHALLENGE, digest)), Denied)


@pytest.mark.parametrize("kind", ["accounts", "passwd_file_plain"])
async def test_cram_md5(kind, tmp_path):
    site = SITES[kind](tmp_path)
    check = site.authenticator.check_cram_md5
    assert (await settled(check("ann", CHALLENGE, cram_digest()))).identity == ANN
    assert await settled(check("ann", CHALLENGE, cram_digest().upper())) == Denied("password")
    assert await settled(check("ann", b"<other@x>", cram_digest())) == Denied("password")
    assert await settled(check("nobody", CHALLENGE, cram_digest())) == Denied("unknown")
    assert await settled(check("bob", CHALLENGE, cram_digest())) == Denied(
        "disabled" if kind == "accounts" else "mechanism"
    )
    assert await settled(check("plain", CHALLENGE, cram_digest())) == Denied("mechanism")
    site.close()


def scram(authenticator, name, password):
    """The whole exchange; the credentials that the engine would ask about."""
    client = ScramClient(name, password)
    step = sasl.begin(
        "SCRAM-SHA-256",
        client.first,
        token=lambda: "0123456789abcdef",
        hostname="h",
        scram_keys=authenticator.scram_keys,
    )
    step = step.exchange.respond(client.final(step.data))
    if isinstance(step, sasl.Challenge):
        assert client.believes(step.data)
        step = step.exchange.respond(b"")
    return client, step


def check_scram(authenticator, name, password):
    _, step = scram(authenticator, name, password)
    return authenticator.check_scram(step.name, step.keys, is_proven=step.is_proven)


@pytest.mark.parametrize("kind", ["accounts", "passwd_file_plain"])
async def test_scram(kind, tmp_path):
    site = SITES[kind](tmp_path)
    logins = site.authenticator
    for name in ("ann", "Ann@Example.org"):
        assert (await settled(check_scram(logins, name, PASSWORD))).identity == ANN
    assert check_scram(logins, "ann", "wrong") == Denied("password")
    assert check_scram(logins, "nobody", PASSWORD) == Denied("unknown")
    assert check_scram(logins, "no such/name", PASSWORD) == Denied("name")
    assert check_scram(logins, "plain", PASSWORD) == Denied("mechanism")
    assert isinstance(check_scram(logins, "bob", PASSWORD), Denied)
    # who knows what stands in for missing secrets is nobody all the same
    for name in ("nobody", "plain", "bob"):
        assert isinstance(check_scram(logins, name, DUMMY_SECRET.decode()), Denied)
    chain = Chain([logins])
    assert check_scram(chain, "ann", PASSWORD).identity == ANN
    assert check_scram(chain, "nobody", PASSWORD) == Denied("unknown")
    site.close()


async def test_a_password_that_changes_within_an_exchange_of_scram_is_no_login(tmp_path):
    site = AccountsSite(tmp_path)
    _, step = scram(site.authenticator, "ann", PASSWORD)
    assert step.is_proven
    site.change_password("another")
    assert site.authenticator.check_scram("ann", step.keys, is_proven=True) == Denied("password")
    site.close()


@pytest.mark.parametrize("kind", ["accounts", "passwd_file_plain"])
async def test_scram_is_off_unless_asked_for(kind, tmp_path):
    site = SITES[kind](tmp_path, apop=False)
    assert check_scram(site.authenticator, "ann", PASSWORD) == Denied("mechanism")
    site.close()


async def test_a_chain_takes_the_keys_of_who_knows_the_name(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    one, two = AccountsSite(first), AccountsSite(second)
    one.database.remove("ann@example.org")
    chain = Chain([one.authenticator, two.authenticator])
    assert check_scram(chain, "ann", PASSWORD).identity == ANN
    assert check_scram(chain, "nobody", PASSWORD) == Denied("unknown")
    one.close()
    two.close()


def test_a_password_outside_ascii_is_prepared_as_the_client_does():
    # RFC 4013 2: a no-break space is a space, a soft hyphen nothing, and a ligature its letters
    assert scram_keys("a\u00a0\u00adb\ufb01".encode(), b"salt") == scram_keys(b"a bfi", b"salt")
    assert scram_keys(b"\xff", b"salt") != scram_keys(b"", b"salt")


@pytest.mark.parametrize("kind", SITES)
async def test_apop_and_cram_md5_are_off_unless_asked_for(kind, tmp_path):
    site = SITES[kind](tmp_path, apop=False)
    assert site.authenticator.check_apop("ann", CHALLENGE, apop_digest()) == Denied("mechanism")
    assert site.authenticator.check_cram_md5("ann", CHALLENGE, cram_digest()) == Denied("mechanism")
    site.close()


async def test_device_account_has_no_mailbox_and_its_own_terms(tmp_path):
    site = AccountsSite(tmp_path)
    terms = Terms(window_seconds=60, quota_messages=5, senders=("scan@example.org",), is_device=True)
    site.database.add("scanner@example.org", "pin", terms=terms)
    for _ in range(2):  # checked, then remembered
        result = await login(site, "scanner", "pin")
        assert result.terms == terms and not result.has_mailbox
    site.close()


@pytest.mark.parametrize("change", ["disable", "remove", "change"])
async def test_an_account_that_changes_during_the_hash_is_not_let_in(tmp_path, change):
    site = AccountsSite(tmp_path)
    answer = site.authenticator.check_password("ann", PASSWORD.encode())
    if change == "change":
        site.change_password("another")
    else:
        getattr(site, change)()
    result = await answer
    assert result == Denied({"disable": "disabled", "remove": "unknown", "change": "password"}[change])
    site.close()


async def test_first_login_after_a_parameter_change_is_a_login_and_the_next_is_remembered(
    tmp_path, monkeypatch
):
    from argon2 import PasswordHasher

    site = AccountsSite(tmp_path)
    monkeypatch.setattr(
        accounts, "hash_password", PasswordHasher(memory_cost=64, time_cost=1, parallelism=1).hash
    )
    site.change_password(PASSWORD)
    monkeypatch.undo()
    assert isinstance(await login(site), Login)
    assert isinstance(await login(site), Login)
    assert isinstance(site.authenticator.check_password("ann", PASSWORD.encode()), Login)
    site.close()


async def test_unreadable_accounts_are_temporary(tmp_path):
    site = PasswdFileSite(tmp_path)
    site.path.unlink()
    assert isinstance(await login(site), Unavailable)
    assert isinstance(site.authenticator.check_apop("ann", CHALLENGE, apop_digest()), Unavailable)
    site.close()
    site = AccountsSite(tmp_path)
    site.database.close()
    (tmp_path / "accounts.sqlite").unlink()
    assert isinstance(await login(site), Unavailable)
    assert isinstance(site.authenticator.check_cram_md5("ann", CHALLENGE, cram_digest()), Unavailable)
    assert isinstance(check_scram(site.authenticator, "ann", PASSWORD), Unavailable)
    assert isinstance(check_scram(Chain([site.authenticator]), "ann", PASSWORD), Unavailable)
    site.close()
