"""The example lines in the shipped pattern files: what each tells, alone and with all patterns at once."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest

from popgate.integrations.logs import LoginSeen, Recogniser, Seen, shipped
from popgate.integrations.logs.pattern_files import Example, shipped_examples

NOW = 1795521600.0  # 2026-11-24 12:00 UTC
EXAMPLES = [
    pytest.param(name, example, id=f"{name}-{index}")
    for name, examples in shipped_examples().items()
    for index, example in enumerate(examples)
]


def told(seen: Sequence[Seen]) -> list[str]:
    return [
        " ".join(
            filter(
                None,
                (
                    "login" if isinstance(one, LoginSeen) else "logout",
                    str(one.identity or "-"),
                    str(one.address or "-"),
                    one.protocol,
                    one.session.rpartition(" ")[2],  # without the host
                ),
            )
        )
        for one in seen
    ]


def read(patterns: Sequence[str], example: Example) -> list[str]:
    recogniser = Recogniser(
        [shipped()[name] for name in patterns], ZoneInfo("UTC"), default_domain="example.org"
    )
    return told([one for line in example.lines for one in recogniser.feed(line.encode(), NOW)])


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_lines_of_the_example_tell_what_it_says(name: str, example: Example) -> None:
    assert read([name], example) == list(example.sees)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_other_patterns_change_nothing(name: str, example: Example) -> None:
    # which pattern recognises a line decides whether its end can be told, so sessions may differ
    everything = [line.split(" ")[:4] for line in read(list(shipped()), example)]
    assert everything == [line.split(" ")[:4] for line in example.sees]


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_a_block_tells_what_its_lines_tell(name: str, example: Example) -> None:
    recogniser = Recogniser([shipped()[name]], ZoneInfo("UTC"), default_domain="example.org")
    block = b"".join(f"{line}\n".encode() for line in example.lines)
    assert told(recogniser.feed_block(block, NOW)) == list(example.sees)


@pytest.mark.parametrize("name", shipped())
def test_each_pattern_has_examples_of_both_kinds(name: str) -> None:
    examples = shipped_examples()[name]
    assert any(line.startswith("login") for example in examples for line in example.sees)
    assert any(not example.sees for example in examples)
