"""The decorator for value classes.

A frozen slotted dataclass costs three times as much to make as a slotted one, and
engines make several a session. So values are frozen for the type checker only.
"""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def value(cls: type[_T]) -> type[_T]:
    """Make `cls` a slotted, hashable dataclass that the type checker holds read-only."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
