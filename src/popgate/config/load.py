"""From a file and `--set` options to one checked Config.

Order: read, parse, set overrides, check types and bounds, make paths absolute, check
what belongs together, check what lies on the disk. Everything that is wrong is told at
once; only a file that is not TOML ends the work early.
"""

import codecs
import os
import re
import stat
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from popgate.config.checks import nul_findings, value_findings
from popgate.config.files import file_findings
from popgate.config.lines import KeyPath, key_lines, nearest_line
from popgate.config.problem import ConfigError, Problem
from popgate.config.schema import Finding, repaired, validate
from popgate.config.settings import Config, relay_by
from popgate.config.toml import to_key, to_toml
from popgate.values.value import value

SEARCH = ("popgate.toml", "/etc/popgate/popgate.toml")
"""Where the configuration is looked for when neither --config nor $POPGATE_CONFIG names it."""


@value
class Loaded:
    """A configuration that can be used, and what its owner should hear about it."""

    config: Config
    warnings: tuple[Problem, ...]
    file: str


def find(option: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The path of the configuration: `option`, else $POPGATE_CONFIG, else the first of SEARCH that
    exists. Raises ConfigError when there is none."""
    if option:
        return option
    if environ.get("POPGATE_CONFIG"):
        return environ["POPGATE_CONFIG"]
    for name in SEARCH:
        if os.path.exists(name):
            return name
    raise ConfigError(
        [
            Problem(
                SEARCH[-1],
                0,
                "",
                "",
                "there is no configuration",
                "popgate init makes one; or give --config FILE",
            )
        ]
    )


def load(path: str, overrides: Sequence[str] = (), *, check_files: bool = True) -> Loaded:
    """Read and check the file at `path` with `overrides` (KEY=VALUE each) on top.

    `check_files` is for whoever is about to serve: it also checks that certificate, key,
    user, directories and programs are there and safe. Raises ConfigError.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except OSError as error:
        raise ConfigError(
            [Problem(path, 0, "", "", f"cannot be read: {error.strerror}", "popgate init makes one")]
        ) from None
    return load_bytes(data, path, overrides, check_files=check_files, mode=mode)


def load_text(text: str, file: str = "(built in)", overrides: Sequence[str] = ()) -> Loaded:
    """Check a document that lies in no file, without looking at the disk. Raises ConfigError."""
    return load_bytes(text.encode(), file, overrides, check_files=False)


def load_bytes(
    data: bytes, path: str, overrides: Sequence[str] = (), *, check_files: bool = True, mode: int = 0o600
) -> Loaded:
    """`load` for a document already read, with the permissions of its file."""
    document, lines = _parse(data, path)
    overridden = _override(document, overrides)
    teller = _Teller(path, document, lines, overridden)
    config, findings = validate(Config, document)
    errors = [teller.problem(finding) for finding in findings]
    bad = [finding.path for finding in findings]
    if config is None:
        config, leftover = validate(Config, repaired(Config, document, bad))
        assert config is not None, leftover
    _make_absolute(config, os.path.dirname(os.path.abspath(path)))
    warnings: list[Problem] = []
    found = list(value_findings(config))
    found += list(_mode_findings(config, mode))
    nul = list(nul_findings(config))
    found += nul
    if check_files and not nul:
        found += file_findings(config, time.time())
    for is_error, finding in found:
        if any(_touch(finding.path, path) for path in bad):
            continue
        (errors if is_error else warnings).append(teller.problem(finding))
    if errors:
        raise ConfigError(sorted(errors, key=_place), sorted(warnings, key=_place))
    _fill_in(config)
    return Loaded(config, tuple(sorted(warnings, key=_place)), path)


def _place(problem: Problem) -> tuple[bool, int]:
    return problem.file == "--set", problem.line


def _touch(one: KeyPath, other: KeyPath) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _parse(data: bytes, path: str) -> tuple[dict[str, object], dict[KeyPath, int]]:
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            [Problem(path, line, "", "", "is not UTF-8 text", "save the file with the encoding UTF-8")]
        ) from None
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([_syntax_problem(path, text, error)]) from None
    return document, key_lines(text)


def _syntax_problem(path: str, text: str, error: Exception) -> Problem:
    words = str(error)
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", words)
    line, column = 0, ""
    if place:
        words = words[: place.start()]
        line = int(place[1]) if place[1] else text.count("\n") + 1
        column = f" at column {place[2]}" if place[2] else " at the end of the file"
    written = text.split("\n")[line - 1].strip() if 0 < line <= text.count("\n") + 1 else ""
    remedy = ""
    if re.search(r"=\s*(True|False|yes|no|on|off)\b", written):
        remedy = "write true or false"
    elif re.match(r"[\w.-]+\s*=\s*[A-Za-z/\[\]:]", written):
        remedy = 'text stands in "quotes"'
    elif re.match(r"[\w.-]+\s*:", written) or re.match(r"[\w.-]+\s+[^=\s]", written):
        remedy = "write NAME = VALUE"
    if isinstance(error, RecursionError):
        words = "is nested too deeply"
    return Problem(path, line, "", "", f"is not TOML{column}: {words[:1].lower()}{words[1:]}", remedy)


def _override(document: dict[str, object], overrides: Sequence[str]) -> set[KeyPath]:
    """Put each KEY=VALUE into `document`; returns the paths that were set."""
    paths: set[KeyPath] = set()
    for text in overrides:
        key, equals, written = text.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise ConfigError(
                [
                    Problem(
                        "--set", 0, "", "", f"{text!r} is not KEY=VALUE", "such as grants.window_seconds=120"
                    )
                ]
            )
        path: KeyPath = tuple(
            int(part) if part.isascii() and part.isdigit() else part for part in key.split(".")
        )
        _put(document, path, _override_value(written.strip()), key)
        paths.add(path)
    return paths


def _override_value(written: str) -> object:
    """A TOML value; whatever is none is taken as text, so that a shell needs no second quotes."""
    try:
        parsed = tomllib.loads(f"value = {written}")
    except (ValueError, RecursionError):
        return written
    given = parsed.get("value")
    # a date or a second line is never meant
    return given if len(parsed) == 1 and isinstance(given, str | int | float | list | dict) else written


def _put(document: dict[str, object], path: KeyPath, given: object, key: str) -> None:
    place: object = document
    for index, step in enumerate(path):
        is_last = index == len(path) - 1
        if isinstance(place, list):
            if not isinstance(step, int) or step > len(place):
                raise _no_place(key, f"the list there has {len(place)} elements, counted from 0")
            if step == len(place):
                place.append({})
        elif not isinstance(place, dict) or isinstance(step, int):
            raise _no_place(key, "there is no table at that place")
        if is_last:
            place[step] = given  # type: ignore[index]
        elif isinstance(place, list):
            place = place[step]  # type: ignore[index]
        else:
            place = place.setdefault(str(step), [] if isinstance(path[index + 1], int) else {})


def _no_place(key: str, why: str) -> ConfigError:
    return ConfigError([Problem("--set", 0, key, "", "cannot be set", why)])


def _make_absolute(config: Config, directory: str) -> None:
    config.data_dir = os.path.normpath(os.path.join(directory, config.data_dir))
    for owner, name in ((config.tls, "certificate"), (config.tls, "key"), (config.delivery, "password_file"),
                        (config.delivery, "ca_file")):  # fmt: skip
        if getattr(owner, name):
            setattr(owner, name, config.path(getattr(owner, name)))
    for listener in config.listener:
        if listener.rules_file:
            listener.rules_file = config.path(listener.rules_file)
        if listener.key_file:
            listener.key_file = config.path(listener.key_file)
    for follow in config.follow:
        if follow.file:
            follow.file = config.path(follow.file)
        follow.patterns = [config.path(name) if "/" in name else name for name in follow.patterns]
    for each in config.map:
        each.path = config.path(each.path)
    config.auth.backends = [
        f"{kind}:{argument}" if kind == "passwd_file" and not text.endswith(":") else text
        for text, (kind, argument) in zip(config.auth.backends, config.auth_backends(), strict=True)
    ]
    kind, _, rest = config.grants.store.partition(":")
    if kind == "directory" and rest:
        config.grants.store = f"directory:{config.path(rest)}"


def _fill_in(config: Config) -> None:
    """Write down what follows from other settings, in one spelling."""
    config.hostname = config.hostname.lower()
    config.local_domains = list(dict.fromkeys(domain.lower() for domain in config.local_domains))
    config.listener = [
        replace(listener, relay_by=[way for way in ("grant", "auth") if way in relay_by(listener)])
        for listener in config.listener
    ]


def _mode_findings(config: Config, mode: int) -> list[tuple[bool, Finding]]:
    found = []
    if mode & stat.S_IWOTH:
        found.append(
            (True, Finding((), "everybody on this machine can change it", "chmod 644", shows_value=False))
        )
    if mode & stat.S_IROTH:
        urls: list[tuple[KeyPath, str]] = [(("delivery", "smarthost"), config.delivery.smarthost)]
        urls += [
            (("delivery", "route", index, "to"), route.to)
            for index, route in enumerate(config.delivery.route)
        ]
        found += [
            (
                True,
                Finding(
                    path,
                    "everybody on this machine can read this password",
                    "chmod 640 this file, or use password_file",
                    shows_value=False,
                ),
            )
            for path, url in urls
            if mask(url) != url
        ]
    return found


def mask(text: str) -> str:
    """`text` with the password of a URL in it replaced by stars."""
    return re.sub(r"(://[^/@:\s]*):.*@", r"\1:***@", text)


class _Teller:
    """Turns findings into problems, which know their place in the file."""

    def __init__(
        self, file: str, document: dict[str, object], lines: dict[KeyPath, int], overridden: set[KeyPath]
    ) -> None:
        self._file = file
        self._document = document
        self._lines = lines
        self._overridden = overridden

    def problem(self, finding: Finding) -> Problem:
        path = finding.path
        is_override = any(path[: len(key)] == key for key in self._overridden)
        shown = ""
        if finding.shows_value:
            shown = self._shown(path)
        return Problem(
            "--set" if is_override else self._file,
            0 if is_override else nearest_line(self._lines, path),
            ".".join(to_key(str(step)) for step in path),
            shown,
            finding.message,
            finding.remedy,
        )

    def _shown(self, path: KeyPath) -> str:
        place: object = self._document
        for step in path:
            try:
                place = place[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                return ""  # not in the file: a default, or the finding is that it is missing
        text = mask(to_toml(place))
        return text if len(text) <= 80 else text[:77] + "..."
