"""Runs a program for each connection, as tcpserver does, and tells it what it may do."""

from popgate.integrations.ucspi.listener import UcspiListener, UcspiPolicy
from popgate.integrations.ucspi.program import Program, ProgramError
from popgate.integrations.ucspi.rule_file import RuleFile

__all__ = ["Program", "ProgramError", "RuleFile", "UcspiListener", "UcspiPolicy"]
