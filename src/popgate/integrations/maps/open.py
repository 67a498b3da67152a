"""From the settings of a map to the map."""

from popgate.integrations.maps.content import Content
from popgate.integrations.maps.map_file import MapError, MapFile
from popgate.integrations.maps.settings import MapSettings
from popgate.integrations.maps.whole_file import WholeFile
from popgate.integrations.ucspi.rules import RuleError


def open_map(settings: MapSettings) -> MapFile:
    """The map that `settings` describe; nothing is written yet. Raises MapError."""
    if settings.kind == "lmdb":
        try:
            from popgate.integrations.maps.lmdb_file import LmdbMap
        except ImportError:
            raise MapError(f'{settings.path}: needs the module lmdb: pip install "popgate[maps]"') from None
        return LmdbMap(settings, Content(settings))
    try:
        return WholeFile(settings, Content(settings))
    except RuleError as fault:
        raise MapError(f"{settings.path}: {fault}") from fault
