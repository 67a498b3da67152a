"""Checks of what a configuration points to: directories, files, users, programs."""

import grp
import os
import pwd
import shlex
import shutil
import ssl
import stat
from collections.abc import Iterator

from popgate.config.certificates import certificate_findings
from popgate.config.follow import follow_file_findings
from popgate.config.lines import KeyPath
from popgate.config.maps import map_file_findings
from popgate.config.schema import Finding
from popgate.config.settings import Config
from popgate.protocols.relay_ctrl_udp import MIN_KEY_OCTETS
from popgate.servers.settings import HTTP_SERVICES, ListenerSettings

Findings = Iterator[tuple[bool, Finding]]


def file_findings(config: Config, now: float) -> Findings:
    """Yields (is it an error, what was found); for `popgate serve` and `popgate config check`."""
    if not config.listener and not config.follow and not config.map:
        yield (
            True,
            Finding(("listener",), "there is nothing to serve", "write a [[listener]]", shows_value=False),
        )
    yield from follow_file_findings(config)
    yield from map_file_findings(config)
    yield from _user(config)
    yield from _data_dir(config)
    if any(listener.tls != "none" for listener in config.listener):
        yield from certificate_findings(config, now)
    for index, (kind, argument) in enumerate(config.auth_backends()):
        path: KeyPath = ("auth", "backends", index)
        if kind == "passwd_file" and argument != config.data_dir:
            yield from _secret(path, argument)
        elif kind == "checkpassword" and argument.strip():
            yield from _program(path, argument)
    for index, listener in enumerate(config.listener):
        yield from _socket(("listener", index), listener)
        if listener.service == "ucspi":
            yield from _chain(("listener", index), listener.command, listener.rules_file)
        elif listener.service == "relay_ctrl_udp" and listener.key_file:
            yield from _peer_key(("listener", index, "key_file"), listener.key_file, config.user)
        elif listener.service in HTTP_SERVICES and listener.secret_file:
            yield from _peer_key(("listener", index, "secret_file"), listener.secret_file, config.user)
    if config.delivery.password_file:
        yield from _secret(("delivery", "password_file"), config.delivery.password_file)
    if config.delivery.ca_file:
        yield from _authorities(("delivery", "ca_file"), config.delivery.ca_file)


def _user(config: Config) -> Findings:
    if config.user:
        try:
            account = pwd.getpwnam(config.user)
        except KeyError:
            yield (
                True,
                Finding(
                    ("user",),
                    "there is no such user on this machine",
                    f"useradd --system --home-dir {config.data_dir} --shell /usr/sbin/nologin {config.user}",
                ),
            )
            return
        if account.pw_uid == 0:
            yield True, Finding(("user",), "must not be root", 'name a user of its own, such as "popgate"')
        elif os.geteuid() not in (0, account.pw_uid):
            yield (
                False,
                Finding(("user",), "only root can become another user: popgate stays who started it"),
            )
    elif os.geteuid() == 0 and not all(_is_loopback(listener.bind) for listener in config.listener):
        yield (
            False,
            Finding(("user",), "the server would stay root", 'write user = "popgate"', shows_value=False),
        )


def _socket(path: KeyPath, listener: ListenerSettings) -> Findings:
    """A unix socket's directory and group."""
    if not listener.bind.startswith("unix:"):
        return
    directory = os.path.dirname(listener.bind.removeprefix("unix:"))
    if not os.path.isdir(directory):
        # systemd's RuntimeDirectory makes it with the start
        yield (
            False,
            Finding((*path, "bind"), f"there is no directory {directory} yet", f"install -d {directory}"),
        )
    if listener.socket_group:
        try:
            grp.getgrnam(listener.socket_group)
        except ValueError:  # a NUL, of which config.questions tells
            pass
        except KeyError:
            yield (
                True,
                Finding(
                    (*path, "socket_group"),
                    "there is no such group on this machine",
                    "name the group of the mail server's user, or leave it out",
                ),
            )


def _is_loopback(bind: str) -> bool:
    return bind.startswith(("127.", "[::1]:", "unix:"))


def _data_dir(config: Config) -> Findings:
    path: KeyPath = ("data_dir",)
    try:
        found = os.stat(config.data_dir)
    except FileNotFoundError:
        yield False, Finding(path, "is not there yet", f"popgate serve makes it: {config.data_dir}")
        return
    except OSError as error:
        yield True, Finding(path, f"cannot be reached: {error.strerror}")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield True, Finding(path, "is not a directory")
    elif found.st_mode & 0o002:
        yield True, Finding(path, "everybody on this machine can write there", f"chmod 700 {config.data_dir}")
    elif found.st_mode & 0o004:
        yield False, Finding(path, "everybody on this machine can read there", f"chmod 700 {config.data_dir}")


def _secret(path: KeyPath, name: str) -> Findings:
    try:
        found = os.stat(name)
    except FileNotFoundError:
        yield True, Finding(path, "there is no such file")
        return
    except OSError as error:
        yield True, Finding(path, f"cannot be reached: {error.strerror}")
        return
    if not stat.S_ISREG(found.st_mode):
        yield True, Finding(path, "is not a file")
    elif found.st_mode & 0o007:
        yield True, Finding(path, "everybody on this machine can read the secrets there", f"chmod 600 {name}")
    elif not os.access(name, os.R_OK):
        yield True, Finding(path, "cannot be read by this user")


def _peer_key(path: KeyPath, name: str, user: str) -> Findings:
    findings = list(_secret(path, name))
    yield from findings
    if findings:
        return
    state = os.stat(name)
    if state.st_mode & 0o020:
        yield True, Finding(path, "its group can replace the key", f"chmod 640 {name}")
        return
    if not _can_read(state, user):
        yield (
            True,
            Finding(path, f"{user} cannot read it, whom the server becomes", f"chown {user} {name}"),
        )
    with open(name, "rb") as file:
        octets = len(file.read(4096).strip())
    if octets < MIN_KEY_OCTETS:
        yield (
            True,
            Finding(
                path,
                f"holds {octets} octets; a key has {MIN_KEY_OCTETS} or more",
                f"head -c 32 /dev/urandom | base64 > {name}",
            ),
        )


def _can_read(state: os.stat_result, user: str) -> bool:
    """As far as the file's own mode tells, and where root would become that user; others tell of the rest."""
    try:
        account = pwd.getpwnam(user) if user and os.geteuid() == 0 else None
    except KeyError:
        account = None
    if account is None:
        return True
    if state.st_uid == account.pw_uid:
        return bool(state.st_mode & 0o400)
    return bool(state.st_mode & 0o040) and state.st_gid in os.getgrouplist(user, account.pw_gid)


def _program(path: KeyPath, command: str) -> Findings:
    try:
        words = shlex.split(command)
    except ValueError as error:
        yield True, Finding(path, f"cannot be split into words: {error}", "close every quote")
        return
    if not words or shutil.which(words[0]) is None:
        name = words[0] if words else command
        yield True, Finding(path, f"there is no program {name} that can be run", "give its full path")


def _chain(path: KeyPath, command: list[str], rules_file: str) -> Findings:
    if command and command[0] and "\0" not in command[0] and shutil.which(command[0]) is None:
        yield (
            True,
            Finding(
                (*path, "command"), f"there is no program {command[0]} that can be run", "give its full path"
            ),
        )
    if rules_file and "\0" not in rules_file and not os.access(rules_file, os.R_OK):
        yield (
            True,
            Finding(
                (*path, "rules_file"), "cannot be read, so nobody would be let in", "make it by tcprules"
            ),
        )


def _authorities(path: KeyPath, name: str) -> Findings:
    try:
        ssl.create_default_context(cafile=name)
    except FileNotFoundError:
        yield True, Finding(path, "there is no such file")
    except (ssl.SSLError, OSError) as error:
        yield True, Finding(path, f"holds no certificates in PEM form: {error}")
