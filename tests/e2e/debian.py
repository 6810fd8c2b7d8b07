"""A Debian below a folder, for one package: this machine's /usr and /etc in a mount and a network namespace of its own.

What is written lands in memory and is gone with the process; root is real there, so are dpkg, users and owners.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WAY_OUT = Path(__file__).with_name("way_out.sh")
#: ``sudo`` does what it is told; ``systemctl`` notes it, as there is no systemd to tell.
SHIMS = {"sudo": 'exec "$@"', "systemctl": 'echo "$*" >> /systemctl.log'}


@dataclass
class Debian:
    root: Path
    process: subprocess.Popen[str]
    #: For a bundle made with a Python that is not Debian's.
    python: str

    def run(self, command: list[str], *, inside: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs it below ``root``, or in the same namespaces with the machine's own files in place."""
        words = ["nsenter", "--target", str(self.process.pid), "--net", "--mount"]
        environ = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHON": self.python}
        words += ["chroot", str(self.root), *command] if inside else command
        return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=120)

    def carry_out(self, commands: str) -> str:
        """As somebody with sudo would in bash, in /home."""
        done = self.run(["bash", "-euo", "pipefail", "-c", f"cd /home\n{commands}"])
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout

    def put(self, path: str, text: str) -> None:
        done = self.run(["sh", "-c", f"printf %s {shlex.quote(text)} > {path}; chmod 755 {path}"])
        assert done.returncode == 0, done.stderr

    def sent(self) -> dict[str, int]:
        return packets(self.run(["cat", "/proc/net/dev", "/proc/net/snmp6"], inside=False).stdout)


def packets(text: str) -> dict[str, int]:
    """What went out by interface, of /proc/net/dev and snmp6; ``ipv6`` is what had no route."""
    counted = {name: int(numbers.split()[9]) for name, numbers in re.findall(r"^ *(\w+):(.*)$", text, re.MULTILINE)}
    tried = re.search(r"^Ip6OutNoRoutes\s+(\d+)$", text, re.MULTILINE)
    assert tried is not None
    return {**counted, "ipv6": int(tried[1])}


def why_not() -> str | None:
    """What is missing for a Debian here; None if it can be had."""
    for tool in ("dpkg", "dpkg-deb", "unshare", "nsenter", "ip", "chroot"):
        if shutil.which(tool) is None:
            return f"no {tool} here"
    if os.getuid() != 0:
        return "dpkg and users need root in a namespace"
    words = ["unshare", "--net", "--mount", "sh", str(WAY_OUT), "sh", "-c"]
    tried = (
        "mount -t tmpfs x /mnt && mkdir /mnt/a /mnt/b &&"
        " mount -t overlay x -o lowerdir=/usr,upperdir=/mnt/a,workdir=/mnt/b /media"
    )
    return None if subprocess.run([*words, tried], capture_output=True).returncode == 0 else "no namespaces here"


@contextmanager
def debian(folder: Path, installed: Path, packages: dict[str, str]) -> Iterator[Debian]:
    """One where ``packages`` count as installed, name and version.

    ``installed`` is an /opt/unionhub whose one release, and nothing else of it, is at hand, so that pip does not do its
    work a second time. It is there at both places: a release is made for the path that it was made at.
    """
    (release,) = (installed / "releases").iterdir()
    python = (release / "bin/python").resolve().parents[1]
    root = folder / "debian"
    root.mkdir()
    q = shlex.quote
    setup = [
        f"mount -t tmpfs -o mode=755 memory {q(str(root))}",
        f"cd {q(str(root))}",
        "mkdir -p usr etc dev proc opt run home tmp usr-new/a usr-new/b etc-new/a etc-new/b opt-new/a opt-new/b",
        "mkdir -p var/lib/dpkg/info var/lib/dpkg/updates var/lib/dpkg/triggers var/log",
        "ln -s usr/bin bin; ln -s usr/sbin sbin; ln -s usr/lib lib; [ ! -e /lib64 ] || ln -s usr/lib64 lib64",
        "touch var/lib/dpkg/available; mount --rbind /dev dev; mount --rbind /proc proc",
        *(
            f"mount -t overlay {name} -o lowerdir={q(str(lower))},upperdir={name}-new/a,workdir={name}-new/b {name}"
            for name, lower in (("usr", "/usr"), ("etc", "/etc"), ("opt", installed.parent))
        ),
        "rm -r opt/unionhub/bin opt/unionhub/current",
        *(
            f"mkdir -p .{q(str(path))} && mount --bind {q(str(path))} .{q(str(path))}"
            for path in (release, python)
            if path.parts[1] != "usr"
        ),
        "echo ready; exec cat",
    ]
    words = ["unshare", "--net", "--mount", "sh", str(WAY_OUT), "sh", "-euc", "\n".join(setup)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        made = Debian(root, process, f"{release}/bin/python")
        status = "".join(
            f"Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: x\nDescription: x\n\n"
            for name, version in packages.items()
        )
        made.put("/var/lib/dpkg/status", status)
        for name, text in SHIMS.items():
            made.put(f"/usr/local/bin/{name}", f"#!/bin/sh\n{text}\n")
        yield made
        process.stdin.close()
