"""Recognises mail logins in log lines. Recognising knows no file, clock or journal: lines and times
are given. `follow_*` reads lines as they are written."""

from popgate.integrations.logs.pattern import Pattern, PatternError
from popgate.integrations.logs.pattern_files import pattern_of, read_pattern, shipped
from popgate.integrations.logs.recogniser import Recogniser
from popgate.integrations.logs.records import LoginSeen, LogoutSeen, LogRecord, Origin, Seen
from popgate.integrations.logs.syntaxes import journal_record, read_line
from popgate.integrations.logs.times import Reference

__all__ = [
    "LogRecord",
    "LoginSeen",
    "LogoutSeen",
    "Origin",
    "Pattern",
    "PatternError",
    "Recogniser",
    "Reference",
    "Seen",
    "journal_record",
    "pattern_of",
    "read_line",
    "read_pattern",
    "shipped",
]
