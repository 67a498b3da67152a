"""Fixtures and markers that every test may use."""

import pytest

from support import peers

pytest_plugins = ["support.servers", "pytester"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("peer"):
        for package in mark.args:
            peers.require(package)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = [
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report, pytest.TestReport)
    ]
    ran = sum(
        "peer" in report.keywords
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)
    )
    for line in peers.summary(reasons, ran):
        terminalreporter.write_line(line)
