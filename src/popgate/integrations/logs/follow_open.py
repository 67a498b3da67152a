"""From the settings of a [[follow]] to its source."""

import os
from collections.abc import Mapping
from dataclasses import replace

from popgate.integrations.logs.follow_file import FollowedFile
from popgate.integrations.logs.follow_journal import JournalSource
from popgate.integrations.logs.follow_patterns import FollowError, patterns_of
from popgate.integrations.logs.follow_service import FollowSpec
from popgate.integrations.logs.follow_source import FileSource, Source, marks_of
from popgate.integrations.logs.follow_trust import Writers
from popgate.integrations.logs.recogniser import Recogniser
from popgate.integrations.logs.settings import FollowSettings
from popgate.integrations.logs.zones import zone_of
from popgate.values.clock import Clock

_BEGINNING_SECONDS = 86400.0
"""As far back as the journal is read that is to be read from its beginning: no grant lasts longer."""


def follow_spec(settings: FollowSettings, default_domain: str, clock: Clock) -> FollowSpec:
    """What is to be followed. Opens nothing that is followed. Raises FollowError."""
    try:
        patterns = patterns_of(settings.patterns)
        if settings.units:
            patterns = [replace(pattern, units=tuple(settings.units)) for pattern in patterns]
        zone = zone_of(settings.timezone)
        writers = Writers.parse(settings.owner)
    except ValueError as error:
        raise FollowError(str(error)) from None
    path = os.path.abspath(settings.file)

    def recogniser() -> Recogniser:
        return Recogniser(
            patterns,
            zone,
            default_domain=settings.default_domain or default_domain,
            hosts=frozenset(settings.hosts),
        )

    def journal(place: Mapping[str, object] | None) -> Source:
        programs = sorted({program for pattern in patterns for program in pattern.programs})
        since = clock.now() - (_BEGINNING_SECONDS if settings.start == "beginning" else 0)
        return JournalSource(recogniser(), programs, place=place, since=since)

    def file(place: Mapping[str, object] | None) -> Source:
        marks = () if place is None else marks_of(place)
        return FileSource(path, FollowedFile(path, writers, marks=marks, start=settings.start), recogniser())

    return FollowSpec(
        settings.source,
        journal if settings.journal else file,
        frozenset(settings.protocols),
    )
