"""The run scripts in docs/qmail.md, which people copy, are well in the doctor's eyes."""

import re
from pathlib import Path

from support.qmail_host import QmailHost

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "qmail.md"


def test_the_documented_scripts_have_no_trap(tmp_path: Path) -> None:
    pop3, smtp = re.findall(r"^```\n(#!/bin/sh\n.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    host = QmailHost(tmp_path)
    host.pop3(pop3)
    host.smtp(smtp)
    assert host.examine() == []
