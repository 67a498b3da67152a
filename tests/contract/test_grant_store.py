"""The contract of every grant store, run on each of them."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from grants_kit import ALICE, BOB, NOW, address, grant
from popgate.grants import rules
from popgate.grants.grant import Grant, Terms, Usage
from popgate.grants.store import GrantStore
from popgate.grants.stores.directory import DirectoryStore
from popgate.grants.stores.memory import MemoryStore
from popgate.values.identity import Identity


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path) -> Iterator[GrantStore]:
    made: GrantStore = MemoryStore() if request.param == "memory" else DirectoryStore(str(tmp_path / "allow"))
    yield made
    made.close()


def put(store: GrantStore, *grants: Grant) -> None:
    store.change(grants[0].address, lambda _: grants)


RICH = Terms(120, 7200, 5, 50, 10_000_000, ("sales@example.org", "@printers.example"), True)


def test_an_unknown_address_has_no_grants(store: GrantStore) -> None:
    assert list(store.find(address())) == []
    assert list(store.addresses()) == []


@pytest.mark.parametrize("where", ["203.0.113.9", "2001:db8::9", "2001:db8::", "::1.2.3.4"])
def test_what_is_put_is_found(store: GrantStore, where: str) -> None:
    one = grant(where, terms=RICH, used=Usage(1, 2, 3), renewed_at=NOW + 7.25, since=NOW - 100)
    put(store, one)
    assert list(store.find(one.address)) == [one]
    assert list(store.addresses()) == [one.address]


def test_change_returns_what_is_stored(store: GrantStore) -> None:
    one = grant()
    assert list(store.change(one.address, lambda _: [one])) == [one]
    assert list(store.change(one.address, lambda grants: grants)) == [one]


def test_an_empty_result_removes_the_address(store: GrantStore) -> None:
    put(store, grant())
    assert list(store.change(address(), lambda _: [])) == []
    assert list(store.addresses()) == []
    assert list(store.change(address(), lambda _: [])) == []


def test_the_last_login_comes_first(store: GrantStore) -> None:
    put(store, grant(login_at=NOW), grant(identity=BOB, login_at=NOW + 1))
    assert [each.identity for each in store.find(address())] == [BOB, ALICE]


def test_an_identity_stands_once(store: GrantStore) -> None:
    put(store, grant(login_at=NOW), grant(login_at=NOW + 1))
    assert list(store.find(address())) == [grant(login_at=NOW + 1)]


def test_senders_of_any_spelling_come_back(store: GrantStore) -> None:
    terms = Terms(senders=("o'neill+a%b@example.org", "grüße@example.org", 'a,b "c"@example.org'))
    put(store, grant(terms=terms))
    assert store.find(address())[0].terms == terms


def test_more_identities_than_fit_lose_the_oldest(store: GrantStore) -> None:
    many = [grant(identity=Identity(f"user{i:03}", "example.org"), login_at=NOW + i) for i in range(300)]
    put(store, *many)
    found = list(store.find(address()))
    assert found == many[: -len(found) - 1 : -1]
    assert 50 <= len(found) <= rules.MAX_RECORDS


def test_a_changed_count_is_found_at_once(store: GrantStore) -> None:
    put(store, grant())
    for n in range(1, 40):
        store.change(
            address(), lambda grants: [rules.with_used(g, Usage(g.used.messages + 1)) for g in grants]
        )
        assert store.find(address())[0].used.messages == n


def test_sweep_removes_the_dead_alone(store: GrantStore) -> None:
    put(store, grant(login_at=NOW), grant(identity=BOB, login_at=NOW + 1))
    put(store, grant("203.0.113.10", login_at=NOW))
    removed = store.sweep(NOW, lambda each: each.login_at <= NOW)
    assert sorted(removed, key=lambda each: each.address) == [grant(), grant("203.0.113.10")]
    assert list(store.addresses()) == [address()]
    assert [each.identity for each in store.find(address())] == [BOB]


def test_redate_moves_all_times(store: GrantStore) -> None:
    put(store, grant(since=NOW - 50, renewed_at=NOW + 5), rules.retired(grant(identity=BOB, since=NOW - 9)))
    store.redate(-3600.0)
    first, second = store.find(address())
    assert (first.since, first.login_at, first.renewed_at) == (NOW - 3650, NOW - 3600, NOW - 3595)
    assert (second.since, second.login_at, second.renewed_at) == (NOW - 3609, 0, 0)


def test_change_that_raises_changes_nothing(store: GrantStore) -> None:
    put(store, grant())

    def broken(grants):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError):
        store.change(address(), broken)
    assert list(store.find(address())) == [grant()]
    put(store, grant(login_at=NOW + 1))


# Several processes.


def in_children(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in `count` forked processes that start together; all must succeed."""
    ready, go = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(60)
                os.close(go)
                os.read(ready, 1)
                work(number)
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    os.close(ready)
    os.close(go)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count


@pytest.mark.parametrize("made", ["before the fork", "after the fork"])
def test_logins_of_one_instant_all_count(tmp_path, made: str) -> None:
    path = str(tmp_path / "allow")
    shared = DirectoryStore(path, lock_seconds=20)

    def log_in(number: int) -> None:
        store = shared if made == "before the fork" else DirectoryStore(path, lock_seconds=20)
        for turn in range(10):
            who = grant(identity=Identity(f"user{number}-{turn}"), login_at=NOW)
            store.change(who.address, lambda grants, who=who: [who, *grants])

    in_children(4, log_in)
    names = {each.identity.user for each in shared.find(address())}
    assert names == {f"user{number}-{turn}" for number in range(4) for turn in range(10)}


@pytest.mark.parametrize("made", ["before the fork", "after the fork"])
def test_counts_of_two_processes_are_exact(tmp_path, made: str) -> None:
    path = str(tmp_path / "allow")
    shared = DirectoryStore(path, lock_seconds=20)
    put(shared, grant())

    def count(number: int) -> None:
        store = shared if made == "before the fork" else DirectoryStore(path, lock_seconds=20)
        for _ in range(200):
            store.find(address())
            store.change(
                address(),
                lambda grants: [
                    rules.with_used(each, rules.added(each.used, Usage(1, 2, 3))) for each in grants
                ],
            )

    in_children(2, count)
    assert shared.find(address())[0].used == Usage(400, 800, 1200)
