"""What docs/dovecot.md has people write: Dovecot reads it, the doctor finds nothing, and it works."""

import re
import subprocess
from pathlib import Path

import pytest

from peers.test_dovecot_logins_runs import SECRET, Site, imap, pop3
from popgate.integrations.dovecot.doveconf import read
from popgate.integrations.dovecot.places import OurListener
from popgate.integrations.dovecot.traps import examine
from support.dovecot import Dovecot

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "dovecot.md").read_text()
_FILE = re.compile(r"`(/[^`\s]+)`([^`]*)(?:`[^`\n]*`[^`]*)*:\n\n```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILES = {
    path + ("" if "2.4" not in more else " of 2.4"): text for path, more, text in _FILE.findall(DOCUMENT)
}
MAIN, SECRET_FILE, EVENTS, LOGINS = (
    "/etc/dovecot/conf.d/99-popgate.conf",
    "/etc/dovecot/popgate-secret.conf.ext",
    "/etc/dovecot/popgate-events.conf.ext",
    "/etc/dovecot/popgate-logins.conf.ext",
)


def test_every_file_is_found() -> None:
    assert set(FILES) == {MAIN, SECRET_FILE, EVENTS, LOGINS, f"{MAIN} of 2.4"}


def lines(*names: str, port: int = 22800) -> str:
    """The content of files, joined as the include lines join them."""
    text = "".join(FILES[name] for name in names)
    text = re.sub(r"^!include_try .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("SECRET", SECRET).replace("127.0.0.1:22800", f"127.0.0.1:{port}")
    return text.replace("{", "{{").replace("}", "}}")


WAYS = {
    "policy": (MAIN, SECRET_FILE),
    "policy and sessions": (MAIN, SECRET_FILE, EVENTS),
    "exporter alone": (EVENTS, LOGINS),
}


@pytest.mark.peer("dovecot-core", "dovecot-pop3d", "dovecot-imapd")
@pytest.mark.parametrize("way", WAYS)
def test_it_works_and_has_no_trap(tmp_path: Path, way: str) -> None:
    counts = EVENTS in WAYS[way]
    site = Site(tmp_path / "site", window=4, more=f"session_ends = {str(counts).lower()}")
    with site.popgate:
        port = site.policy_port
        settings = lines(*WAYS[way], port=port).format()
        with Dovecot({"alice": "open sesame"}, listen="127.0.0.1, ::1", settings=settings) as server:
            ours = OurListener("127.0.0.1", port, True, SECRET.encode(), False, counts)
            done = subprocess.run(
                ["doveconf", "-n", "-c", str(server.root / "dovecot.conf")],
                capture_output=True,
                text=True,
                check=True,
            )
            assert [finding.trap for finding in examine(read(done.stdout, "doveconf -n"), [ours])] == []
            pop3(server, "127.0.0.9").close()
            site.wait_until_relays("127.0.0.9")
            if counts:
                client = imap(server, "127.0.0.10")
                site.popgate.wait_for("reason=session-open", count=4)
                assert site.relays("127.0.0.10")
                client.logout()
        assert "http.refused" not in site.popgate.log


def test_the_lines_for_2_4_have_no_trap() -> None:
    text = "# 2.4.1-4 (7d8c0e5759): /etc/dovecot/dovecot.conf\n"
    text += lines(f"{MAIN} of 2.4", SECRET_FILE).format()
    ours = OurListener("127.0.0.1", 22800, True, SECRET.encode(), False, True)
    assert examine(read(text, "doveconf -n"), [ours]) == []
