"""Loading a configuration: what a good one gives and what a bad one is told."""

import re
import tomllib
from pathlib import Path

import pytest

from popgate.config import Config, ConfigError, Loaded, find, load, load_text, relay_by
from popgate.config.fields import Setting, setting_at, settings_of, tables_of
from popgate.config.sample import SAMPLE, sample
from popgate.config.toml import to_toml
from popgate.servers.settings import ListenerSettings

MINIMAL = """\
hostname = "mail.example.org"
local_domains = ["example.org"]
[[listener]]
service = "pop3"
bind = "127.0.0.1:110"
plaintext_login = true
"""


def errors_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "popgate.toml", overrides)
    return [str(problem) for problem in caught.value.problems]


def warnings_of(text: str, *overrides: str) -> list[str]:
    return [str(problem) for problem in load_text(text, "popgate.toml", overrides).warnings]


def minimal(*overrides: str) -> Loaded:
    return load_text(MINIMAL, "/etc/popgate/popgate.toml", overrides)


# -- what a good one gives


def test_defaults_are_filled_in_and_paths_are_absolute() -> None:
    loaded = minimal("data_dir=data", "tls.certificate=cert.pem", "auth.backends=['passwd_file:users']")
    config = loaded.config
    assert loaded.warnings == ()
    assert config.data_dir == "/etc/popgate/data"
    assert config.tls.certificate == "/etc/popgate/data/cert.pem"
    assert config.tls.key == ""
    assert config.grants.store == "directory:/etc/popgate/data/allow"
    assert config.grant_directory == "/etc/popgate/data/allow"
    assert list(config.auth_backends()) == [("passwd_file", "/etc/popgate/data/users")]
    assert config.accounts_file == "/etc/popgate/data/accounts.db"


def test_names_of_domains_are_lower_case() -> None:
    config = minimal("hostname=Mail.Example.ORG", 'local_domains=["Example.org"]').config
    assert (config.hostname, config.local_domains) == ("mail.example.org", ["example.org"])


def test_zero_workers_are_one_a_core() -> None:
    assert minimal().config.worker_count >= 1
    assert minimal("workers=3").config.worker_count == 3


@pytest.mark.parametrize(
    ("service", "given", "expected"),
    [
        ("smtp", None, {"grant", "auth"}),
        ("submission", None, {"auth"}),
        ("pop3", None, set()),
        ("imap", None, set()),
        ("smtp", [], set()),
        ("smtp", ["grant"], {"grant"}),
        ("submission", ["grant", "auth"], {"grant", "auth"}),
    ],
)
def test_what_lets_a_client_relay_depends_on_the_service(
    service: str, given: list[str] | None, expected: set[str]
) -> None:
    listener = ListenerSettings(service=service, bind="127.0.0.1:0", relay_by=given)  # type: ignore[arg-type]
    assert relay_by(listener) == expected


def test_the_sample_loads_without_error_or_warning() -> None:
    loaded = load_text(sample(), "popgate.toml")
    assert loaded.warnings == ()
    assert loaded.config.listener[0].bind == "0.0.0.0:25"


def test_the_sample_changes_no_default() -> None:
    """A setting that the sample shows as a comment has the value that stands there."""
    plain = load_text("\n".join(f"{k} = {to_toml(v)}" for k, v in SAMPLE.items()), "popgate.toml").config
    text = re.sub(r"(?m)^# Not set.*\n#.*\n", "", sample())
    text = re.sub(r"(?m)^#\[\[.*\n(#.*\n)*", "", text)
    uncommented = re.sub(r"(?m)^#(\w+ = )", r"\1", text)
    assert uncommented.count(" = ") > text.count("\n#") // 4
    loaded = load_text(uncommented, "popgate.toml").config
    assert loaded.grants == plain.grants
    assert loaded.limits == plain.limits
    assert loaded.log == plain.log


def examples() -> list[tuple[str, Setting]]:
    found = [("", setting) for setting in settings_of(Config)]
    for name, table in tables_of(Config):
        assert table.table is not None
        found += [(f"{name}.", setting) for setting in settings_of(table.table)]
    return [(prefix, setting) for prefix, setting in found if setting.table is None]


def key_of(prefix: str, setting: Setting) -> str:
    for array in ("listener.", "route.", "follow.", "map."):
        prefix = prefix.replace(array, f"{array}0.")
    return prefix + setting.name


# A load balancer's network that never gets a grant
BALANCER = 'proxy_from = ["192.0.2.0/24"]\n[grants]\nnever = ["192.0.2.0/23"]\n'
ROUTE = '[[delivery.route]]\ndomains = ["partner.example"]\nto = "mx:"\n'
FOLLOW = '[[follow]]\nfile = "/var/log/mail.log"\n'
MAP = '[[map]]\npath = "/run/popgate/relay"\nkind = "text"\n'


@pytest.mark.parametrize(
    ("prefix", "setting"),
    [pair for pair in examples() if pair[1].doc.example],
    ids=lambda part: str(part)[:40],
)
def test_each_documented_example_loads(prefix: str, setting: Setting) -> None:
    text = MINIMAL.replace('"pop3"', '"smtp"') + ROUTE + FOLLOW + MAP
    load_text(text, "popgate.toml", [f"{key_of(prefix, setting)}={setting.doc.example}"])


def outside(setting: Setting) -> list[str]:
    if setting.bounds is not None:
        least, greatest = setting.bounds.least, setting.bounds.greatest
        return [str(int(least) - 1), str(int(greatest) + 1), "nan", "inf", "1e30", "true", '"1"', "[1]"]
    if setting.kind is bool:
        return ["1", '"true"', '"no"', "[]"]
    if setting.kind is str:
        return ["1", "true", "[]", "1.5"]
    if setting.wants.startswith("one of"):
        return ["1", '"nonsense"', '""', "[]"]
    return ["1", '"text"', "true", "[1]"]


@pytest.mark.parametrize(
    ("key", "given"),
    [(key_of(prefix, setting), given) for prefix, setting in examples() for given in outside(setting)],
)
def test_a_value_outside_its_bounds_is_told_with_its_name(key: str, given: str) -> None:
    problems = errors_of(MINIMAL + ROUTE + FOLLOW + MAP, f"{key}={given}")
    assert len(problems) == 1
    assert problems[0].startswith(f"--set: {key}")
    assert "must be" in problems[0]


def test_bounds_themselves_are_accepted() -> None:
    for prefix, setting in examples():
        if setting.bounds is None or setting.name == "workers":
            continue
        for number in (setting.bounds.least, setting.bounds.greatest):
            load_text(
                MINIMAL + ROUTE + FOLLOW + MAP, "popgate.toml", [f"{key_of(prefix, setting)}={int(number)}"]
            )


def test_every_setting_can_be_found_by_its_path() -> None:
    for prefix, setting in examples():
        path = tuple(int(part) if part.isdigit() else part for part in key_of(prefix, setting).split("."))
        assert setting_at(Config, path) == setting


# -- what a bad one is told


MISTAKES = [
    # (text to add to or to put in place of the minimal file, what must be said)
    ('hostname = "mail.example.org\n', ":1: is not TOML at column 29: "),
    (
        "hostname = mail.example.org\n",
        ':1: is not TOML at column 12: invalid value (text stands in "quotes")',
    ),
    ("hostname: mail.example.org\n", "(write NAME = VALUE)"),
    ("hostname mail.example.org\n", "(write NAME = VALUE)"),
    (MINIMAL + "[auth]\napop = True\n", ":8: is not TOML at column 8: invalid value (write true or false)"),
    (MINIMAL + "[auth]\napop = yes\n", "(write true or false)"),
    (MINIMAL + "[grants\n", ":7: is not TOML"),
    (MINIMAL + "[auth]\n[auth]\n", ":8: is not TOML"),
    ("workers = 1\nworkers = 2\n", ":2: is not TOML at column 12: cannot overwrite a value"),
    ("a = [\n", "at the end of the file"),
    ("a = " + "[" * 20000, "is nested too deeply"),
    ("", "popgate.toml: hostname: is missing (write hostname = "),
    (
        MINIMAL + "[grants]\nwindow_seconds = 0\n",
        "popgate.toml:8: grants.window_seconds = 0: must be 1 to 86400 seconds (the default is 900.",
    ),
    (
        MINIMAL + "[grants]\nwindow_seconds = -900\n",
        "grants.window_seconds = -900: must be 1 to 86400 seconds",
    ),
    (
        MINIMAL + "[grants]\nwindow_seconds = nan\n",
        "grants.window_seconds = nan: must be a whole number, 1 to",
    ),
    (MINIMAL + "[grants]\nwindow_seconds = 1e30\n", "must be a whole number, 1 to 86400 seconds"),
    (
        MINIMAL + '[grants]\nwindow_seconds = "900"\n',
        'window_seconds = "900": must be a whole number, 1 to 86400 seconds (write window_seconds =',
    ),
    (
        MINIMAL + "[grants]\nwindow = 60\n",
        ":8: grants.window: there is no such setting (did you mean window_sec",
    ),
    (MINIMAL + "[grants]\nwindow-seconds = 60\n", "(did you mean window_seconds?)"),
    (
        MINIMAL + "[grant]\nwindow_seconds = 60\n",
        ":7: grant: there is no such setting (did you mean grants?)",
    ),
    (
        MINIMAL + "window_seconds = 60\n",
        ":7: listener.0.window_seconds: there is no such setting (it belongs under",
    ),
    (
        MINIMAL + "[grants]\nworkers = 2\n",
        "grants.workers: there is no such setting (it belongs at the top of the file, before",
    ),
    (MINIMAL + '[grants]\nsmarthost = ""\n', "(it belongs under [delivery])"),
    (
        'hostname = "mail.example.org"\n[listener]\nservice = "pop3"\n',
        ":2: listener: must be a table (head it with [[listener]])",
    ),
    (MINIMAL + "[[grants]]\nwindow_seconds = 1\n", "must be a table (head it with [grants])"),
    (
        MINIMAL.replace('"pop3"', '"pop"'),
        'must be one of "smtp", "submission", "pop3", "imap", "ucspi", ',
    ),
    (
        MINIMAL.replace('"pop3"', '"pop"'),
        '(did you mean "pop3"?)',
    ),
    (MINIMAL.replace('"pop3"', '"imap4"'), 'listener.0.service = "imap4": must be one of'),
    (MINIMAL.replace("127.0.0.1:110", "127.0.0.1"), "(a port is missing, such as 127.0.0.1:25)"),
    (MINIMAL.replace("127.0.0.1:110", "110"), "(an address is missing before the port, such as 0.0.0.0:110)"),
    (MINIMAL.replace("127.0.0.1:110", "*:110"), "(write 0.0.0.0:110 for every IPv4 address"),
    (MINIMAL.replace("127.0.0.1:110", "::1:110"), "(an IPv6 address stands in brackets: [::1]:110)"),
    (MINIMAL.replace("127.0.0.1:110", "localhost:110"), "(write 127.0.0.1:110; names have no one address)"),
    (MINIMAL.replace("127.0.0.1:110", "127.0.0.1:70000"), "a number from 0 to 65535"),
    (MINIMAL.replace("127.0.0.1:110", "unix:run/x"), "unix: wants an absolute path"),
    (MINIMAL.replace("127.0.0.1:110", "fd:"), "fd: wants the FileDescriptorName="),
    (
        MINIMAL + '[[listener]]\nservice = "smtp"\nbind = "0.0.0.0:110"\n',
        ':9: listener.1.bind = "0.0.0.0:110": is taken: listener 0 has 127.0.0.1:110',
    ),
    (
        MINIMAL + '[[listener]]\nservice = "smtp"\nbind = "[::ffff:127.0.0.1]:110"\n',
        "is taken: listener 0 has",
    ),
    (MINIMAL + 'tls = "starttls"\n', "needs a certificate, and [tls] certificate is not set"),
    (MINIMAL + 'tls = "tls"\n', 'must be one of "none", "starttls", "implicit"'),
    (MINIMAL + 'relay_by = ["grant"]\n', 'listener.0.relay_by = ["grant"]: POP3 relays nothing'),
    (MINIMAL.replace("pop3", "imap") + 'relay_by = ["grant"]\n', "IMAP relays nothing"),
    (MINIMAL + 'relay_by = "grant"\n', 'relay_by = "grant": must be a list in [brackets]'),
    # attack case proxy-026
    (MINIMAL + 'proxy_from = ["0.0.0.0/0"]\n', 'proxy_from.0 = "0.0.0.0/0": is most of the Internet'),
    (MINIMAL + 'proxy_from = ["::/0"]\n', "then anybody could claim any client address"),
    (MINIMAL + 'proxy_from = ["0.0.0.0/1", "128.0.0.0/1"]\n', "is most of the Internet"),
    (MINIMAL + 'proxy_from = ["lb.example.org"]\n', "is not a network"),
    (MINIMAL + '[grants]\ntrusted = ["0.0.0.0/0"]\n', "then popgate would be an open relay"),
    (MINIMAL + '[grants]\ntrusted = ["10.0.0.0/33"]\n', "is not a network (10.0.0.0/33: a prefix length"),
    (MINIMAL + '[grants]\ntrusted = ["010.0.0.0/8"]\n', "a leading zero is read as octal"),
    (MINIMAL + '[grants]\nnever = [\n"127.0.0.0/8",\n"300.1.1.1"]\n', ":10: grants.never.1 ="),
    (MINIMAL + '[grants]\nnever = "10.0.0.0/8"\n', '(write never = ["10.0.0.0/8"])'),
    (MINIMAL + '[grants]\nstore = "/var/spool/allow"\n', "(write directory:/var/spool/allow)"),
    (MINIMAL + '[grants]\nstore = "redis://x"\n', "is no kind of store (directory:PATH or memory:)"),
    (MINIMAL + '[grants]\nstore = "directory:"\n', "names no directory"),
    ("workers = 2\n" + MINIMAL + '[grants]\nstore = "memory:"\n', "2 workers would each keep grants"),
    (MINIMAL + "[auth]\nbackends = []\n", "nobody can log in"),
    (MINIMAL + '[auth]\nbackends = ["ldap:x"]\n', "is no way to check logins"),
    (MINIMAL + '[auth]\nbackends = ["passwd_file:"]\n', "names no file"),
    (MINIMAL + '[auth]\nbackends = ["checkpassword"]\n', "names no program"),
    (MINIMAL.replace('"mail.example.org"', '"mail.example.org."'), "must not end with a dot"),
    (MINIMAL.replace('"mail.example.org"', '"192.0.2.1"'), "looks like an address"),
    (MINIMAL.replace('"mail.example.org"', '""'), 'hostname = "": is empty'),
    (MINIMAL.replace('"mail.example.org"', '"mail_1.example.org"'), "'mail_1' must be letters"),
    (
        MINIMAL.replace('["example.org"]', '["bücher.example"]'),
        "must be in its ASCII form, xn--bcher-kva.example",
    ),
    (MINIMAL.replace('["example.org"]', '["alice@example.org"]'), "must be a domain, without user and @"),
    (MINIMAL.replace('["example.org"]', '"example.org"'), '(write local_domains = ["example.org"])'),
    ('postmaster = "alice"\n' + MINIMAL, "must be a whole address"),
    ('postmaster = "alice@example.net"\n' + MINIMAL, "example.net is not one of local_domains"),
    (MINIMAL + ROUTE.replace("partner.example", "*.partner.example"), "is not a domain name"),
    (MINIMAL + ROUTE.replace('"partner.example"', ""), "a route for no domain"),
    (MINIMAL + '[[delivery.route]]\nto = "mx:"\n', "delivery.route.0.domains: is missing"),
    (MINIMAL + '[delivery]\nsmarthost = "relay.example.net"\n', "is no way out"),
    (MINIMAL + '[delivery]\nsmarthost = "smtp://relay.example.net:0"\n', "is no way out"),
    (MINIMAL + '[delivery]\nsmarthost = "smtps://me@relay.example.net"\n', "has no password"),
    (MINIMAL + ROUTE.replace("mx:", "lmtp://x"), "delivery.route.0.to"),
    (MINIMAL + "[quota]\nx = 1\n", ":7: quota: there is no such setting (known here: hostname,"),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_told_with_place_and_remedy(text: str, told: str) -> None:
    problems = errors_of(text)
    assert any(told in problem for problem in problems), problems
    assert all(problem.startswith("popgate.toml") for problem in problems)


WARNINGS = [
    (MINIMAL.replace("plaintext_login = true", ""), "nobody can log in here"),
    (MINIMAL.replace("127.0.0.1:110", "0.0.0.0:110"), "passwords may cross the Internet in clear"),
    (MINIMAL.replace("127.0.0.1:110", "203.0.113.1:110"), "passwords may cross the Internet in clear"),
    (MINIMAL.replace("mail.example.org", "localhost"), "is not a full name"),
    (MINIMAL + 'tls_profile = "legacy"\n', 'says nothing where tls = "none"'),
    (MINIMAL + "max_connections = 5\n", "one client can take all"),
    (MINIMAL + BALANCER.replace(".0/24", ".7/24", 1), "is read as 192.0.2.0/24"),
    (
        MINIMAL + 'proxy_from = ["192.0.2.7"]\n',
        'would let all behind it relay (add "192.0.2.7" to grants.never)',
    ),
    (
        MINIMAL + 'proxy_from = ["2001:db8::/48"]\n[grants]\nnever = ["2001:db8::/64"]\n',
        'add "2001:db8::/48" to grants.never',
    ),
    (
        MINIMAL + BALANCER + 'trusted = ["192.0.2.128/25"]\n',
        "take the load balancer out of grants.trusted",
    ),
    (
        MINIMAL.replace('"pop3"', '"smtp"').replace("plaintext_login = true", 'relay_by = ["auth"]'),
        "authenticate",
    ),
    (MINIMAL + "[grants]\nmax_age_seconds = 60\n", "ends every grant before window_seconds = 900 does"),
    (MINIMAL + '[grants]\ntrusted = ["127.0.0.1"]\n', "overlaps with never = 127.0.0.0/8"),
    (MINIMAL + '[grants]\nnever = ["::/0"]\n', "no address can get a grant"),
    (MINIMAL + "[grants]\nquota_bytes = 1000\n", "is less than one message may have"),
    (MINIMAL + '[auth]\nbackends = ["accounts", "accounts"]\n', "stands here twice"),
    (MINIMAL + '[auth]\napop = true\nbackends = ["passwd_file:x"]\n', "only the accounts database"),
    (MINIMAL + "[delivery]\nmax_retry_seconds = 60\n", "is less than first_retry_seconds = 300"),
    (MINIMAL + "[delivery]\nlifetime_seconds = 60\n", "bounces before it is tried a second time"),
    (MINIMAL + '[delivery]\nsmarthost = "smtp://me:secret@relay.example.net"\n', "without TLS"),
    (MINIMAL + '[delivery]\npassword_file = "p"\n', "there is no smarthost"),
    (
        MINIMAL.replace('"pop3"', '"smtp"').replace("127.0.0.1:110", "0.0.0.0:25")
        + '[delivery]\nsmarthost = "smtp://mail.example.org"\n',
        "leads back to this server",
    ),
    (MINIMAL + ROUTE + ROUTE, "is never used: route 0 has it already"),
    (MINIMAL + ROUTE.replace("partner.example", "Example.org"), "it is one of local_domains"),
    (MINIMAL + "[limits]\nrecipients = 10\n", "RFC 5321 asks for at least 100"),
    (MINIMAL + "[limits]\npop3_idle_seconds = 60\n", "RFC 1939 asks for at least 600"),
    (MINIMAL + "[limits]\nimap_idle_seconds = 1740\n", "RFC 9051 asks for at least 1800"),
    (
        MINIMAL.replace('"pop3"', '"imap"').replace("plaintext_login = true", ""),
        "nobody can log in here: there is no TLS, and plaintext_login is false",
    ),
    (
        MINIMAL.replace('"pop3"', '"imap"').replace("127.0.0.1:110", "0.0.0.0:143"),
        "passwords may cross the Internet in clear",
    ),
]


@pytest.mark.parametrize(("text", "told"), WARNINGS, ids=range(len(WARNINGS)))
def test_doubts_are_warnings_and_no_errors(text: str, told: str) -> None:
    found = warnings_of(text)
    assert any(told in warning for warning in found), found


def test_a_balancer_that_never_gets_a_grant_is_no_doubt() -> None:
    assert warnings_of(MINIMAL + BALANCER) == []


def test_a_password_file_completes_the_smart_host() -> None:
    assert "delivery" not in str(
        minimal("delivery.smarthost=smtps://me@relay.example.net", "delivery.password_file=p").warnings
    )


def test_all_mistakes_come_at_once_and_in_the_order_of_the_file() -> None:
    problems = errors_of(
        MINIMAL.replace("pop3", "pop4").replace("example.org", "-.org")
        + "[grants]\nwindow_seconds = 0\nfoo = 1\n",
        "workers=-1",
    )
    starts = [problem.partition(" ")[0] for problem in problems]
    assert starts == [f"popgate.toml:{line}:" for line in (1, 2, 4, 8, 9)] + ["--set:"]


def test_a_wrong_value_is_told_once_only() -> None:
    assert len(errors_of(MINIMAL.replace('"127.0.0.1:110"', "110"))) == 1


# -- overrides


def test_overrides_are_toml_and_else_text() -> None:
    config = minimal(
        "workers=2",
        "hostname=mx.example.net",
        "listener.0.bind=127.0.0.1:1110",
        "grants.trusted=['192.0.2.0/28']",
        "auth.apop=true",
    ).config
    assert config.workers == 2
    assert config.hostname == "mx.example.net"
    assert config.listener[0].bind == "127.0.0.1:1110"
    assert config.grants.trusted == ["192.0.2.0/28"]
    assert config.auth.apop is True


def test_an_override_may_add_a_listener() -> None:
    config = minimal("listener.1.service=smtp", "listener.1.bind=127.0.0.1:0").config
    assert config.listener[1].bind == "127.0.0.1:0"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("workers", "'workers' is not KEY=VALUE"),
        ("=1", "is not KEY=VALUE"),
        ("grants..x=1", "is not KEY=VALUE"),
        ("listener.7.bind=x", "the list there has 1 elements"),
        ("hostname.x=1", "there is no table at that place"),
        ("wokers=1", "--set: wokers: there is no such setting (did you mean workers?)"),
        ("hostname=a\nworkers=2", "is not a domain name"),
    ],
)
def test_wrong_overrides_name_the_option(override: str, told: str) -> None:
    problems = errors_of(MINIMAL, override)
    assert told in problems[0]
    assert problems[0].startswith("--set")


# -- files


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load(str(tmp_path / "popgate.toml"))


def test_text_that_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "popgate.toml"
    path.write_bytes(b'# one\n# caf\xe9\nhostname = "x"\n')
    with pytest.raises(ConfigError, match=r"popgate\.toml:2: is not UTF-8 text"):
        load(str(path))


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "popgate.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    path.chmod(0o600)
    load(str(path), check_files=False)


def test_a_file_that_everybody_can_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "popgate.toml"
    path.write_text(MINIMAL)
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="everybody on this machine can change it"):
        load(str(path), check_files=False)


def test_a_password_in_a_readable_file_is_refused_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "popgate.toml"
    path.write_text(MINIMAL + '[delivery]\nsmarthost = "smtps://popgate:geheim@relay.example.net"\n')
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can read this password") as caught:
        load(str(path), check_files=False)
    assert "geheim" not in str(caught.value)
    path.chmod(0o640)
    load(str(path), check_files=False)


def test_the_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("given.toml", {"POPGATE_CONFIG": "env.toml"}) == "given.toml"
    assert find(None, {"POPGATE_CONFIG": "env.toml"}) == "env.toml"
    (tmp_path / "popgate.toml").write_text("")
    assert find(None, {}) == "popgate.toml"


def test_the_documents_are_up_to_date() -> None:
    from tools.generated import GENERATORS, stale

    assert stale(Path(__file__).parents[2], GENERATORS) == {}


def test_the_committed_sample_is_toml() -> None:
    text = (Path(__file__).parents[2] / "docs" / "popgate.toml.sample").read_text()
    assert tomllib.loads(text)["hostname"] == "mail.example.org"
