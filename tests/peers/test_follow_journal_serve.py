"""`popgate serve` with `journal = true`: the real journalctl, on a journal of the test's own."""

import os
import time
from pathlib import Path

import pytest

from support import peers
from support.follow_relay import relay_code, relay_soon
from support.journal import Journal
from support.popgate import Popgate

pytestmark = [pytest.mark.peer("systemd-journal-remote", "journalctl")]

SENDER = "alice@example.org"


def test_refused_login_accepted_lapsed_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.at = time.time() - 1
    journal.write("dovecot: master: Dovecot is started")
    programs = tmp_path / "bin"
    programs.mkdir()
    wrapper = programs / "journalctl"
    wrapper.write_text(f'#!/bin/sh\nexec {peers.require("journalctl")} --file={journal.file} "$@"\n')
    wrapper.chmod(0o755)
    settings = (
        "[grants]\nnever = []\nwindow_seconds = 6\n[[follow]]\njournal = true\npatterns = ['dovecot']\n"
    )
    server = Popgate(tmp_path / "site", (("smtp", ""),), settings, workers=2)
    server.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    with server:
        server.wait_for("follow.start source=journal")
        time.sleep(0.5)
        assert relay_code(server, "127.0.6.21", SENDER) == 550
        journal.at = time.time()
        journal.login("alice", "127.0.6.22", "t", _SYSTEMD_UNIT="user@1000.service", _UID="1000")
        journal.login("alice", "127.0.6.21", "s")
        relay_soon(server, "127.0.6.21", SENDER, 250)
        assert relay_code(server, "127.0.6.22", SENDER) == 550
        server.explain("127.0.6.21", "(told by journal)")
        journal.at = time.time()
        journal.write("imap(alice)<2><s>: Disconnected: Logged out in=1 out=2")
        server.wait_for("follow.logout")
        relay_soon(server, "127.0.6.21", SENDER, 550, 15)
        # what came while nobody followed
        server.stop()
        journal.at = time.time()
        journal.login("alice", "127.0.6.23", "u")
        server.start()
        relay_soon(server, "127.0.6.23", SENDER, 250)
