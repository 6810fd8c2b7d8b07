"""Finds a Chromium that runs: ``python -m tests.chromium`` prints its path, or the command that installs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y --no-install-recommends chromium"


def find_chromium() -> str | None:
    """The path of the first one that tells its version; a stub that only tells how to install it does not count."""
    for name in NAMES:
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0:
            return path
    return None


if __name__ == "__main__":
    found = find_chromium()
    print(found or INSTALL)
    sys.exit(0 if found else 1)
