"""What relay-ctrl's programs do to the process that they hand on, and how they are found and started."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from popgate.grants.stores import spool
from support.relay_ctrl import PROGRAMS, ROOT, Installed

CLIENT = {"TCPREMOTEIP": "192.0.2.7"}
_ON_DESCRIPTOR_3 = ["/bin/sh", "-c", 'exec 3<&0 0</dev/null; exec "$@"', "sh"]
_BARE = {"PATH": "/usr/bin:/bin", "RELAY_CTRL_REMOTES": ""}
EXECUTING = ("allow", "check", "chdir", "send")


def run(
    programs: Installed, path: Path, *command: str, **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    return programs.run(command, {"RELAY_CTRL_DIR": str(path), **CLIENT, **environment})


@pytest.mark.parametrize("program", EXECUTING)
def test_signals_that_python_ignores_are_not_ignored_behind(
    program: str, programs: Installed, tmp_path: Path
) -> None:
    done = run(
        programs,
        tmp_path,
        f"relay-ctrl-{program}",
        "grep",
        "SigIgn",
        "/proc/self/status",
        RELAY_CTRL_REMOTES="",
    )
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@pytest.mark.parametrize("program", EXECUTING)
@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C"}, {"LC_CTYPE": "C.UTF-8"}, {"LC_ALL": "C"}])
def test_the_environment_behind_is_the_one_before(
    program: str, locale: dict[str, str], programs: Installed, tmp_path: Path
) -> None:
    mine = {
        "PATH": "/usr/bin:/bin",
        "EIGHT_BIT": "caf\udce9",
        "EMPTY": "",
        "RELAY_CTRL_REMOTES": "",
        **locale,
    }
    done = run(programs, tmp_path, f"relay-ctrl-{program}", "env", "-0", **mine)
    behind = dict(os.fsdecode(piece).partition("=")[::2] for piece in done.stdout.split(b"\0") if piece)
    for added in ("PWD", "RELAY_CTRL_DIR_FD"):
        behind.pop(added, None)
    assert behind == {"RELAY_CTRL_DIR": str(tmp_path), **CLIENT, **mine}


@pytest.mark.parametrize("program", EXECUTING)
def test_no_descriptor_is_left_open(program: str, programs: Installed, tmp_path: Path) -> None:
    chain = (
        ["relay-ctrl-chdir", programs.path(f"relay-ctrl-{program}")]
        if program != "chdir"
        else ["relay-ctrl-chdir", programs.path("relay-ctrl-allow")]
    )
    done = run(programs, tmp_path, *chain, "ls", "/proc/self/fd", USER="bob", RELAY_CTRL_REMOTES="")
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"], done.stderr  # 3 is the one ls reads


@pytest.mark.parametrize("program", EXECUTING)
def test_arguments_go_on_as_they_are(program: str, programs: Installed, tmp_path: Path) -> None:
    words = ["-c", "--envdir", "", "a b", "*", "$HOME", "\udcff"]
    done = run(programs, tmp_path, f"relay-ctrl-{program}", "printf", "%s|", *words, RELAY_CTRL_REMOTES="")
    assert done.stdout == b"".join(os.fsencode(word) + b"|" for word in words)


def test_a_chain_of_all_of_them(programs: Installed, tmp_path: Path) -> None:
    """One login is seen by the checker behind it: the descriptor stays for relay-ctrl's own programs."""
    done = run(
        programs, tmp_path, "relay-ctrl-chdir", programs.path("relay-ctrl-allow"),
        programs.path("relay-ctrl-send"), programs.path("relay-ctrl-check"),
        "sh", "-c", "echo ${RELAYCLIENT+granted} ${RELAY_CTRL_DIR_FD-gone}",
        USER="bob", RELAY_CTRL_REMOTES="",
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"granted gone\n", b"")


class TestEnvdir:
    @pytest.fixture
    def envdir(self, tmp_path: Path) -> Path:
        path = tmp_path / "env"
        path.mkdir()
        (tmp_path / "allow").mkdir()
        (path / "RELAY_CTRL_DIR").write_text(f"{tmp_path}/allow \t\nsecond line\n")
        (path / "GONE").write_text("")
        (path / "LINES").write_bytes(b"a\0b")
        (path / ".hidden").write_text("x")
        return path

    @pytest.mark.parametrize("form", ["two", "one"])
    def test_it_is_read_as_envdir_does(self, form: str, envdir: Path, programs: Installed) -> None:
        option = ["--envdir", str(envdir)] if form == "two" else [f"--envdir={envdir}"]
        show = 'echo "$RELAY_CTRL_DIR,${GONE-gone},$LINES,$(env | grep -c hidden)"'
        done = programs.run(
            ["relay-ctrl-allow", *option, "sh", "-c", show], {**CLIENT, "USER": "bob", "GONE": "x"}
        )
        assert done.stdout.decode() == f"{envdir.parent}/allow,gone,a\nb,0\n"
        assert (envdir.parent / "allow/192.0.2.7").read_bytes() == b"USER=bob\0"

    @pytest.mark.parametrize("program", ["allow", "check"])
    def test_where_it_is_missing_the_program_runs_without_a_grant(
        self, program: str, programs: Installed, envdir: Path
    ) -> None:
        (envdir.parent / "allow/192.0.2.7").write_bytes(b"")
        environment = {**CLIENT, "USER": "bob", "RELAY_CTRL_DIR": f"{envdir.parent}/allow"}
        done = programs.run(
            [f"relay-ctrl-{program}", "--envdir", "/no/such", "sh", "-c", "echo ${RELAYCLIENT-refused}"],
            environment,
        )
        assert done.stdout == b"refused\n" and b"Could not read '/no/such'" in done.stderr
        assert (envdir.parent / "allow/192.0.2.7").read_bytes() == b""

    @pytest.mark.parametrize(("program", "status"), [("age", 1), ("chdir", 111), ("udp", 111)])
    def test_the_others_end(self, program: str, status: int, programs: Installed) -> None:
        done = programs.run([f"relay-ctrl-{program}", "--envdir", "/no/such", "true"], {})
        assert done.returncode == status and b"Fatal: Could not read" in done.stderr

    def test_age_uses_it(self, envdir: Path, programs: Installed) -> None:
        old = envdir.parent / "allow/192.0.2.9"
        old.write_bytes(b"")
        os.utime(old, (1, 1))
        assert programs.run(["relay-ctrl-age", "--envdir", str(envdir)], {}).returncode == 0
        assert not old.exists()


class TestWhereAPasswordCheckerBelongs:
    """The trap: `qmail-popup $HOST checkpassword relay-ctrl-allow ...` with $HOST empty."""

    def start(
        self, programs: Installed, program: str, path: Path, sent: bytes | None, **environment: str
    ) -> "subprocess.CompletedProcess[bytes]":
        reading, writing = os.pipe()
        try:
            if sent is not None:
                os.write(writing, sent)
            os.close(writing)
            return subprocess.run(
                [*_ON_DESCRIPTOR_3, programs.path(program), "echo", "ran"],
                env={**_BARE, "RELAY_CTRL_DIR": str(path), **CLIENT, **environment},
                stdin=reading,
                capture_output=True,
                check=False,
            )  # fmt: skip
        finally:
            os.close(reading)

    @pytest.mark.parametrize("program", ["relay-ctrl-allow", "relay-ctrl-send"])
    @pytest.mark.parametrize("environment", [{}, {"USER": "root"}, {"USER": "", "AUTHENTICATED": ""}])
    def test_it_denies_the_login(
        self, program: str, environment: dict[str, str], programs: Installed, tmp_path: Path
    ) -> None:
        done = self.start(programs, program, tmp_path, b"bob\0wrong\0<1.2@host>\0", **environment)
        assert done.returncode == 111 and done.stdout == b""
        assert b"password checker" in done.stderr and b"$HOST" in done.stderr
        assert b"wrong" not in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_pipe_that_a_checker_has_read_to_its_end_does_not_matter(
        self, programs: Installed, tmp_path: Path
    ) -> None:
        done = self.start(programs, "relay-ctrl-allow", tmp_path, None, USER="bob")
        assert (done.returncode, done.stdout) == (0, b"ran\n")
        assert (tmp_path / "192.0.2.7").read_bytes() == b"USER=bob\0"


class TestLauncher:
    """scripts/launcher.sh as pip may install it."""

    def works(self, programs: Installed, command: str, path: Path) -> bool:
        done = run(programs, path, command, "true", USER="bob")
        assert done.stderr == b""
        found = (path / "192.0.2.7").is_file() and done.returncode == 0
        shutil.rmtree(path)
        path.mkdir()
        return found

    def copy(self, programs: Installed, path: Path) -> Path:
        top = path / "a place"
        shutil.copytree(programs.root, top)
        return top

    def test_links_and_path(self, programs: Installed, tmp_path: Path) -> None:
        spool_path = tmp_path / "allow"
        spool_path.mkdir()
        (tmp_path / "one").symlink_to(programs.path("relay-ctrl-allow"))
        (tmp_path / "two").symlink_to("one")
        assert self.works(programs, str(tmp_path / "one"), spool_path)
        assert self.works(programs, str(tmp_path / "two"), spool_path)
        done = run(
            programs, spool_path, "sh", "-c", "relay-ctrl-allow true", PATH=f"{programs.bin}:/bin", USER="bob"
        )
        assert done.returncode == 0 and (spool_path / "192.0.2.7").exists()

    @pytest.mark.parametrize("quote", ['"', "'", ""])
    def test_an_interpreter_that_stands_in_the_second_line(
        self, quote: str, programs: Installed, tmp_path: Path
    ) -> None:
        top = self.copy(programs, tmp_path)
        interpreter = top / "py" if quote else tmp_path / "py"
        interpreter.symlink_to(programs.interpreter)
        lines = f"#!/bin/sh\n'''exec' {quote}{interpreter}{quote} \"$0\" \"$@\"\n' '''\n"
        (top / "bin/popgate").write_text(lines)
        (tmp_path / "allow").mkdir()
        assert self.works(programs, str(top / "bin/relay-ctrl-allow"), tmp_path / "allow")

    @pytest.mark.parametrize("pth", ["_popgate.pth", "_editable_impl_popgate.pth"])
    def test_an_editable_installation(self, pth: str, programs: Installed, tmp_path: Path) -> None:
        top = self.copy(programs, tmp_path)
        site = top / "lib/python3/site-packages"
        shutil.move(site / "popgate", tmp_path / "checkout/src/popgate")
        (site / pth).write_text(f"{tmp_path}/checkout/src")
        (tmp_path / "allow").mkdir()
        assert self.works(programs, str(top / "bin/relay-ctrl-allow"), tmp_path / "allow")

    def test_without_popgate_beside_it_it_says_so(self, programs: Installed, tmp_path: Path) -> None:
        shutil.copy(programs.path("relay-ctrl-allow"), tmp_path)
        done = programs.run([str(tmp_path / "relay-ctrl-allow"), "true"], {})
        assert done.returncode == 111 and b"relay-ctrl-allow: Fatal: popgate is not installed" in done.stderr

    def test_the_packages_made_in_place_hold_nothing(self) -> None:
        """The launcher does not read their __init__.py."""
        for name in ("", "commands", "grants", "grants/stores", "values"):
            lines = (ROOT / "src/popgate" / name / "__init__.py").read_text().strip().splitlines()
            code = [line for line in lines if not line.startswith(('"""', "__version__")) and line]
            assert code == [], name

    def test_nothing_slow_is_imported(self, programs: Installed) -> None:
        for program in ("allow", "check", "age", "chdir", "send"):
            code = (
                f"import os, sys; sys.path.insert(0, {str(ROOT / 'src')!r}); before = set(sys.modules)\n"
                f"import popgate.commands.{program}; print(*sorted(set(sys.modules) - before))"
            )
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-E", "-c", code], capture_output=True, text=True, check=True
            )
            foreign = {name for name in done.stdout.split() if not name.startswith("popgate")}
            assert foreign <= {"fcntl", "time", "_signal"}, program
            assert "popgate.protocols" not in done.stdout

    def test_each_has_a_manual_page_and_is_installed(self) -> None:
        project = (ROOT / "pyproject.toml").read_text()
        for program in PROGRAMS:
            name = f"relay-ctrl-{program}"
            assert f'"scripts/{name}" = "{name}"' in project
            assert f'"docs/man/{name}.8" = "share/man/man8/{name}.8"' in project
            assert os.access(ROOT / "scripts" / name, os.X_OK)
            page = (ROOT / f"docs/man/{name}.8").read_text()
            assert page.startswith('.\\"') and ".SH EXIT STATUS" in page


class TestInstalledByPip:
    def wheel(self, path: Path) -> Path:
        pytest.importorskip("hatchling")
        code = "import hatchling.build, sys; hatchling.build.build_wheel(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, capture_output=True)
        return next(path.glob("*.whl"))

    def test_the_wheel_brings_programs_and_pages(self, tmp_path: Path, programs: Installed) -> None:
        wheel = self.wheel(tmp_path)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check",
             "--python", str(tmp_path / "venv/bin/python"), "install", "--no-deps", "--no-index", str(wheel)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "No module named pip" in done.stderr:
            pytest.skip("no pip here")
        assert done.returncode == 0, done.stderr
        for program in PROGRAMS:
            assert os.access(tmp_path / f"venv/bin/relay-ctrl-{program}", os.X_OK)
            assert (tmp_path / f"venv/share/man/man8/relay-ctrl-{program}.8").is_file()
        path = tmp_path / "allow"
        path.mkdir()
        done_allow = run(programs, path, str(tmp_path / "venv/bin/relay-ctrl-allow"), "true", USER="bob")
        assert (done_allow.returncode, done_allow.stderr) == (0, b"")
        content = (path / "192.0.2.7").read_bytes()
        assert spool.parse(content, (path / "192.0.2.7").stat().st_mtime_ns // 1000) is not None
