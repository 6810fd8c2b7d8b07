"""deploy/install.sh on what it may meet, with a bundle of one small wheel: the old one works until the new one does."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.bundle import platform_tag
from tests.e2e.machine import ROOT

#: Answers as the hub's command line would, as far as the installation asks.
PROGRAM = """
import sys

def main():
    if sys.argv[1] == "check":
        sys.exit({code})
    print("{version}")
"""


def small_bundle(folder: Path, version: str, *, code: int = 0, platform: str = platform_tag()) -> Path:
    """A bundle whose program says its version; ``check`` ends with ``code``."""
    wheels = folder / version / "wheels"
    wheels.mkdir(parents=True)
    wheel = wheels / f"unionhub-{version}-py3-none-any.whl"
    info = f"unionhub-{version}.dist-info"
    files = {
        "program.py": PROGRAM.format(code=code, version=version),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: unionhub\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nunionhub = program:main\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    made = wheels.parent
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (made / "requirements.txt").write_text(f"unionhub=={version} --hash=sha256:{digest}\n")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    (made / "BUNDLE").write_text(f"VERSION={version}\nPLATFORM={platform}\nPYTHON_VERSION={python}\n")
    shutil.copy(ROOT / "deploy" / "install.sh", made)
    paths = sorted(p for p in made.rglob("*") if p.is_file())
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(made)}\n" for p in paths]
    (made / "SHA256SUMS").write_text("".join(sums))
    return made


def install(made: Path, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(made / "install.sh"), *map(str, arguments)]
    known = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, **environ}
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=120)


def says(prefix: Path) -> str:
    return subprocess.run([prefix / "bin/unionhub", "--version"], capture_output=True, text=True).stdout.strip()


def releases(prefix: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (prefix / "releases").iterdir()}


def test_the_old_one_works_until_the_new_one_does_and_stays_as_the_way_back(tmp_path: Path) -> None:
    prefix = tmp_path / "Liên đoàn" / "unionhub"
    first, second = small_bundle(tmp_path, "1.0"), small_bundle(tmp_path, "2.0")
    broken = small_bundle(tmp_path, "2.5", code=1)
    done = install(first, prefix)
    assert done.returncode == 0 and done.stderr == "", done
    assert says(prefix) == "1.0"

    before = (prefix / "current").resolve().stat().st_ino
    assert install(first, prefix).returncode == 0
    assert (prefix / "current").resolve().stat().st_ino == before, "the same bundle again changes nothing"

    done = install(broken, prefix)
    assert done.returncode == 1
    assert "giữ nguyên" in done.stderr and "as it was" in done.stderr
    assert says(prefix) == "1.0" and releases(prefix) == {"1.0"}

    (prefix / "releases" / "0.9-left-from-before").mkdir()
    # Killed half-way: no mark that it is whole, so it is made anew.
    fingerprint = hashlib.sha256((second / "SHA256SUMS").read_bytes()).hexdigest()[:12]
    (prefix / "releases" / f"2.0-{fingerprint}" / "bin").mkdir(parents=True)
    assert install(second, prefix).returncode == 0
    assert says(prefix) == "2.0" and releases(prefix) == {"1.0", "2.0"}, "one way back is kept"

    assert install(first, prefix).returncode == 0
    assert says(prefix) == "1.0" and releases(prefix) == {"1.0", "2.0"}, "back to the one before"


def test_a_damaged_bundle_installs_nothing(tmp_path: Path) -> None:
    made = small_bundle(tmp_path, "1.0")
    (wheel,) = (made / "wheels").iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-1])
    done = install(made, tmp_path / "there")
    assert done.returncode == 2
    assert wheel.name in done.stderr and "damaged" in done.stderr
    assert not (tmp_path / "there").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "theirs").touch()
    done = install(small_bundle(tmp_path, "1.0"), tmp_path / "there")
    assert done.returncode == 2 and "left alone" in done.stderr
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["theirs"]


def test_another_platform_is_named_with_the_one_command(tmp_path: Path) -> None:
    done = install(small_bundle(tmp_path, "1.0", platform="cp399-linux-vax"), tmp_path / "there")
    assert done.returncode == 2
    assert f"cp399-linux-vax, this machine has {platform_tag()}" in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert not (tmp_path / "there").exists()


def interpreter(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("has_python", "said"),
    [(True, "has no venv"), (False, "is needed")],
    ids=["without venv", "without python"],
)
def test_without_venv_or_python_there_is_one_command_to_run_and_exit_2(
    tmp_path: Path, has_python: bool, said: str
) -> None:
    made = small_bundle(tmp_path, "1.0")
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("dirname", "sha256sum", "sh"):
        (path / name).symlink_to(str(shutil.which(name)))
    interpreter(path, "id", "echo 0")
    interpreter(path, "apt-get", "exit 1")
    # A shim that version managers leave: on PATH, and only an error inside.
    interpreter(path, "python3", "echo 'command not found' >&2; exit 127")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if has_python:
        interpreter(path, f"python{version}", f"case $3 in *cache_tag*) echo {platform_tag()};; *) exit 1;; esac")
    done = install(made, tmp_path / "there", PATH=str(path), PYTHON="")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.splitlines()[-1].strip() == f"apt-get install -y python{version} python{version}-venv"
    assert not (tmp_path / "there").exists()


def test_a_folder_that_cannot_be_written_to_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = install(small_bundle(tmp_path, "1.0"), tmp_path / "file" / "below")
    assert done.returncode == 1
    assert "nothing was installed" in done.stderr and "Traceback" not in done.stderr
