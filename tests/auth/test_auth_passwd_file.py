"""Reading passwd-files."""

import os

import pytest

from popgate.auth.authenticator import LookupUnavailable
from popgate.auth.backends.passwd_file import PasswdFile, PasswdFileError
from popgate.values.identity import Identity


class StandingClock:
    def now(self):
        return 1000.0

    def monotonic(self):
        return 1000.0


@pytest.fixture
def read(tmp_path):
    def read(text, domain="example.org"):
        path = tmp_path / "passwd"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        events = []
        return PasswdFile(str(path), StandingClock(), events.append, domain), events, path

    return read


def lines(events):
    return {
        event.fields["line"]: event.fields["remedy"]
        for event in events
        if event.name == "auth.passwd_file.line"
    }


def test_users_with_and_without_domain(read):
    file, events, _ = read(
        "ann:{PLAIN}a\n# comment\n\nBob@Example.net:{PLAIN}b:1000:1000:Bob::/var/bob:/bin/sh:\r\n"
    )
    assert file.recoverable(Identity("ann", "example.org")).secret == b"a"
    assert file.recoverable(Identity("bob", "example.net")).secret == b"b"
    assert file.credentials(Identity("bob", "example.org")) is None
    assert file.listing(Identity("ann", "example.org")).has_mailbox
    assert file.listing(Identity("carl", "example.org")) is None
    assert [(event.name, event.fields["users"], event.fields["bad_lines"]) for event in events] == [
        ("auth.passwd_file.read", 2, 0)
    ]


def test_names_stay_bare_without_a_default_domain(read):
    file, _, _ = read("ann:{PLAIN}a\n", domain="")
    assert file.credentials(Identity("ann")) is not None


def test_a_password_may_hold_what_is_not_utf8(read):
    file, _, _ = read(b"ann:{PLAIN}caf\xe9\n")
    assert file.recoverable(Identity("ann", "example.org")).secret == b"caf\xe9"


def test_bad_lines_are_named_and_skipped(read):
    file, events, _ = read(
        "ann:{PLAIN}a\n../x:{PLAIN}a\nbob\ncarl:\ndora:{MD5}x\nann@example.org:{PLAIN}b\n"
        "eve:{PLAIN}e:::::: nopassword\n"
        "fred:{PLAIN}f::::::allow_nets=192.0.2.0/24\ngus:{PLAIN}g::::::userdb_mail=x\n"
    )
    found = lines(events)
    assert set(found) == {2, 3, 4, 5, 6, 7, 8}
    assert (
        "{MD5}" in found[5]
        and "earlier" in found[6]
        and "nopassword" in found[7]
        and "allow_nets" in found[8]
    )
    assert not any("{PLAIN}" in str(event.fields.get("remedy")) and event.fields == "b" for event in events)
    assert file.recoverable(Identity("ann", "example.org")).secret == b"a", "the first of two lines counts"
    assert file.credentials(Identity("fred", "example.org")) is None
    assert file.credentials(Identity("gus", "example.org")).is_enabled
    assert events[-1].fields["bad_lines"] == 7


def test_many_bad_lines_are_counted_and_not_all_named(read):
    _, events, _ = read("bad\n" * 1000)
    assert len(lines(events)) == 20
    assert events[-1].fields["bad_lines"] == 1000


def test_locked_and_nologin_are_disabled(read):
    file, _, _ = read("ann:!{PLAIN}a\nbob:*\ncarl:{PLAIN}c::::::nologin\n")
    for name in ("ann", "bob", "carl"):
        assert not file.credentials(Identity(name, "example.org")).is_enabled
        assert file.verify(Identity(name, "example.org"), "!{PLAIN}a", b"a") is None


def test_changed_file_is_read_again_and_an_unchanged_one_is_not(read):
    file, events, path = read("ann:{PLAIN}a\n")
    ann = Identity("ann", "example.org")
    for _ in range(3):
        file.credentials(ann)
    assert len(events) == 1
    path.write_text("ann:{PLAIN}b\n")
    os.utime(path, ns=(1, 1))  # an editor that keeps the old date
    assert file.recoverable(ann).secret == b"b"
    replacement = path.with_name("new")
    replacement.write_text("ann:{PLAIN}c\n")
    replacement.rename(path)
    assert file.recoverable(ann).secret == b"c"
    assert len(events) == 3


def test_file_that_vanishes_is_temporary(read):
    file, _, path = read("ann:{PLAIN}a\n")
    path.unlink()
    for ask in (file.credentials, file.recoverable, file.listing):
        with pytest.raises(LookupUnavailable):
            ask(Identity("ann", "example.org"))
    path.write_text("ann:{PLAIN}a\n")
    assert file.credentials(Identity("ann", "example.org")) is not None


def test_unusable_file_is_refused_at_the_start(tmp_path):
    def start(path):
        PasswdFile(str(path), StandingClock(), lambda event: None)

    with pytest.raises(PasswdFileError, match="No such file"):
        start(tmp_path / "none")
    with pytest.raises(PasswdFileError, match="regular"):
        start(tmp_path)
    (tmp_path / "open").touch()
    (tmp_path / "open").chmod(0o666)
    with pytest.raises(PasswdFileError, match="everybody"):
        start(tmp_path / "open")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PasswdFileError, match="regular"):
        start(tmp_path / "fifo")


def test_dummy_work_is_that_of_the_commonest_costly_scheme(read, monkeypatch):
    file, _, _ = read(
        "a:{PLAIN}a\nb:{BLF-CRYPT}$2y$05$ihurS8jK0hs1ElHM6cuyCeLJog7/IRaUNFSe3.6vohod43rzkufGu\n"
        "c:$5$clZoCdgrjVknOrKR$G25bc1zllrtWl8oclSv0wCpFPoHIN1oFN1HNhnYGja0\n"
        "d:{BLF-CRYPT}$2y$05$ihurS8jK0hs1ElHM6cuyCeLJog7/IRaUNFSe3.6vohod43rzkufGu\n"
    )
    assert file._dummy.cost == "bcrypt 05"
    burnt = []
    monkeypatch.setattr(PasswdFile, "burn", lambda self, password: burnt.append(password))
    assert file.verify(Identity("a", "example.org"), "{PLAIN}a", b"wrong") is None
    assert burnt == [b"wrong"], "a scheme without cost must not stand out"
