"""Which octets of a message a section of FETCH means (RFC 9051 6.4.5.1)."""

from typing import Literal

from popgate.message.part import Part

What = Literal["all", "header", "header.fields", "header.fields.not", "text", "mime"]


def part_of(root: Part, part: tuple[int, ...]) -> Part | None:
    """The part that has these numbers; () is the message itself."""
    # RFC 9051 6.4.5.1: the parts of a multipart are counted; the body of a message that is no multipart
    # is its part 1; numbers behind a message/rfc822 part count in the message within
    node, is_message = root, True
    for number in part:
        if not is_message and node.is_message:
            node, is_message = node.parts[0], True
        if node.is_multipart:
            if not 1 <= number <= len(node.parts):
                return None
            node, is_message = node.parts[number - 1], False
        elif is_message and number == 1:
            is_message = False
        else:
            return None
    return node


def locate(root: Part, part: tuple[int, ...], what: What) -> tuple[int, int] | None:
    """First octet of the section and the one behind its last; None where there is no such part.

    For `header.fields` and `header.fields.not` that is the header to select from. HEADER and TEXT
    of a part are those of the message in it: None where it is no message/rfc822.
    """
    node = part_of(root, part)
    if node is None:
        return None
    if part:
        if what == "all":
            return node.body, node.end
        if what == "mime":
            return node.start, node.body
        if not node.is_message:
            return None
        node = node.parts[0]
    elif what == "all":
        return node.start, node.end
    return (node.body, node.end) if what == "text" else (node.start, node.body)
