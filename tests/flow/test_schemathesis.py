"""schemathesis reads the API's document, asks the running hub whatever it can think of, and finds nothing."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from hub.plugins import load_plugins
from tests.flow.api_site import TOKEN, open_site

HERE = Path(__file__).parent / "schemathesis"
WITHIN_S = 120


async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    async with open_site(tmp_path, plugins=load_plugins()) as site:
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(HERE / "schemathesis.toml"), "run", f"{site.url}/api/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--no-color"),
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"), "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                said, _ = await run.communicate()
        finally:
            if run.returncode is None:
                run.kill()
                await run.wait()
    told = said.decode()
    assert run.returncode == 0, told
    assert (tested := re.search(r"Tested: +(\d+)", told)) is not None, told
    assert int(tested[1]) > 40, "of every installed plugin"
    assert (made := re.search(r"(\d+) generated", told)) is not None, told
    assert int(made[1]) > 1000, "otherwise it hardly asked"
