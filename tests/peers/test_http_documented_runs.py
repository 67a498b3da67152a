"""The commands of docs/http.md and docs/dovecot.md that people type to try a listener, typed."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from support import peers
from support.popgate import Popgate

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CURL = re.compile(r"^curl -s .*$", re.MULTILINE)
SECRET = "0123456789abcdef0123456789abcdef"

pytestmark = pytest.mark.peer("curl")


def commands(document: str) -> list[str]:
    text = (ROOT / "docs" / document).read_text()
    return [command for block in _BLOCK.findall(text) for command in _CURL.findall(block)]


def run(command: str) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_questions(tmp_path: Path) -> None:
    peers.require("curl")
    secret = tmp_path / "http-secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    server = Popgate(
        tmp_path / "site",
        [("http", ""), ("http", f'secret_file = "{secret}"'), ("http", "max_connections = 9")],
    )
    socket_path = tmp_path / "ask"
    head, _, tail = server.config.read_text().rpartition('bind = "127.0.0.1:0"')
    server.config.write_text(f'{head}bind = "unix:{socket_path}"{tail}')
    with server:
        server.command("grant", "allow", "203.0.113.9", "scan@example.org")
        here, with_secret = server.ports[0], server.ports[1]
        typed = commands("http.md")
        assert len(typed) == 3
        for command in typed:
            command = command.replace("127.0.0.1:22801", f"127.0.0.1:{here}")
            command = command.replace("https://192.0.2.10:22801", f"http://127.0.0.1:{with_secret}")
            command = command.replace("/etc/popgate/http-secret", str(secret))
            command = command.replace("/run/popgate/http", str(socket_path))
            answer = json.loads(run(command))
            expected = "refuse" if "2001:db8" in command else "permit"
            assert answer["verdict"] == expected, command


def test_the_recipe_for_a_secret_makes_one(tmp_path: Path) -> None:
    for document in ("http.md", "dovecot.md"):
        text = (ROOT / "docs" / document).read_text()
        (recipe,) = re.findall(r"^\(umask 077; .*$", text, re.MULTILINE)
        path = tmp_path / document
        run(re.sub(r"/etc/popgate/[\w-]+", str(path), recipe))
        assert path.stat().st_mode & 0o777 == 0o600
        secret = path.read_text().strip()
        assert len(secret) >= 32
        if document == "dovecot.md":  # it stands in a URL too
            assert re.fullmatch(r"[\w-]+", secret)


def test_dovecots_listener_asks_for_the_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    (command,) = [one for one in commands("dovecot.md") if "22800" in one]
    command, _, comment = command.partition("#")
    assert "401" in comment
    with Popgate(tmp_path / "site", [("dovecot_auth_policy", f'secret_file = "{secret}"')]) as server:
        answer = run(command.replace("curl -s", "curl -s -i").replace("22800", str(server.ports[0])))
    assert answer.startswith("HTTP/1.1 401 ")
