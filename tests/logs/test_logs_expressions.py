"""Which expressions a pattern may hold: anchored, and never slow, whatever a stranger writes."""

import time
from collections.abc import Callable

import pytest

from popgate.integrations.logs import PatternError, pattern_of, read_pattern, shipped
from popgate.integrations.logs.expressions import ExpressionError, expression, probe
from popgate.integrations.logs.pattern import GROUPS, probe_forms
from popgate.integrations.logs.pattern_set import PatternSetError, pattern_set


@pytest.mark.parametrize(
    "text",
    [
        r"^login (?P<user>[^ ]+) from (?P<address>[0-9.]+)$",
        r"^login (?P<user>\S+), rip=(?P<address>[0-9A-Fa-f:.]{2,45})",
        r"^(?:pop3|imap)-login: x",
        r"(?x)^ login : \s+ x",
        r"^login(?:, [^,]++)*, rip=",
        r"^login(?:(?!\brip=).)*+rip=",
        r"^login (?>.*\brip=)x",
        r"^login (?:a|b|cd)*x",
        r"^(?:Info: )?login x",
        r"^login .* x",
        r"^(?:connect|Connect) from (?P<address>[0-9.]+)$",
    ],
)
def test_what_is_allowed(text: str) -> None:
    expression(text, GROUPS)
    probe(text, time.process_time, 4096)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (r"login (?P<user>\S+)", "begin with ^"),
        (r"^.*login", "any length"),
        (r"^\S+ login", "any length"),
        (r'^[^"]{0,80} login', "any length"),
        (r"^(?:.*|x)login ", "any length"),
        (r"^log|^out", "no fixed text"),
        (r"^a.b.c", "no fixed text"),
        (r"^login (a+)+$", "itself repeated"),
        (r"^login (a*)*$", "itself repeated"),
        (r"^login (?:a+b?)+$", "itself repeated"),
        (r"^login (?:[a-z]+\.?)*$", "itself repeated"),
        (r"^login (?>(?:a+)+b)", "itself repeated"),
        (r"^login (?=(?:a+)+b)", "itself repeated"),
        (r"^login (?:a|a)*$", "begin alike"),
        (r"^login (?:a|ab)*$", "begin alike"),
        (r"^login (?:\w1|\d2)*$", "begin alike"),
        (r"^login (?:aa?)*$", "itself repeated"),
        (r"^login .*a.*b.*c.*d", "too many repeats"),
        (r"^login \S+\S+\S+\S+x", "too many repeats"),
        (r"^login (?P<user>.+)(?P=user)", "refers to a group"),
        (r"^login (a)?(?(1)b|c)", "refers to a group"),
        (r"(?i)^login ", "sets a flag"),
        (r"^login (?i:x)", "sets a flag"),
        (r"^login (?P<name>x)", "group named name"),
        (r"^login (", "not a regular expression"),
        (r"^login (?:x{1,99999999999999999999})", "not a regular expression"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why.replace("^", r"\^")) as caught:
        expression(text, GROUPS)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text", [r"^login (a+)+$", r"^login (?:a|a)*$", r"^login (?:a|ab|b)*c", r"^x{4}.*.*.*.*y"]
)
def test_the_probe_finds_what_is_slow_without_the_rules(text: str) -> None:
    begun = time.process_time()
    with pytest.raises(ExpressionError, match="too long"):
        probe(text, time.process_time, 4096)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("name", shipped())
def test_shipped_expressions_pass_the_probe(name: str) -> None:
    probe_forms(shipped()[name])


@pytest.mark.parametrize("name", shipped())
def test_literals_are_in_the_examples(name: str) -> None:
    """The search for candidates passes over no line that matches."""
    from popgate.integrations.logs.pattern_files import shipped_examples

    for form in shipped()[name].forms:
        assert form.expression.literals
        assert all(len(literal) >= 4 for literal in form.expression.literals)
    lines = [line for example in shipped_examples()[name] if example.sees for line in example.lines]
    literals = [literal for form in shipped()[name].forms for literal in form.expression.literals]
    assert any(literal.decode() in line for line in lines for literal in literals)


OWN = {
    "name": "own",
    "programs": {"popd": "pop3"},
    "login": [r"^login (?P<user>[^ ]+) from (?P<address>[0-9.]+)$"],
}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"name": ""}, ("name",)),
        ({"name": 3}, ("name",)),
        ({"programs": {}}, ("programs",)),
        ({"programs": "popd"}, ("programs",)),
        ({"programs": {"popd": "smtp"}}, ("programs", "popd")),
        ({"login": []}, ("login",)),
        ({"login": "x"}, ("login",)),
        ({"login": [r"^login (?P<user>x)$"]}, ("login", 0)),
        ({"login": [OWN["login"][0], r"^login from (?P<address>[0-9.]+)$"]}, ("login", 1)),  # type: ignore[index]
        ({"first": [r"^hello world$"]}, ("first", 0)),
        ({"logout": [r"^(a+)+$"]}, ("logout", 0)),
        ({"session": "tid"}, ("session",)),
        ({"syntax": "xml"}, ("syntax",)),
        ({"known_from": "a dream"}, ("known_from",)),
        ({"contains": ["a"]}, ("contains", 0)),
        ({"contains": ["a<bcd"]}, ("contains", 0)),
        ({"regex": "x"}, ("regex",)),
    ],
)
def test_mistakes_in_a_pattern_are_named(change: dict[str, object], key: tuple[object, ...]) -> None:
    with pytest.raises(PatternError) as caught:
        pattern_of(OWN | change)
    assert caught.value.key == key
    assert caught.value.remedy


def test_a_pattern_of_two_lines_needs_only_half_in_each() -> None:
    pattern = pattern_of(
        OWN | {"first": [r"^connect from (?P<address>[0-9.]+)$"], "login": [r"^login (?P<user>[^ ]+)$"]}
    )
    assert [form.kind for form in pattern.forms] == ["login", "first"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('name = "a"\nlogin = [\n  "^x",\n]\n', "own.toml: programs: names no program"),
        (
            'name = "a"\nprograms = { p = "pop3" }\nlogin = [\n  "^login (a+)+$",\n]\n',
            "own.toml:4: login.0: repeats",
        ),
        ('name = "a"\nprograms = { p = "x" }\n', "own.toml:2: programs.p: is no protocol"),
        ("name = \n", "own.toml: is not TOML"),
    ],
)
def test_a_file_s_mistakes_have_file_line_and_remedy(
    text: str, told: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("patterns") / "own.toml"
    path.write_text(text)
    with pytest.raises(PatternSetError) as caught:
        pattern_set([str(path)])
    assert told in str(caught.value)


def test_sets_by_name_and_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert [one.name for one in pattern_set(["courier", "dovecot"])] == ["courier", "dovecot"]
    assert {one.name for one in pattern_set([])} == set(shipped())
    directory = tmp_path_factory.mktemp("patterns")
    for name in ("b", "a"):
        (directory / f"{name}.toml").write_text(
            f"name = '{name}'\nprograms = {{ popd = 'pop3' }}\nlogin = ['{OWN['login'][0]}']\n"  # type: ignore[index]
        )
    assert [one.name for one in pattern_set([str(directory)])] == ["a", "b"]
    for names in (["nonsense"], ["./none.toml"], [str(directory.parent / "empty")]):
        with pytest.raises(PatternSetError):
            pattern_set(names)


def test_the_documented_pattern_can_be_used(pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "docs/logs.md").read_text()
    block = text[text.index('name = "mypopd"') :].partition("```")[0]
    pattern = read_pattern(block)
    assert (pattern.name, pattern.session_is_pid) == ("mypopd", True)


def test_a_slow_expression_of_a_site_is_refused_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(text: str, timer: Callable[[], float], longest: int) -> None:
        raise ExpressionError("takes too long", "mend it")

    monkeypatch.setattr("popgate.integrations.logs.pattern.probe", slow)
    with pytest.raises(PatternError, match="too long") as caught:
        read_pattern(f"name = 'own'\nprograms = {{ popd = 'pop3' }}\nlogin = ['{OWN['login'][0]}']\n")  # type: ignore[index]
    assert caught.value.key == ("login", 0)
