"""Looks at a qmail host and names the traps of the guides that it stepped into.

It reads only, and runs nothing of what it reads.
"""

from collections.abc import Sequence

from popgate.integrations.findings import Finding, in_order
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.survey import CRON_FILES, Survey, take
from popgate.integrations.qmail.traps_grants import grant_traps
from popgate.integrations.qmail.traps_peers import peer_traps
from popgate.integrations.qmail.traps_rules import rules_traps
from popgate.integrations.qmail.traps_server import server_traps
from popgate.integrations.qmail.traps_spool import spool_traps
from popgate.integrations.qmail.traps_text import text_traps

_TRAPS = (text_traps, server_traps, rules_traps, grant_traps, peer_traps, spool_traps)


def examine(
    machine: Machine, directory: str, cron_files: Sequence[str] = CRON_FILES
) -> tuple[Survey, list[Finding]]:
    """What was looked at, and what is wrong with it. Raises survey.NoServices."""
    survey = take(machine, directory, cron_files)
    return survey, in_order([finding for traps in _TRAPS for finding in traps(survey)])
