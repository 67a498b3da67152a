"""Threads of messages (RFC 5256 3): ORDEREDSUBJECT and REFERENCES.

A forest is a flat tuple of (depth, number) in the order of a walk from parents to children, because a
thread may be as deep as it has messages and nothing that nests so deep can be copied or compared.
A number None is a message that others name as their parent and that is not there.
"""

from collections.abc import Iterable, Sequence

from popgate.values.value import value

Forest = tuple[tuple[int, int | None], ...]


@value
class ThreadItem:
    """A message to thread. `number`: sequence number or uid, whichever the answer tells; items come in
    order of the sequence numbers. `message_id`, `references`: normalised (`message_ids`);
    `references` are the ids of the References field or else the first of In-Reply-To.
    `subject`: the base subject, folded for comparing; `sent`: Unix seconds of the Date field, the
    internal date where it has none."""

    number: int
    message_id: str | None
    references: tuple[str, ...]
    subject: str
    is_reply: bool
    sent: int


def ordered_subject(items: Sequence[ThreadItem]) -> Forest:
    """RFC 5256 3 ORDEREDSUBJECT: a thread a base subject, all others children of its first message."""
    threads: dict[str, list[ThreadItem]] = {}
    for item in sorted(items, key=_sent):
        threads.setdefault(item.subject, []).append(item)
    # sorting was stable, so threads stand in the order of their first messages
    return tuple(
        (int(place > 0), item.number) for thread in threads.values() for place, item in enumerate(thread)
    )


def _sent(item: ThreadItem) -> int:
    return item.sent


class _Node:
    """A container of the algorithm: an id, its message if there is one, its place in the forest."""

    __slots__ = ("children", "is_parent", "item", "parent", "sent")

    def __init__(self, item: ThreadItem | None = None) -> None:
        self.item = item
        self.parent: _Node | None = None
        self.is_parent = False  # of some node, now or before
        self.children: list[_Node] = []
        self.sent = item.sent if item is not None else 0


def references(items: Sequence[ThreadItem]) -> Forest:
    """RFC 5256 3 REFERENCES."""
    roots = _by_references(items)
    roots = _pruned(roots)
    _sort_all(roots)
    roots = _by_subject(roots)
    _sort_all(roots)
    return _flat(roots)


def _by_references(items: Sequence[ThreadItem]) -> list[_Node]:
    """Step 1: link what refers to each other; and step 2: those without a parent."""
    nodes: dict[str, _Node] = {}
    every: list[_Node] = []
    for item in items:
        node = nodes.get(item.message_id) if item.message_id is not None else None
        if node is None or node.item is not None:
            # an id used twice counts for the first; the other message is as one without an id
            is_taken = node is not None
            node = _Node(item)
            every.append(node)
            if item.message_id is not None and not is_taken:
                nodes[item.message_id] = node
        else:
            node.item, node.sent = item, item.sent
        parent: _Node | None = None
        for reference in item.references:
            referred = nodes.get(reference)
            if referred is None:
                referred = nodes[reference] = _Node()
                every.append(referred)
            # (A): existing links stay, and no loop is made
            if parent is not None and referred.parent is None and not _is_below(parent, referred):
                referred.parent = parent
                parent.is_parent = True
            parent = referred
        # (B): the last reference is the parent, even where another's references said otherwise
        if parent is not None and node.parent is not parent and not _is_below(parent, node):
            node.parent = parent
            parent.is_parent = True
        elif parent is None:
            node.parent = None
    for node in every:
        if node.parent is not None:
            node.parent.children.append(node)
    return [node for node in every if node.parent is None]


def _is_below(node: _Node | None, ancestor: _Node) -> bool:
    if not ancestor.is_parent:
        return node is ancestor  # so a long chain of replies is not walked for each of them
    while node is not None:
        if node is ancestor:
            return True
        node = node.parent
    return False


def _pruned(roots: list[_Node]) -> list[_Node]:
    """Step 3: ids without message go; their children take their place, but more than one stays
    together under a root."""
    for node in reversed(_walk(roots)):
        kept: list[_Node] = []
        for child in node.children:
            if child.item is None:
                kept += child.children
            else:
                kept.append(child)
        node.children = kept
    found: list[_Node] = []
    for root in roots:
        if root.item is not None or len(root.children) > 1:
            found.append(root)
        else:
            found += root.children
    return found


def _walk(roots: Iterable[_Node]) -> list[_Node]:
    """All nodes, parents before their children."""
    found = list(roots)
    for node in found:
        found += node.children
    return found


def _sort_all(roots: list[_Node]) -> None:
    """Steps 4 and 6: siblings by date sent, then by number; one without message counts as its first child."""
    for node in reversed(_walk(roots)):
        if len(node.children) > 1:
            node.children.sort(key=_node_key)
        if node.item is None and node.children:
            node.sent = node.children[0].sent
    roots.sort(key=_node_key)


def _node_key(node: _Node) -> tuple[int, int]:
    item = node.item
    while item is None and node.children:
        node = node.children[0]
        item = node.item
    return node.sent, item.number if item is not None else 0


def _first_item(node: _Node) -> ThreadItem | None:
    return node.item if node.item is not None or not node.children else node.children[0].item


def _by_subject(roots: list[_Node]) -> list[_Node]:
    """Step 5: threads of one base subject become one."""
    table: dict[str, _Node] = {}
    for root in roots:
        item = _first_item(root)
        if item is None or not item.subject:
            continue
        other = table.get(item.subject)
        if other is None:
            table[item.subject] = root
            continue
        # (B): a dummy, or a message that is no reply, stands for its subject rather
        other_item = _first_item(other)
        is_better = root.item is None and other.item is not None
        if not is_better and other.item is not None and other_item is not None:
            is_better = other_item.is_reply and not item.is_reply
        if is_better:
            table[item.subject] = root
    found: list[_Node] = []
    places: dict[int, int] = {}
    for root in roots:
        item = _first_item(root)
        other = table.get(item.subject) if item is not None and item.subject else None
        if item is None or other is None or other is root:
            places[id(root)] = len(found)
            found.append(root)
        elif other.item is None and root.item is None:
            other.children += root.children
        elif other.item is None or (root.item is not None and item.is_reply and not _is_reply(other)):
            other.children.append(root)
        else:
            # two of equal standing become siblings below a node of their own; `other` came before
            both = _Node()
            both.children = [other, root]
            table[item.subject] = both
            found[places[id(other)]] = both
    return found


def _is_reply(node: _Node) -> bool:
    item = _first_item(node)
    return item is not None and item.is_reply


def _flat(roots: list[_Node]) -> Forest:
    found: list[tuple[int, int | None]] = []
    open_nodes = [(0, root) for root in reversed(roots)]
    while open_nodes:
        depth, node = open_nodes.pop()
        found.append((depth, node.item.number if node.item is not None else None))
        open_nodes += [(depth + 1, child) for child in reversed(node.children)]
    return tuple(found)


def thread_list(forest: Forest) -> str:
    """The forest in parentheses as RFC 5256 4 writes it: `(2)(3 6 (4 23)(44 7 96))`."""
    children = [0] * (len(forest) + 1)
    parents: list[int] = []
    for index, (depth, _) in enumerate(forest):
        del parents[depth:]
        if parents:
            children[parents[-1]] += 1
        parents.append(index)
    out: list[str] = []
    open_at: list[tuple[int, bool]] = []  # of each ancestor: the children it has, whether it opened a "("
    for index, (depth, number) in enumerate(forest):
        while len(open_at) > depth:
            if open_at.pop()[1]:
                out.append(")")
        opens = depth == 0 or open_at[-1][0] > 1
        if opens:
            out.append("(" if not out or out[-1] in ("(", ")") else " (" if depth else "(")
        elif out[-1] != "(":
            out.append(" ")
        if number is not None:
            out.append(str(number))
        open_at.append((children[index], opens))
    out += [")" for _, opens in open_at if opens]
    return "".join(out)
