"""The pages of docs/deploy carried out: bundle made, installed without a network, run, upgraded, looked after."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.e2e.installation import Installation, until
from tests.e2e.machine import ROOT, Machine, build_stage, bundle, instructions
from tests.e2e.stand_in import placed

__all__ = ["bundle"]  # a fixture

PAGES = DOCS / "deploy"


def steps(page: str) -> list[str]:
    """The commands of a page that are carried out on a machine."""
    return [b.text for b in blocks(PAGES / f"{page}.md") if "machine" in b.words]


def carry_out(machine: Machine, *commands: str) -> str:
    """Types them one after another, where the one before left us; answers what the last one said."""
    said = ""
    folder = machine.home
    for command in commands:
        done = machine.type(f"{command}\npwd > {machine.root}/cwd", folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}{machine.journal()}"
        folder, said = Path((machine.root / "cwd").read_text().strip()), done.stdout
    return said


@pytest.fixture(scope="module")
def machine(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """After docs/deploy/install.md: a hub runs, a list was imported."""
    made = Machine.new(tmp_path_factory.mktemp("deploy"))
    for file in bundle.glob("unionhub-*.tar.gz*"):
        shutil.copy(file, made.home)
    program, service, start, look, work = steps("install")
    try:
        carry_out(made, program, service)
        with (made.root / "etc/unionhub/node.env").open("a") as environment:
            environment.write(f"UNIONHUB_HTTP__PORT='{made.port}'\n")
        Installation(made.root / "home").member_list(3).rename(made.home / "danh-sach.xlsx")
        carry_out(made, start, look, work)
        yield made
    finally:
        made.switch_off()


def ready(machine: Machine) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{machine.port}/readyz", timeout=10) as answer:
        return dict(json.load(answer))


def test_the_installed_hub_runs_as_its_unit_says(machine: Machine) -> None:
    assert ready(machine) == {"status": "ready", "held": None}
    assert (machine.root / "users").read_text() == "unionhub\n"
    assert (machine.state / "var" / "hub.key").stat().st_mode & 0o777 == 0o600
    assert (machine.state / "loi.xlsx").exists()
    members = machine.type("sudo unionhub members units --json")
    assert json.loads(members.stdout)["units"][0]["members"] == 3, "through the running hub, from any folder"


def test_it_was_installed_without_a_network(machine: Machine) -> None:
    if not machine.offline:
        pytest.skip("a process may not leave the network here (unshare --net)")
    seen = subprocess.run([*machine.offline, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in seen.splitlines()[2:]] == ["lo"]


def test_an_installation_writes_nothing_outside_its_folder(machine: Machine) -> None:
    (unpacked,) = [path for path in machine.home.iterdir() if path.is_dir()]
    sums = [line.split("  ") for line in (unpacked / "SHA256SUMS").read_text("utf-8").splitlines()]
    there = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    assert there == {*(name for _, name in sums), "SHA256SUMS"}, "the unpacked bundle is as it was"
    for digest, name in sums:
        assert hashlib.sha256((unpacked / name).read_bytes()).hexdigest() == digest, name
    release = (machine.root / "opt/unionhub/current").resolve()
    assert not (release / "tmp").exists(), "what pip wrote on its way is gone"
    assert {path.name for path in (machine.root / "opt").iterdir()} == {"unionhub"}


def test_our_wheel_holds_every_file_of_the_hub_and_its_plugins(bundle: Path) -> None:
    (wheel,) = (bundle / "wheels").glob("unionhub-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    found = {p for part in ("hub", "plugins") for p in (ROOT / part).rglob("*") if p.is_file()}
    files = {p.relative_to(ROOT).as_posix() for p in found if "__pycache__" not in p.parts}
    assert len(files) > 100
    assert files - packed == set()


def test_what_the_bundle_needs_to_run_is_in_it_and_pinned(bundle: Path) -> None:
    pinned = (bundle / "requirements.txt").read_text("utf-8")
    (own,) = (bundle / "wheels").glob("unionhub-*.whl")
    assert pinned.endswith(f"--hash=sha256:{hashlib.sha256(own.read_bytes()).hexdigest()}\n")
    assert (bundle / "config" / "hub.toml").read_bytes() == (ROOT / "config" / "hub.toml").read_bytes()
    assert not list((bundle / "config").rglob("secrets"))
    assert "://" not in pinned, "no registry is named"


def test_the_container_installs_the_same_bundle_the_same_way(machine: Machine) -> None:
    runs = [rest for word, rest in build_stage() if word == "RUN"]
    assert runs[-1] == "/bundle/install.sh /opt/unionhub"
    assert dict(instructions())["ENTRYPOINT"] == '["unionhub"]'
    assert (machine.root / "opt/unionhub/bin/unionhub").is_file(), "on the image's PATH"


def health(machine: Machine) -> int:
    """The exit code of the image's health check."""
    (check,) = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    command = json.loads(check.partition("CMD ")[2])
    environ = {"UNIONHUB_HTTP__PORT": str(machine.port), "PATH": os.defpath}
    return subprocess.run([placed(c, machine.root) for c in command], env=environ, capture_output=True).returncode


def test_a_node_is_looked_at_as_the_page_says(machine: Machine) -> None:
    said = carry_out(machine, *steps("lose-a-node"))
    assert "doi-tac-mau" in said


def test_an_upgrade_as_the_page_says_leaves_a_hub_that_runs_and_the_way_back(machine: Machine) -> None:
    before = (machine.root / "run/unionhub.pid").read_text()
    said = carry_out(machine, *steps("upgrade"))
    assert re.search(r"version \d+\.\d+", said)
    assert (machine.root / "run/unionhub.pid").read_text() != before
    assert ready(machine)["status"] == "ready"
    assert '"event":"hub.stopped"' in machine.journal()


def test_the_health_check_is_good_while_the_hub_is_and_bad_without_it(machine: Machine) -> None:
    assert health(machine) == 0
    assert machine.type("sudo systemctl stop unionhub").returncode == 0
    assert machine.exit_code() == 0
    assert health(machine) != 0
    assert machine.type("sudo systemctl start unionhub").returncode == 0
    until(lambda: health(machine) == 0)


def test_what_a_further_node_needs_is_packed_and_unpacked(machine: Machine, tmp_path: Path) -> None:
    carry_out(machine, *steps("add-a-node"))
    packed = machine.home / "nut-moi.tar"
    assert packed.stat().st_mode & 0o077 == 0, "it holds every secret"
    other = Machine.new(tmp_path)
    (unpacked,) = [path for path in machine.home.iterdir() if path.is_dir()]
    shutil.copytree(unpacked / "systemd", other.home / "bundle/systemd")
    (other.root / "opt/unionhub").symlink_to(machine.root / "opt/unionhub")
    carry_out(other, "cd bundle", steps("install")[1])
    packed.rename(other.home / "nut-moi.tar")
    said = carry_out(other, *[b.text for b in blocks(PAGES / "add-a-node.md") if "new-machine" in b.words])
    assert "4 kết nối" in said
    for name in ("var/hub.key", "config/hub.toml", "config/secrets/simulator-partner"):
        assert (other.state / name).read_bytes() == (machine.state / name).read_bytes(), name
    assert (other.state / "var/hub.key").stat().st_mode & 0o777 == 0o600
    assert not (other.state / "var/unionhub.db").exists()
    assert not (other.home / "nut-moi.tar").exists()
    assert f"{machine.port}" in (other.root / "etc/unionhub/node.env").read_text(), "what the other node works with"


def test_a_further_node_without_the_database_of_the_others_is_refused(machine: Machine) -> None:
    machine.type("sudo systemctl start unionhub@2")
    until((machine.root / "run/unionhub@2.code").exists)
    assert machine.exit_code("unionhub@2") == 2, "which its unit does not restart"
    assert "UNIONHUB_DATABASE_URL" in machine.journal("unionhub@2")
    assert not (machine.state / "var-2" / "unionhub.db").exists(), "no ledger of its own"
