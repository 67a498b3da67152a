"""A qmail host as the guides build it: run scripts, env directories, the directory of grants."""

from popgate.integrations.findings import Finding
from popgate.integrations.qmail.doctor import examine
from popgate.integrations.qmail.machine import Machine
from popgate.integrations.qmail.survey import CRON_FILES, NoServices, Survey

__all__ = ["CRON_FILES", "Finding", "Machine", "NoServices", "Survey", "examine"]
