"""The files of deploy/ fit the hub and one another; what they say is carried out by tests/e2e/test_deploy.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from hub.settings import known_variables
from hub.settings_model import WorkerSettings
from tests.e2e.machine import ROOT, build_stage, instructions
from tests.e2e.stand_in import parse_environment, parse_unit

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
ONE, OF_SEVERAL = (DEPLOY / "systemd" / name for name in ("unionhub.service", "unionhub@.service"))
#: Keys of systemd 252 (Debian 12): a misspelt one is ignored by systemd with a line in the journal that nobody reads.
KNOWN_KEYS = """
    Description After Wants StartLimitIntervalSec WantedBy
    Type User Group WorkingDirectory Environment EnvironmentFile ExecStart ExecReload Restart RestartSec
    TimeoutStartSec TimeoutStopSec WatchdogSec NotifyAccess KillMode MemoryMax LimitNOFILE LimitCORE StateDirectory
    StateDirectoryMode UMask NoNewPrivileges CapabilityBoundingSet ProtectSystem ProtectHome PrivateTmp PrivateDevices
    ProtectClock ProtectControlGroups ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables
    ProtectProc RemoveIPC RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID LockPersonality
    MemoryDenyWriteExecute SystemCallArchitectures SystemCallFilter SystemCallErrorNumber
"""


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_the_hub_as_nobody_special_and_only_again_when_that_can_help(unit: Path) -> None:
    keys = parse_unit(unit)
    assert set(keys) <= set(KNOWN_KEYS.split())
    assert keys["User"] == ["unionhub"]
    assert keys["ExecStart"] == ["/opt/unionhub/bin/unionhub run --config config"]
    assert keys["WorkingDirectory"] == ["/var/lib/unionhub"] and keys["StateDirectory"] == ["unionhub"]
    assert (keys["ProtectSystem"], keys["NoNewPrivileges"], keys["CapabilityBoundingSet"]) == (
        ["strict"],
        ["yes"],
        [""],
    )
    # Whatever ended it, a database that comes up after the hub included.
    assert keys["Restart"] == ["on-failure"] and "RestartPreventExitStatus" not in keys
    assert keys["StartLimitIntervalSec"] == ["0"] and int(keys["RestartSec"][0]) >= 1, "tried for ever, not in a loop"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_stop_has_the_time_that_the_hub_takes(unit: Path) -> None:
    takes = WorkerSettings.model_fields["stop_within_s"].default
    assert int(parse_unit(unit)["TimeoutStopSec"][0]) >= 2 * takes
    assert re.search(r"stop_grace_period: (\d+)s", (DEPLOY / "compose.yaml").read_text())[1] == "30"  # type: ignore[index]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_is_told_to_wait_for_a_word_only_if_the_hub_says_it(unit: Path) -> None:
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "hub").rglob("*.py"))
    keys = parse_unit(unit)
    assert keys["Type"] == ["notify" if "READY=1" in code else "exec"]
    assert ("WatchdogSec" in keys) == ("WATCHDOG=1" in code)


def test_one_of_several_differs_from_one_alone_in_what_it_must() -> None:
    one, several = parse_unit(ONE), parse_unit(OF_SEVERAL)
    assert {k for k in one.keys() | several.keys() if one.get(k) != several.get(k)} == {
        "Description", "Environment", "EnvironmentFile",
    }  # fmt: skip
    assert several["EnvironmentFile"] == ["/etc/unionhub/node.env", "-/etc/unionhub/node-%i.env"]
    variables = {pair.partition("=")[0] for line in several["Environment"] for pair in line.split()}
    assert variables == {"UNIONHUB_VAR_DIR", "UNIONHUB_HTTP__PORT", "UNIONHUB_DATABASE_URL"} <= set(known_variables())


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_itself_finds_nothing_wrong_where_it_can_be_asked(unit: Path, tmp_path: Path) -> None:
    asked = shutil.which("systemd-analyze")
    if asked is None:
        return  # the tests above look at every key, here and everywhere
    program = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text("utf-8"), flags=re.MULTILINE)
    copy = tmp_path / unit.name.replace("@", "@1")
    copy.write_text(program, "utf-8")
    done = subprocess.run([asked, "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_environment_reads_the_same_for_systemd_and_for_the_shell(tmp_path: Path) -> None:
    shipped = (DEPLOY / "systemd" / "node.env").read_text("utf-8")
    copy = tmp_path / "node.env"
    copy.write_text(re.sub(r"^#(?=[A-Z_]+=)", "", shipped, flags=re.MULTILINE), "utf-8")
    parsed = parse_environment(copy)
    assert set(parsed) == {"UNIONHUB_DATABASE_URL", "PGPASSFILE"}
    assert parsed["UNIONHUB_DATABASE_URL"].startswith("postgresql://unionhub@")
    done = subprocess.run(["sh", "-c", f"set -a; . {copy}; env"], capture_output=True, text=True, env={}, check=True)
    assert parsed.items() <= dict(line.split("=", 1) for line in done.stdout.splitlines()).items()
    assert parse_environment(DEPLOY / "systemd" / "node.env") == {}, "as it ships it changes nothing"


def test_the_scripts_may_be_executed_and_are_shell() -> None:
    for script in (DEPLOY / "install.sh", DEPLOY / "systemd" / "unionhub", *(DEPLOY / "debian").iterdir()):
        assert os.access(script, os.X_OK), script.name
        subprocess.run(["sh", "-n", str(script)], check=True)
    text = (DEPLOY / "install.sh").read_text("utf-8")
    assert "--no-index" in text and "--require-hashes" in text and "env -i" in text


def test_make_has_a_target_for_the_bundle() -> None:
    done = subprocess.run(["make", "-n", "bundle", "deb"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "deploy/bundle.py" in done.stdout and "deploy.deb" in done.stdout, done.stderr
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert "make bundle" in helped and "make deb" in helped


# -- container -------------------------------------------------------------------------------------


def final_stage() -> list[tuple[str, str]]:
    return instructions()[len(build_stage()) :]


def test_no_registry_is_named_anywhere() -> None:
    base = next(rest for word, rest in instructions() if word == "ARG")
    images = [base.removeprefix("BASE="), *re.findall(r"image: (\S+)", (DEPLOY / "compose.yaml").read_text("utf-8"))]
    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"[a-z]+:[a-z0-9.-]+", image), image
    assert [rest for word, rest in instructions() if word == "FROM"] == ["${BASE} AS build", "${BASE}"]


def test_the_image_is_debian_slim_with_a_python_that_the_hub_runs_on() -> None:
    base = next(rest for word, rest in instructions() if word == "ARG")
    version = re.fullmatch(r"BASE=python:3\.(\d+)-slim-[a-z]+", base)
    assert version is not None
    assert int(version[1]) >= 11


def test_the_final_image_has_no_tools_and_runs_as_nobody_special() -> None:
    stage = final_stage()
    words = [word for word, _ in stage]
    runs = " ".join(rest for word, rest in stage if word == "RUN")
    assert not re.search(r"apt|pip|gcc|curl|build", runs)
    assert dict(stage)["USER"] == "unionhub"
    assert words.index("USER") < words.index("ENTRYPOINT") and words.index("RUN") < words.index("USER")
    assert [rest for word, rest in stage if word == "COPY"] == ["--from=build /opt/unionhub /opt/unionhub"]
    variables = {pair.partition("=")[0] for word, rest in stage if word == "ENV" for pair in rest.split()}
    assert {v for v in variables if v.startswith("UNIONHUB_")} <= set(known_variables())
    assert json.loads(dict(stage)["VOLUME"]) == ["/var/lib/unionhub/var"]
    assert "readyz" in dict(stage)["HEALTHCHECK"]


def test_only_what_is_copied_goes_to_the_builder() -> None:
    copied = {name for word, rest in build_stage() if word == "COPY" for name in rest.split()[:-1]}
    lines = (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").splitlines()
    assert lines[1] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    for name in copied:
        assert (ROOT / name).exists(), name


def test_what_the_wheel_is_made_of_is_what_the_builder_gets() -> None:
    from deploy.bundle import SOURCES

    copied = {name for word, rest in build_stage() if word == "COPY" for name in rest.split()[:-1]}
    assert set(SOURCES) <= copied
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= set(SOURCES)
