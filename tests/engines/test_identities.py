"""Who logged in: one user, however it is written, and never two users in one."""

import pytest

from popgate.values import identity as module
from popgate.values.identity import Identity, IdentityError


def test_spellings_of_one_user_are_equal() -> None:
    spellings = [
        Identity.parse("Sales@Example.COM"),
        Identity.parse("sales@example.com"),
        Identity("SALES", "example.com"),
    ]
    assert len(set(spellings)) == 1
    assert {str(each) for each in spellings} == {"sales@example.com"}
    assert {(each.user, each.domain) for each in spellings} == {("sales", "example.com")}


def test_others_are_not() -> None:
    others = [
        Identity("sales"),
        Identity("sales", "example.org"),
        Identity("sale", "s.example.com"),
        Identity("sales", "com"),
    ]
    assert len({*others, Identity("sales", "example.com")}) == 5
    assert Identity("sales") != "sales"


def test_what_is_no_name_is_refused_each_time() -> None:
    for _ in range(2):
        for text in ("", "@", "a@", "@b", "a@b@c", "a b", "a/b", "..", "é", "a@-b", "a@b..c", "x" * 65):
            with pytest.raises(IdentityError):
                Identity.parse(text)


def test_a_name_is_read_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", {})
    first = Identity.parse("sales@example.com")
    assert Identity.parse("sales@example.com") is first
    for number in range(10_000):
        assert str(Identity.parse(f"user{number}")) == f"user{number}"
        assert len(module._known) <= module._MAX_KNOWN
    assert Identity.parse("sales@example.com") == first
