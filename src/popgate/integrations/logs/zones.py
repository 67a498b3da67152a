"""The time zone in which a log was written, where its lines do not say."""

import os
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

_HERE = "/etc/localtime"


def zone_of(name: str) -> tzinfo:
    """The zone `name`, or this machine's for "". Raises ValueError for one that is not known."""
    name = name or os.environ.get("TZ", "").removeprefix(":")
    try:
        if name:
            return ZoneInfo(name)
        with open(_HERE, "rb") as file:
            return ZoneInfo.from_file(file, "local")
    except FileNotFoundError:  # ZoneInfoNotFoundError is a KeyError
        return UTC
    except (KeyError, OSError, ValueError):
        raise ValueError(f"there is no time zone {name!r} here, such as Europe/Vienna") from None
