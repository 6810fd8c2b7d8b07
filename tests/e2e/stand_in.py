"""A machine's own commands for a page about installing: ``sudo``, ``install``, ``useradd``, ``systemctl`` and so on.

Below one folder instead of ``/``, without a second user and without systemd: ``systemctl`` reads the very units and
starts what they say with the environment they say. Run as ``python stand_in.py COMMAND ROOT ARGUMENTS...``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: Places on a machine that stand below the folder here.
PLACES = ("/opt/unionhub", "/var/lib/unionhub", "/etc/unionhub", "/etc/systemd/system", "/usr/local/bin/unionhub")
COMMANDS = ("sudo", "runuser", "id", "useradd", "chown", "install", "systemctl")


def placed(text: str, root: Path) -> str:
    """The text with the machine's places moved below ``root``."""
    for place in PLACES:
        text = text.replace(place, f"{root}{place}")
    return text


def parse_unit(path: Path) -> dict[str, list[str]]:
    """A unit's keys with all their values, in order; sections are told apart by their keys."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line or line.startswith(("#", "[")):
            continue
        key, equals, value = line.partition("=")
        assert equals and key.isalnum(), f"{path.name}:{number}: {line}"
        found.setdefault(key, []).append(value)
    return found


def parse_environment(path: Path) -> dict[str, str]:
    """An EnvironmentFile as systemd reads one of NAME='VALUE' lines."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    split = [line.partition("=") for line in lines]
    return {name: value.strip("'") for name, _, value in split}


# -- commands --------------------------------------------------------------------------------------


def sudo(root: Path, *arguments: str) -> None:
    command = list(arguments)
    if command[:2] == ["-u", "postgres"]:
        # A server of the test's own, where this user may do what it may on the page.
        folder, port = os.environ["STAND_IN_POSTGRES"].split("|")
        os.environ |= {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "postgres"}
        command = [f"{folder}/{command[2]}", *command[3:]]
    if command[0].endswith("install.sh"):
        command = [*shlex.split(os.environ.get("STAND_IN_WITHOUT_NETWORK", "")), *command]
    os.execvp(command[0], command)


def runuser(root: Path, dash_u: str, user: str, dashes: str, *command: str) -> None:
    assert (dash_u, dashes) == ("-u", "--")
    os.execvpe(command[0], command, {**os.environ, "STAND_IN_USER": user})


def id(root: Path, option: str) -> None:
    assert option in ("-u", "-un"), option
    user = os.environ.get("STAND_IN_USER", "root")
    print(user if option == "-un" else 0 if user == "root" else 999)


def useradd(root: Path, *arguments: str) -> None:
    with (root / "users").open("a") as users:
        users.write(f"{arguments[-1]}\n")


def chown(root: Path, *arguments: str) -> None:
    pass


def install(root: Path, *arguments: str) -> None:
    """Without the owner, since there is no such user here; what is copied names the places of this machine."""
    kept = list(arguments)
    for option in ("-o", "-g"):
        if option in kept:
            at = kept.index(option)
            assert kept[at + 1] in ("root", "unionhub"), kept
            del kept[at : at + 2]
    subprocess.run([str(shutil.which("install", path=os.defpath)), *kept], check=True)
    if "-d" in kept:
        return
    target = Path(kept[-1])
    names = [Path(n).name for n in kept[:-1] if "/" in n]
    for copy in [target / name for name in names] if target.is_dir() else [target]:
        if copy.suffix in (".service", ".env", ""):
            copy.write_text(placed(copy.read_text("utf-8"), root), "utf-8")


def systemctl(root: Path, *arguments: str) -> None:
    verb, *names = [a for a in arguments if a != "--now"]
    if verb == "daemon-reload":
        return
    for name in names:
        if verb in ("stop", "restart", "disable"):
            _stop(root, name)
        if verb in ("start", "restart", "enable"):
            _start(root, name)
    if verb == "is-active":
        active = all(_is_active(root, name) for name in names)
        print("active" if active else "inactive")
        raise SystemExit(0 if active else 3)


# -- services --------------------------------------------------------------------------------------


def unit_of(root: Path, name: str) -> tuple[dict[str, list[str]], str]:
    """The unit and its instance."""
    folder = root / "etc/systemd/system"
    base, at, instance = name.partition("@")
    return parse_unit(folder / f"{base}{at}.service"), instance


def _is_active(root: Path, name: str) -> bool:
    return (root / f"run/{name}.pid").exists() and not (root / f"run/{name}.code").exists()


def _start(root: Path, name: str) -> None:
    (root / "run").mkdir(exist_ok=True)
    for kind in ("pid", "code", "ready"):
        (root / f"run/{name}.{kind}").unlink(missing_ok=True)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen([sys.executable, __file__, "supervise", str(root), name], start_new_session=True, **quiet)
    awaited = "ready" if unit_of(root, name)[0]["Type"] == ["notify"] else "pid"
    _until(lambda: (root / f"run/{name}.{awaited}").exists() or (root / f"run/{name}.code").exists(), 60)


def _stop(root: Path, name: str) -> None:
    if not _is_active(root, name):
        return
    os.kill(int((root / f"run/{name}.pid").read_text()), signal.SIGTERM)
    patience = int(unit_of(root, name)[0]["TimeoutStopSec"][0])
    _until((root / f"run/{name}.code").exists, patience)


def supervise(root: Path, name: str) -> None:
    """Starts the service as its unit says, notes its pid and later its exit code."""
    unit, instance = unit_of(root, name)
    environ = {"PATH": os.defpath, "HOME": str(root), "LANG": "C.UTF-8"}
    for line in unit.get("Environment", []):
        environ |= dict(pair.split("=", 1) for pair in shlex.split(line.replace("%i", instance)))
    for line in unit.get("EnvironmentFile", []):
        path = Path(line.removeprefix("-").replace("%i", instance))
        if path.exists() or not line.startswith("-"):
            environ |= parse_environment(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said, (root / f"run/{name}.log").open("a") as journal:
        environ["NOTIFY_SOCKET"] = "\0".join(["", f"unionhub-{os.getpid()}"])
        said.bind(environ["NOTIFY_SOCKET"])
        environ["NOTIFY_SOCKET"] = environ["NOTIFY_SOCKET"].replace("\0", "@")
        process = subprocess.Popen(
            shlex.split(unit["ExecStart"][0]), cwd=unit["WorkingDirectory"][0], env=environ,
            stdin=subprocess.DEVNULL, stdout=journal, stderr=journal,
        )  # fmt: skip
        (root / f"run/{name}.pid").write_text(str(process.pid))
        said.settimeout(0.05)
        while process.poll() is None:
            try:
                if b"READY=1" in said.recv(4096).splitlines():
                    (root / f"run/{name}.ready").touch()
            except TimeoutError:
                pass
    (root / f"run/{name}.code").write_text(str(process.returncode))


def _until(condition: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s} s"
        time.sleep(0.02)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
