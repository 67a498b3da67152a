"""Line ends: whatever the bytes and wherever the cuts, what goes in as CRLF comes out the same."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from popgate.files.real import RealDisk
from popgate.mailbox.backends.maildir import MaildirMailboxes
from popgate.mailbox.backends.maildir_names import (
    arrival_of,
    host_part,
    seen_name,
    sizes_of,
    split_name,
    uid_of,
)
from popgate.mailbox.line_ends import BLOCK, READ_BLOCK, StoredForm, measure, to_wire, top
from popgate.values.identity import Identity

# mostly what is interesting, cut into pieces wherever it likes
PIECES = st.lists(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b"\0", b"\xff"]), max_size=6).map(b"".join),
    max_size=12,
)
NAMES = st.text(
    st.one_of(
        st.sampled_from(":2,1SFW=.0#! \n"), st.characters(exclude_categories=["Cs"], max_codepoint=0x2FF)
    ),
    min_size=1,
    max_size=90,
).filter(lambda name: "/" not in name and "\0" not in name)


def normal(data: bytes) -> bytes:
    """The specification in two lines: LF gets its CR, the last line its end."""
    data = re.sub(rb"(?<!\r)\n", b"\r\n", data)
    return data if data.endswith(b"\n") or not data else data + (b"\n" if data.endswith(b"\r") else b"\r\n")


def stored_form(blocks):
    form = StoredForm()
    stored = b"".join([form.feed(block) for block in blocks] + [form.finish()])
    assert form.stored_octets == len(stored)
    return stored, form.wire_octets


@given(PIECES, PIECES)
def test_to_disk_and_back(blocks, cuts):
    data = b"".join(blocks)
    stored, octets = stored_form(blocks)
    assert stored == stored_form([data])[0]
    wire = b"".join(to_wire([stored]))
    assert wire == normal(data)
    assert octets == len(wire) == measure([stored])
    # what is on disk has LF line ends, but where a lone CR stands before one
    assert re.search(rb"(?<!\r)\r\n", stored) is None


@given(PIECES)
def test_reading_and_measuring_do_not_depend_on_the_cuts(blocks):
    data = b"".join(blocks)
    whole = b"".join(to_wire([data]))
    assert whole == normal(data)
    pieces = list(to_wire(blocks))
    assert b"".join(pieces) == whole and b"" not in pieces
    assert measure(blocks) == measure([data]) == len(whole)


@given(st.sampled_from([b"\n", b"\r\n", b"\r", b"ab\n"]), st.sampled_from([b"", b"x", b"\r", b"x\r"]))
@settings(max_examples=20)
def test_blocks_never_grow_over_the_limit(unit, first):
    data = first + unit * 100_000
    blocks = [data[at : at + READ_BLOCK] for at in range(0, len(data), READ_BLOCK)]
    assert all(0 < len(block) <= BLOCK for block in to_wire(blocks))


@given(PIECES, st.integers(0, 5), st.integers(1, 7))
def test_top_is_the_header_and_so_many_lines(blocks, body_lines, cut):
    wire = b"".join(to_wire(blocks))
    found = re.search(rb"\A\r\n|\r\n\r\n", wire)
    end = found.end() if found else len(wire)
    expected = wire[:end] + b"".join(re.findall(rb"[^\n]*\n", wire[end:])[:body_lines])
    pieces = [wire[at : at + cut] for at in range(0, len(wire), cut)]
    assert b"".join(top(pieces, body_lines)) == expected


class Clock:
    def now(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 1.0


@given(st.lists(PIECES, min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_a_maildir_gives_back_what_was_delivered(tmp_path_factory, bodies):
    root = tmp_path_factory.mktemp("mail")
    mailboxes = MaildirMailboxes(str(root), RealDisk(), Clock(), "h", lambda event: None)
    identity = Identity("a", "example.com")
    for blocks in bodies:
        mailboxes.deliver(identity, blocks)
    maildrop = mailboxes.open_maildrop(identity)
    got = [b"".join(maildrop.read(index)) for index in range(len(maildrop.messages))]
    assert sorted(got) == sorted(normal(b"".join(blocks)) for blocks in bodies)
    assert [message.octets for message in maildrop.messages] == [len(each) for each in got]
    maildrop.close()


@given(NAMES)
def test_a_name_keeps_its_base_and_its_uid(name):
    base, info = split_name(name)
    assert base + info == name and base
    marked = seen_name(name)
    assert split_name(marked)[0] == base
    assert seen_name(marked) == marked
    assert re.fullmatch("[!-~]{1,70}", uid_of(base))
    sizes_of(base), arrival_of(base)


@given(NAMES, NAMES)
def test_two_bases_have_two_uids(one, other):
    assert (uid_of(one) == uid_of(other)) == (one == other)
    assert uid_of(uid_of(one)) == uid_of(one) or uid_of(one).startswith("#")


@given(st.text(max_size=300))
def test_any_host_name_fits_into_a_file_name(hostname):
    assert re.fullmatch(r"[A-Za-z0-9._\\-]{1,100}", host_part(hostname))


def test_host_names_are_escaped_as_maildir_programs_do():
    assert host_part("mx.example.com") == "mx.example.com"
    assert host_part("a/b:c,d") == r"a\057b\072c\054d"
