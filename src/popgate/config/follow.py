"""Checks of [[follow]]: what it follows must be one thing, and nobody but its writer may have written it."""

import os
import pwd
import stat

from popgate.config.lines import KeyPath
from popgate.config.names import domain_fault
from popgate.config.networks import Findings
from popgate.config.schema import Finding
from popgate.config.settings import Config
from popgate.integrations.logs.follow_patterns import FollowError, patterns_of
from popgate.integrations.logs.follow_trust import NotTrusted, Writers, open_trusted
from popgate.integrations.logs.settings import FollowSettings
from popgate.integrations.logs.zones import zone_of


def follow_findings(config: Config) -> Findings:
    """What the values themselves say."""
    seen: set[str] = set()
    for index, settings in enumerate(config.follow):
        path: KeyPath = ("follow", index)
        if settings.journal and settings.file:
            yield (
                True,
                Finding((*path, "file"), "stands beside journal = true", "write a [[follow]] for each"),
            )
        elif not settings.journal and not settings.file:
            yield (
                True,
                Finding(
                    (*path, "file"),
                    "is missing",
                    'write file = "/var/log/mail.log" or journal = true',
                    shows_value=False,
                ),
            )
        elif settings.source in seen:
            yield True, Finding(path, f"{settings.source} is followed twice", "write one [[follow]] for it")
        seen.add(settings.source)
        yield from _says_nothing(settings, path)
        yield from _names(settings, path)
        if config.grants.who == "devices":
            yield (
                False,
                Finding(
                    (*path, "protocols"),
                    'grants.who = "devices": logins of names that are no device account here give no grant',
                    shows_value=False,
                ),
            )


def _says_nothing(settings: FollowSettings, path: KeyPath) -> Findings:
    if settings.journal and settings.owner:
        yield False, Finding((*path, "owner"), "says nothing of the journal")
    if not settings.journal and settings.units:
        yield False, Finding((*path, "units"), "says nothing of a file: who wrote it is not in it")
    if not settings.protocols:
        yield True, Finding((*path, "protocols"), "is empty, so no login would count", 'such as ["pop3"]')


def _names(settings: FollowSettings, path: KeyPath) -> Findings:
    try:
        patterns_of([name for name in settings.patterns if "/" not in name])
    except FollowError as error:
        yield True, Finding((*path, "patterns"), str(error))
    if settings.default_domain and (fault := domain_fault(settings.default_domain)):
        yield True, Finding((*path, "default_domain"), fault, "such as example.org")
    try:
        zone_of(settings.timezone)
    except ValueError as error:
        yield True, Finding((*path, "timezone"), str(error))


def follow_file_findings(config: Config) -> Findings:
    """What lies on the disk."""
    for index, settings in enumerate(config.follow):
        path: KeyPath = ("follow", index)
        try:
            patterns_of([name for name in settings.patterns if "/" in name])
        except FollowError as error:
            yield True, Finding((*path, "patterns"), str(error))
        try:
            writers = Writers.parse(settings.owner)
        except ValueError as error:
            yield True, Finding((*path, "owner"), str(error))
            continue
        if settings.file and not settings.journal:
            yield from _log_file(settings.file, writers, (*path, "file"), config.user)


def _log_file(name: str, writers: Writers, path: KeyPath, user: str) -> Findings:
    try:
        file = open_trusted(name, writers)
    except NotTrusted as error:
        yield False, Finding(path, f"does not count: {error}", shows_value=False)
        return
    except FileNotFoundError:
        yield False, Finding(path, "is not there yet; it is followed when it comes")
        return
    except OSError as error:
        yield False, Finding(path, f"cannot be read: {error.strerror}", _remedy(user))
        return
    try:
        if not _can_read(os.fstat(file), user):
            yield False, Finding(path, f"{user} cannot read it, whom the server becomes", _remedy(user))
    finally:
        os.close(file)


def _remedy(user: str) -> str:
    return f"usermod -a -G adm {user or 'USER'}, where the group adm may read it"


def _can_read(state: os.stat_result, user: str) -> bool:
    try:
        account = pwd.getpwnam(user) if user and os.geteuid() == 0 else None
    except KeyError:
        account = None
    if account is None or state.st_mode & stat.S_IROTH:
        return True
    if state.st_uid == account.pw_uid:
        return bool(state.st_mode & stat.S_IRUSR)
    return bool(state.st_mode & stat.S_IRGRP) and state.st_gid in os.getgrouplist(user, account.pw_gid)
