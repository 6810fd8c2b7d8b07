"""A machine below a folder: pages about installing are carried out on it, with a bundle as `make bundle` makes it."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import stand_in
from tests.e2e.debian import WAY_OUT
from tests.e2e.installation import free_ports
from tests.postgres import Server

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
_COUNTING = '"$@"; code=$?; cat /proc/net/dev /proc/net/snmp6 > "$0"; exit $code'
_ENV = {name: value for name, value in os.environ.items() if not name.startswith(("UNIONHUB_", "PYTEST_", "PG"))}


def instructions(path: Path = CONTAINERFILE) -> list[tuple[str, str]]:
    """A Containerfile's instructions, comments left out, continued lines joined."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(words[0], words[1].strip()) for words in (line.split(None, 1) for line in joined.splitlines())]


def build_stage() -> list[tuple[str, str]]:
    """What the Containerfile does before its last FROM."""
    found = instructions()
    last = max(n for n, (word, _) in enumerate(found) if word == "FROM")
    return found[:last]


def make_bundle(folder: Path) -> None:
    """Carries out the Containerfile's steps up to the installation, in ``folder`` instead of ``/``."""
    source, out = folder / "src", folder / "bundle"
    for word, rest in build_stage():
        if word == "COPY":
            *names, target = rest.split()
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    (source / target).mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, source / target)
        elif word == "RUN" and "install.sh" not in rest:
            command = re.sub(r"(?<= )/bundle\b", str(out), re.sub(r"^python ", f"{sys.executable} ", rest))
            subprocess.run(command, shell=True, check=True, cwd=source, env=_ENV)  # noqa: S602 - the Containerfile's own


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packed bundle, its checksum and its unpacked files; made once, whatever number of workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "offline"
    folder.mkdir(exist_ok=True)
    with one_at_a_time(folder):
        if not (folder / "bundle" / "install.sh").exists():
            make_bundle(folder)
    return folder / "bundle"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Among the workers that share ``folder``."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def without_network(counted: Path) -> list[str]:
    """Words before a command that leave it no network; none where the system does not allow that.

    Where ``ip`` is there it has a way out that leads nowhere, and what it tried to send is written to ``counted``;
    elsewhere it has no interface at all.
    """
    bare = ["unshare", "--net", "--map-root-user"]
    counting = [*bare, "sh", str(WAY_OUT), "sh", "-c", _COUNTING]
    try:
        if subprocess.run([*counting, os.devnull, "true"], capture_output=True).returncode == 0:
            return [*counting, str(counted)]
        return bare if subprocess.run([*bare, "true"], capture_output=True).returncode == 0 else []
    except FileNotFoundError:
        return []


#: Ports that the units and pages name, each on a free one here.
PORTS = ("8080", "8082", "8083")


@dataclass
class Machine:
    """Commands are typed in ``home``; the machine's places are below ``root``."""

    root: Path
    ports: dict[str, int]
    offline: list[str]
    postgres: Server | None = None

    @classmethod
    def new(cls, folder: Path, postgres: Server | None = None) -> Machine:
        free = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        made = cls(folder / "máy", free, without_network(folder / "máy/packets"), postgres)
        for place in ("home", "shims", "opt", "etc/systemd/system", "usr/local/bin", "var/lib"):
            (made.root / place).mkdir(parents=True, exist_ok=True)
        for name in stand_in.COMMANDS:
            shim = made.root / "shims" / name
            shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stand_in.__file__}" {name} "{made.root}" "$@"\n')
            shim.chmod(0o755)
        return made

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/unionhub"

    @property
    def port(self) -> int:
        return self.ports["8080"]

    def use_free_ports(self) -> None:
        """What the pages leave at 8080, 8082 and 8083."""
        for name, port in (("node", self.port), ("node-2", self.ports["8082"]), ("node-3", self.ports["8083"])):
            with (self.root / f"etc/unionhub/{name}.env").open("a") as environment:
                environment.write(f"UNIONHUB_HTTP__PORT='{port}'\n")

    def type(self, commands: str, folder: Path | None = None, answers: str = "") -> subprocess.CompletedProcess[str]:
        """As somebody with sudo would in bash; ends at the first command that fails."""
        path = os.pathsep.join([f"{self.root}/shims", f"{self.root}/usr/local/bin", os.environ["PATH"]])
        script = stand_in.placed(commands, self.root)
        for named, free in self.ports.items():
            script = script.replace(f"127.0.0.1:{named}", f"127.0.0.1:{free}")
        environ = {**_ENV, "PATH": path, "STAND_IN_WITHOUT_NETWORK": shlex.join(self.offline)}
        if self.postgres is not None:
            script = script.replace("db.example:5432", f"127.0.0.1:{self.postgres.port}")
            environ["STAND_IN_POSTGRES"] = f"{self.postgres.programs}|{self.postgres.port}"
        # Without a terminal, so that what asks for a password reads ``answers``.
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder or self.home, env=environ, input=answers, start_new_session=True,
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    def carry_out(self, *commands: str, answers: str = "") -> str:
        """Types them one after another, where the one before left us; answers what the last one said."""
        said, folder = "", self.home
        for command in commands:
            done = self.type(f"{command}\npwd > {self.root}/cwd", folder, answers)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}{self.journal()}"
            folder, said = Path((self.root / "cwd").read_text().strip()), done.stdout
        return said

    def journal(self, service: str = "unionhub") -> str:
        log = self.root / f"run/{service}.log"
        return log.read_text("utf-8") if log.exists() else ""

    def exit_code(self, service: str = "unionhub") -> int:
        return int((self.root / f"run/{service}.code").read_text())

    def switch_off(self) -> None:
        """Kills what a test left running."""
        for pid in (self.root / "run").glob("*.pid"):
            if not pid.with_suffix(".code").exists():
                os.kill(int(pid.read_text()), signal.SIGKILL)
