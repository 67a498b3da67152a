"""Threads by RFC 5256: what is whose child, and that a long conversation costs what its length is."""

import time

import pytest

from popgate.message.threads import ThreadItem, ordered_subject, references, thread_list


def message(
    number: int, references: tuple[str, ...] = (), subject: str = "s", sent: int | None = None
) -> ThreadItem:
    return ThreadItem(
        number,
        f"m{number}@example.org",
        references,
        subject,
        bool(references),
        number if sent is None else sent,
    )


def test_replies_are_below_what_they_name() -> None:
    items = [
        message(1),
        message(2, ("m1@example.org",)),
        message(3, ("m1@example.org", "m2@example.org")),
        message(4, ("m1@example.org",)),
        message(5, subject="other"),
    ]
    assert thread_list(references(items)) == "(1 (2 3)(4))(5)"


def test_the_example_of_the_rfc() -> None:
    # RFC 5256 4
    forest = ((0, 2), (0, 3), (1, 6), (2, 4), (3, 23), (2, 44), (3, 7), (4, 96), (0, None), (1, 8), (1, 9))
    assert thread_list(forest) == "(2)(3 6 (4 23)(44 7 96))((8)(9))"
    assert thread_list(()) == ""


def test_an_absent_parent_keeps_its_children_together() -> None:
    items = [message(1, ("lost@example.org",), "a"), message(2, ("lost@example.org",), "b")]
    assert thread_list(references(items)) == "((1)(2))"


def test_messages_that_name_each_other_make_no_loop() -> None:
    items = [
        message(1, ("m2@example.org",)),
        message(2, ("m1@example.org",)),
        message(3, ("m3@example.org",)),
    ]
    told = thread_list(references(items))
    assert sorted(char for char in told if char.isdigit()) == ["1", "2", "3"]


def test_one_subject_is_one_thread_in_order_of_the_dates() -> None:
    items = [message(1, sent=9), message(2, subject="t", sent=3), message(3, sent=5)]
    assert thread_list(ordered_subject(items)) == "(2)(3 1)"


@pytest.mark.parametrize("is_backwards", [False, True])
def test_a_long_conversation_is_no_trap(is_backwards: bool) -> None:
    count = 20_000
    items = [
        message(number, (f"m{number - 1}@example.org",) if number > 1 else ())
        for number in range(1, count + 1)
    ]
    if is_backwards:
        items.reverse()
    began = time.process_time()
    forest = references(items)
    assert forest == tuple((number - 1, number) for number in range(1, count + 1))
    # walking up for each reply would be 200 million steps, some 2.5 s
    assert time.process_time() - began < 1.0
