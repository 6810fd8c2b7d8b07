"""``make bundle``: the hub and all it runs on as one file that installs without a network.

The wheels are those of this machine's Python and platform, taken by the hashes of ``requirements/runtime.txt``;
our own is built from a copy of the tree, so that nothing an earlier build left behind gets in.
``deploy/install.sh`` installs it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What our wheel is built from.
SOURCES = ("hub", "plugins", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
#: Every file in the archive is of this moment, so that the same sources give the same bytes; zip knows nothing earlier.
MOMENT = int(os.environ.get("SOURCE_DATE_EPOCH", "315532800"))
_CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")


def platform_tag() -> str:
    """What the wheels run on, such as cp311-linux-x86_64; ``install.sh`` asks a Python for the same text."""
    return f"{str(sys.implementation.cache_tag).replace('cpython-', 'cp')}-{sysconfig.get_platform()}"


def make(out: Path) -> Path:
    """Writes the bundle and its checksum to ``out``; answers the bundle."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheels = folder / "wheels"
        _pip("download", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", wheels,
             "--requirement", ROOT / "requirements" / "runtime.txt")  # fmt: skip
        own = _own_wheel(folder / "source", wheels)
        version = own.name.split("-")[1]
        bundle = folder / f"unionhub-{version}-{platform_tag()}"
        bundle.mkdir()
        wheels.rename(bundle / "wheels")
        fill(bundle, version)
        return pack(bundle, out)


def fill(bundle: Path, version: str) -> None:
    """Puts everything but the wheels into ``bundle``, its checksums last."""
    (own,) = (bundle / "wheels").glob(f"unionhub-{version}-*.whl")
    locked = (ROOT / "requirements" / "runtime.txt").read_text("utf-8")
    pinned = f"unionhub=={version} --hash=sha256:{_sha256(own)}\n"
    (bundle / "requirements.txt").write_text(locked + pinned, "utf-8")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    (bundle / "BUNDLE").write_text(f"VERSION={version}\nPLATFORM={platform_tag()}\nPYTHON_VERSION={python}\n", "utf-8")
    shutil.copy(ROOT / "deploy" / "install.sh", bundle)
    shutil.copy(ROOT / "LICENSE", bundle)
    shutil.copytree(ROOT / "deploy" / "systemd", bundle / "systemd")
    shutil.copytree(ROOT / "hub" / "defaults", bundle / "config", ignore=shutil.ignore_patterns("secrets"))
    for page in (ROOT / "docs").rglob("*.md"):
        target = bundle / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target)
    sums = [f"{_sha256(path)}  {path.relative_to(bundle)}\n" for path in sorted(bundle.rglob("*")) if path.is_file()]
    (bundle / "SHA256SUMS").write_text("".join(sums), "utf-8")


def pack(bundle: Path, out: Path) -> Path:
    """The folder as ``out/NAME.tar.gz``, with ``NAME.tar.gz.sha256`` beside it."""
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{bundle.name}.tar.gz"
    aside = target.with_suffix(".new")
    with (
        aside.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=MOMENT) as zipped,
        tarfile.open(fileobj=zipped, mode="w|") as tar,
    ):
        for path in sorted(bundle.rglob("*")):
            tar.add(path, path.relative_to(bundle.parent), recursive=False, filter=_of_nobody)
    aside.replace(target)
    Path(f"{target}.sha256").write_text(f"{_sha256(target)}  {target.name}\n", "utf-8")
    return target


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = MOMENT
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _own_wheel(source: Path, wheels: Path) -> Path:
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=_CACHES)
        else:
            shutil.copy(path, source)
    # Built with the setuptools that was just downloaded by its hash, whatever else is installed here.
    _pip("wheel", "--no-deps", "--no-index", "--find-links", wheels, "--wheel-dir", wheels, source)
    (own,) = wheels.glob("unionhub-*.whl")
    return own


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *map(str, arguments), "-qq"]
    try:
        subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(MOMENT)})
    except subprocess.CalledProcessError:
        raise SystemExit(
            f"pip {arguments[0]} không xong, lý do ở trên; chưa ghi gói nào"
            f" / pip {arguments[0]} failed, see above; no bundle was written"
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Đóng gói bản cài không cần mạng / makes an offline bundle")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="Thư mục ghi / folder to write to")
    target = make(parser.parse_args().out)
    print(f"{target}  {target.stat().st_size // 1_000_000} MB")


if __name__ == "__main__":
    main()
