"""The pages of docs/deploy carried out: bundle made, installed without a network, run, upgraded, looked after."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.e2e.debian import packets
from tests.e2e.installation import Installation, until
from tests.e2e.machine import ROOT, Machine, build_stage, bundle, instructions, one_at_a_time
from tests.e2e.stand_in import placed
from tests.postgres import Server, running_postgres

__all__ = ["bundle"]  # a fixture

PAGES = DOCS / "deploy"


def steps(page: str, word: str = "machine") -> list[str]:
    """The commands of a page that are carried out on a machine, or on the one that ``word`` names."""
    return [b.text for b in blocks(PAGES / f"{page}.md") if word in b.words]


@pytest.fixture(scope="session")
def installed(bundle: Path) -> Machine:
    """A machine with the program installed as docs/deploy/install.md says; once, whatever number of workers."""
    with one_at_a_time(bundle.parent):
        made = Machine.new(bundle.parent / "installed")
        if not (made.root / "opt/unionhub/bin/unionhub").exists():
            for file in bundle.glob("unionhub-*.tar.gz*"):
                shutil.copy(file, made.home)
            made.carry_out(steps("install")[0])
    return made


def prepared(installed: Machine, folder: Path, postgres: Server | None = None) -> Machine:
    """Another machine with the same program, up to where `unionhub init` comes on the page."""
    made = Machine.new(folder, postgres)
    (unpacked,) = [path for path in installed.home.iterdir() if path.is_dir()]
    shutil.copytree(unpacked / "systemd", made.home / "bundle/systemd")
    for file in installed.home.glob("unionhub-*.tar.gz*"):
        (made.home / file.name).symlink_to(file)
    (made.root / "opt/unionhub").symlink_to(installed.root / "opt/unionhub")
    made.carry_out("cd bundle", steps("install")[1])
    made.use_free_ports()
    return made


@pytest.fixture(scope="module")
def machine(installed: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """After docs/deploy/install.md: a hub runs, a list was imported."""
    made = prepared(installed, tmp_path_factory.mktemp("deploy"))
    Installation(made.home).member_list(3).rename(made.home / "danh-sach.xlsx")
    try:
        made.carry_out(*steps("install")[2:])
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


def test_it_was_installed_without_a_network(installed: Machine) -> None:
    if not installed.offline:
        pytest.skip("a process may not leave the network here (unshare --net)")
    counted = installed.root / "packets"
    if counted.exists():
        sent = packets(counted.read_text())
        assert sent == {"lo": 0, "wire": 0, "out": 0, "ipv6": 0}, "no packet; test_deb.py shows that they are counted"
        return
    command = [*installed.offline, "cat", "/proc/net/dev"]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in seen.splitlines()[2:]] == ["lo"]


def test_an_installation_writes_nothing_outside_its_folder(installed: Machine) -> None:
    (unpacked,) = [path for path in installed.home.iterdir() if path.is_dir()]
    sums = [line.split("  ") for line in (unpacked / "SHA256SUMS").read_text("utf-8").splitlines()]
    there = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    assert there == {*(name for _, name in sums), "SHA256SUMS"}, "the unpacked bundle is as it was"
    for digest, name in sums:
        assert hashlib.sha256((unpacked / name).read_bytes()).hexdigest() == digest, name
    release = (installed.root / "opt/unionhub/current").resolve()
    assert not (release / "tmp").exists(), "what pip wrote on its way is gone"
    assert {path.name for path in (installed.root / "opt").iterdir()} == {"unionhub"}


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


def test_the_container_installs_the_same_bundle_the_same_way(installed: Machine) -> None:
    runs = [rest for word, rest in build_stage() if word == "RUN"]
    assert runs[-1] == "/bundle/install.sh /opt/unionhub"
    assert dict(instructions())["ENTRYPOINT"] == '["unionhub"]'
    assert (installed.root / "opt/unionhub/bin/unionhub").is_file(), "on the image's PATH"


def health(machine: Machine) -> int:
    """The exit code of the image's health check."""
    (check,) = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    command = json.loads(check.partition("CMD ")[2])
    environ = {"UNIONHUB_HTTP__PORT": str(machine.port), "PATH": os.defpath}
    return subprocess.run([placed(c, machine.root) for c in command], env=environ, capture_output=True).returncode


def test_a_node_is_looked_at_as_the_page_says(machine: Machine) -> None:
    said = machine.carry_out(*steps("lose-a-node"))
    assert "doi-tac-mau" in said


def test_an_upgrade_as_the_page_says_leaves_a_hub_that_runs_and_the_way_back(machine: Machine) -> None:
    before = (machine.root / "run/unionhub.pid").read_text()
    said = machine.carry_out(*steps("upgrade"))
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


def test_a_further_node_without_the_database_of_the_others_is_refused(machine: Machine) -> None:
    machine.type("sudo systemctl start unionhub@2")
    until((machine.root / "run/unionhub@2.code").exists)
    assert machine.exit_code("unionhub@2") == 2, "which its unit does not restart"
    assert "UNIONHUB_DATABASE_URL" in machine.journal("unionhub@2")
    assert not (machine.state / "var-2" / "unionhub.db").exists(), "no ledger of its own"


# -- several nodes ---------------------------------------------------------------------------------


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own that asks the user `unionhub` for a password, as Debian's does."""
    with running_postgres() as server:
        access = server.folder / "data" / "pg_hba.conf"
        access.write_text(f"host all unionhub 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        server.execute("SELECT pg_reload_conf()")
        yield server


@pytest.mark.postgres
def test_a_ledger_moves_to_postgresql_and_nodes_are_added_and_lost_as_the_pages_say(
    installed: Machine, postgres: Server, tmp_path: Path
) -> None:
    first = prepared(installed, tmp_path / "1", postgres)
    second = prepared(installed, tmp_path / "2", postgres)

    def nodes() -> int:
        return int(postgres.execute("SELECT count(*) AS n FROM node", database="unionhub")[0]["n"])

    try:
        first.carry_out(*steps("install")[2:4])
        # Without its list of people: what is moved is looked at in tests/conformance/test_move.py.
        first.carry_out(*steps("move-to-postgresql", "postgres"), answers="mật khẩu\nmật khẩu\n")
        password, stop, move, start, release = steps("move-to-postgresql")
        first.carry_out(password, answers="mật khẩu\n")
        said = first.carry_out(stop, move)
        assert "đối chiếu" in said
        first.carry_out(start)
        assert ready(first)["held"] == "moved"
        first.carry_out(release)
        assert ready(first)["held"] is None
        until(lambda: nodes() == 1)

        # On another machine.
        first.carry_out(*steps("add-a-node"))
        packed = first.home / "nut-moi.tar"
        assert packed.stat().st_mode & 0o077 == 0, "it holds every secret"
        packed.rename(second.home / "nut-moi.tar")
        unpack, join = steps("add-a-node", "new-machine")
        assert "4 kết nối" in second.carry_out(unpack)
        assert not (second.home / "nut-moi.tar").exists()
        for name in ("var/hub.key", "config/hub.toml", "config/secrets/simulator-partner"):
            assert (second.state / name).read_bytes() == (first.state / name).read_bytes(), name
        assert (second.state / "var/hub.key").stat().st_mode & 0o777 == 0o600
        assert f"{first.port}" in (second.root / "etc/unionhub/node.env").read_text(), "what the first works with"
        second.use_free_ports()
        second.carry_out(join)
        until(lambda: nodes() == 2)

        # On the same machine.
        first.carry_out(*steps("add-a-node", "same-machine"))
        until(lambda: nodes() == 4)

        os.kill(int((second.root / "run/unionhub.pid").read_text()), signal.SIGKILL)
        assert "doi-tac-mau" in first.carry_out(*steps("lose-a-node"))
        assert first.type("sudo systemctl stop unionhub unionhub@2 unionhub@3").returncode == 0
        assert [first.exit_code(name) for name in ("unionhub", "unionhub@2", "unionhub@3")] == [0, 0, 0]
    finally:
        first.switch_off()
        second.switch_off()
