"""The Debian package: what is in it, and docs/deploy carried out with it where nothing can be reached."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import deb
from hub import __version__
from tests.e2e.debian import Debian, debian, why_not
from tests.e2e.machine import ROOT, Machine, bundle
from tests.e2e.test_deploy import installed, steps

__all__ = ["bundle", "installed"]  # fixtures

#: What the package asks for; here the files of this machine stand for it.
NEEDED = {"passwd": "1:4.13", "libc6": "2.36-9", "python3.11": "3.11.2-6", "python3.11-venv": "3.11.2-6"}


@pytest.fixture(scope="module")
def package(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here")
    (archive,) = bundle.glob("unionhub-*.tar.gz")
    return deb.make(archive, tmp_path_factory.mktemp("deb"))


def asked(package: Path, option: str) -> str:
    return subprocess.run(["dpkg-deb", option, str(package)], capture_output=True, text=True, check=True).stdout


def test_the_package_says_what_it_is_and_what_it_needs(package: Path) -> None:
    fields = dict(re.findall(r"^(\S+): (.*)$", asked(package, "--field"), re.MULTILINE))
    assert package.name == f"unionhub_{__version__}_{fields['Architecture']}.deb"
    assert (fields["Package"], fields["Version"]) == ("unionhub", __version__)
    needs = {each.split()[0] for each in fields["Depends"].split(", ")}
    version = re.search(r"python3\.\d+", fields["Depends"])
    assert version is not None
    assert needs == {"libc6", "passwd", version[0], f"{version[0]}-venv"}
    assert int(fields["Installed-Size"]) > 10_000


def test_the_package_holds_the_bundle_whole_and_each_file_where_debian_looks_for_it(
    package: Path, bundle: Path
) -> None:
    lines = [line.split(None, 5) for line in asked(package, "--contents").splitlines()]
    files = {path.removeprefix("."): (mode, owner) for mode, owner, _, _, _, path in lines if mode[0] == "-"}
    assert {owner for _, owner in files.values()} == {"root/root"}
    packed = {path.removeprefix("/usr/lib/unionhub/bundle/") for path in files if "/bundle/" in path}
    summed = {line.split("  ")[1] for line in (bundle / "SHA256SUMS").read_text("utf-8").splitlines()}
    assert packed == {*summed, "SHA256SUMS"}
    assert {path: mode for path, (mode, _) in files.items() if "/bundle/" not in path} == {
        "/etc/unionhub/node.env": "-rw-r-----",
        "/usr/bin/unionhub": "-rwxr-xr-x",
        "/usr/lib/systemd/system/unionhub.service": "-rw-r--r--",
        "/usr/lib/systemd/system/unionhub@.service": "-rw-r--r--",
        "/usr/share/doc/unionhub/copyright": "-rw-r--r--",
    }


def test_without_dpkg_deb_it_says_in_one_line_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.deb", "--out", str(tmp_path / "out")],
        cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "make bundle" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def machine(package: Path, installed: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """A Debian with the package in /home and nothing of ours installed."""
    if missing := why_not():
        pytest.skip(missing)
    with debian(tmp_path_factory.mktemp("machine"), installed.root / "opt/unionhub", NEEDED) as made:
        copied = made.run(["cp", str(package), f"{made.root}/home/"], inside=False)
        assert copied.returncode == 0, copied.stderr
        yield made


def test_it_installs_runs_upgrades_and_goes_as_the_pages_say_and_sends_no_packet(machine: Debian) -> None:
    install, start, remove, purge = steps("install", "deb")
    assert machine.run(["test", "-e", "/opt/unionhub/current"]).returncode == 1, "what install.sh makes last"

    machine.carry_out(install)
    assert "4 kết nối" in machine.carry_out(start)
    state = machine.carry_out("stat -c '%U %G %a %n' /var/lib/unionhub /etc/unionhub /etc/unionhub/node.env")
    assert state.splitlines() == [
        "unionhub unionhub 700 /var/lib/unionhub",
        "root unionhub 750 /etc/unionhub",
        "root unionhub 640 /etc/unionhub/node.env",
    ]
    assert machine.carry_out("stat -c %U /var/lib/unionhub/config/hub.toml") == "unionhub\n"
    assert machine.run(["test", "-e", "/systemctl.log"]).returncode == 1, "no systemd, no systemctl"

    # As on a machine with systemd, and with what an operator has done since.
    machine.carry_out("mkdir -p /run/systemd/system; echo \"X='y'\" >> /etc/unionhub/node.env")
    machine.carry_out("echo mine > /var/lib/unionhub/config/mine; echo theirs > /opt/unionhub/theirs")
    (upgrade,) = steps("upgrade", "deb")
    machine.carry_out(upgrade)
    assert machine.carry_out("cat /systemctl.log") == "daemon-reload\n", "nothing that runs is touched"
    assert "X='y'" in machine.carry_out("cat /etc/unionhub/node.env")
    machine.carry_out("sudo unionhub check")

    machine.carry_out("rm /systemctl.log")
    machine.carry_out(remove)
    stopped = machine.carry_out("cat /systemctl.log").splitlines()
    assert stopped == [
        "stop unionhub.service unionhub@*.service",
        "disable unionhub.service unionhub@.service",
        "daemon-reload",
    ]
    assert machine.carry_out("ls /opt/unionhub; ls /usr/lib/unionhub 2>&1 || true").startswith("theirs\n")
    assert machine.run(["test", "-e", "/usr/bin/unionhub"]).returncode == 1
    assert "X='y'" in machine.carry_out("cat /etc/unionhub/node.env"), "a conffile stays until the purge"
    said = machine.carry_out(purge)
    assert "rm -r /var/lib/unionhub" in said and "Giữ lại" in said
    assert machine.carry_out("cat /var/lib/unionhub/config/mine; id -un unionhub") == "mine\nunionhub\n"
    assert machine.run(["test", "-e", "/etc/unionhub/node.env"]).returncode == 1

    assert set(machine.sent().values()) == {0}, machine.sent()
    # The counters count: one word to somebody out there, by either protocol.
    for kind, address in (("AF_INET", "198.51.100.1"), ("AF_INET6", "2001:db8::1")):
        code = f"import socket; socket.socket(socket.{kind}, socket.SOCK_DGRAM).sendto(b'x', ('{address}', 53))"
        machine.run([machine.python, "-c", code], inside=False)
    assert machine.sent() == {"lo": 0, "wire": 0, "out": 1, "ipv6": 1}
