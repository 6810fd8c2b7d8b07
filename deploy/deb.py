"""``make deb``: the bundle as a Debian package, for machines that keep what is installed with dpkg.

The package holds the bundle of ``deploy/bundle.py`` as it is; its maintainer scripts (``deploy/debian``) call the
bundle's own ``install.sh``. So there is one way to install, with or without dpkg.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from deploy import bundle

ROOT = Path(__file__).resolve().parents[1]
#: What Debian calls the machine of a wheel.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
SCRIPTS = ("postinst", "prerm", "postrm")
#: manylinux2014 and its elders are other names of these: a wheel that carries several runs on the oldest of them.
_GLIBC = re.compile(r"manylinux_2_(\d+)_")
DESCRIPTION = """Integration hub of a provincial trade-union federation
 Events come in, deliveries go out, nothing is lost. Everything it runs on but
 Python is in this package: it installs and runs without a network."""


def make(archive: Path, out: Path) -> Path:
    """Writes ``out/unionhub_VERSION_ARCHITECTURE.deb``, made of a bundle's ``.tar.gz``; answers the package."""
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        packed = tree / "usr/lib/unionhub"
        packed.mkdir(parents=True)
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        (unpacked,) = (path for path in Path(temporary).iterdir() if path != tree)
        unpacked.rename(packed / "bundle")
        about = _about(packed / "bundle")
        _place(packed / "bundle", tree)
        target = out / f"unionhub_{about['Version']}_{about['Architecture']}.deb"
        _control(tree, about)
        for folder in [tree, *(path for path in tree.rglob("*") if path.is_dir())]:
            folder.chmod(0o750 if folder == tree / "etc/unionhub" else 0o755)
        out.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(".new")
        # Not compressed: wheels are already, and it would take a minute to find that out.
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(aside)]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(bundle.MOMENT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environ)
        if done.returncode:
            raise SystemExit(
                "dpkg-deb không xong, chưa ghi gói nào; lý do / dpkg-deb failed, no package was written; it says: "
                + done.stderr.strip()
            )
        aside.replace(target)
        return target


def _about(unpacked: Path) -> dict[str, str]:
    """The fields of the control file that follow from the bundle."""
    lines = (unpacked / "BUNDLE").read_text("utf-8").splitlines()
    said = dict(line.split("=", 1) for line in lines)
    machine = said["PLATFORM"].rpartition("-")[2]
    if machine not in ARCHITECTURES:
        raise SystemExit(
            f"Gói deb chỉ làm cho {', '.join(ARCHITECTURES)}, gói này dành cho {machine}: cài bằng make bundle"
            f" / no Debian package for {machine}: install what make bundle makes"
        )
    python = f"python{said['PYTHON_VERSION']}"
    tags = (_GLIBC.findall(path.name) for path in (unpacked / "wheels").iterdir())
    glibc = max((min(map(int, each)) for each in tags if each), default=17)
    return {
        "Package": "unionhub",
        "Version": said["VERSION"],
        "Architecture": ARCHITECTURES[machine],
        "Maintainer": "Union Hub <unionhub@unionhub.invalid>",
        "Section": "net",
        "Priority": "optional",
        "Depends": f"libc6 (>= 2.{glibc}), passwd, {python}, {python}-venv",
        "Description": DESCRIPTION,
    }


def _place(unpacked: Path, tree: Path) -> None:
    """Copies of the bundle's files where dpkg and systemd look for them."""
    for name, target, mode in (
        ("systemd/unionhub", "usr/bin/unionhub", 0o755),
        ("systemd/unionhub.service", "usr/lib/systemd/system/unionhub.service", 0o644),
        ("systemd/unionhub@.service", "usr/lib/systemd/system/unionhub@.service", 0o644),
        ("systemd/node.env", "etc/unionhub/node.env", 0o640),
        ("LICENSE", "usr/share/doc/unionhub/copyright", 0o644),
    ):
        path = tree / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(unpacked / name, path)
        path.chmod(mode)


def _control(tree: Path, about: dict[str, str]) -> None:
    kib = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    control = tree / "DEBIAN"
    control.mkdir()
    fields = {**about, "Installed-Size": str(kib)}
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()), "utf-8")
    (control / "conffiles").write_text("/etc/unionhub/node.env\n", "utf-8")
    for name in SCRIPTS:
        shutil.copy(ROOT / "deploy" / "debian" / name, control)
        (control / name).chmod(0o755)
    for name in ("control", "conffiles"):
        (control / name).chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make deb", description="Đóng gói cho Debian / makes a Debian package")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="Thư mục ghi / folder to write to")
    parser.add_argument("--bundle", type=Path, help="Gói .tar.gz đã có / a bundle that was made already")
    said = parser.parse_args()
    if shutil.which("dpkg-deb") is None:
        raise SystemExit(
            "Không có dpkg-deb trên máy này: làm gói deb trên Debian hoặc Ubuntu, hoặc dùng make bundle (cài bằng"
            " install.sh) / dpkg-deb is not on this machine: make the deb on Debian or Ubuntu, or use make bundle"
        )
    target = make(said.bundle or bundle.make(said.out), said.out)
    print(f"{target}  {target.stat().st_size // 1_000_000} MB")


if __name__ == "__main__":
    main()
