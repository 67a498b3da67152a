"""Reads popgate.toml, joins every package's settings, prints the sample and the reference.

It knows what each setting means, and nothing of the servers that will use them.
"""

from popgate.config.load import Loaded, find, load, load_text
from popgate.config.problem import ConfigError, Problem
from popgate.config.settings import Config, LogSettings, relay_by

__all__ = [
    "Config",
    "ConfigError",
    "Loaded",
    "LogSettings",
    "Problem",
    "find",
    "load",
    "load_text",
    "relay_by",
]
