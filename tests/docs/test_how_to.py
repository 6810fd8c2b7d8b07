"""The code on the how-to pages is taken out of the pages and run."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from hub.signing import new_secret, parse_secret, sign
from tests.docs.pages import DOCS, ROOT, blocks, documents, file_block

PLUGIN_PAGE = DOCS / "how-to" / "write-a-plugin.md"
PARTNER_PAGE = DOCS / "how-to" / "receive-webhooks.md"
#: Names a page of shell commands; its blocks run in order, in one new folder.
WITH_COMMANDS = [page for page in documents() if any("runnable" in b.words for b in blocks(page))]
BODY = b'{"specversion":"1.0","id":"1"}'


def run(*command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("UNIONHUB_", "PYTEST_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**clean, "PATH": path, **more}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)


def test_the_plugin_on_the_page_loads_and_passes_its_test(tmp_path: Path) -> None:
    for name in ("notices.py", "test_notices.py"):
        (tmp_path / name).write_text(file_block(PLUGIN_PAGE, name), "utf-8")
    options = ["asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function", "filterwarnings = error"]
    (tmp_path / "pytest.ini").write_text("\n".join(["[pytest]", *options]))
    done = run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".", folder=tmp_path,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def signed(secret: str) -> dict[str, str]:
    timestamp = int(datetime.now(UTC).timestamp())
    return {
        "webhook-id": "01a2086b-a92f-7464-8986-3e303b258df3",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(
            parse_secret(secret), "01a2086b-a92f-7464-8986-3e303b258df3", timestamp, BODY, parse_secret(new_secret())
        ),
    }


def test_the_partners_python_takes_what_we_sign_and_nothing_else() -> None:
    page: dict[str, Any] = {}
    exec(compile(file_block(PARTNER_PAGE, "receive.py"), "receive.py", "exec"), page)  # noqa: S102 - the page's own code
    secret = new_secret()
    headers = signed(secret)
    assert page["read_event"](secret, headers, BODY) == {"specversion": "1.0", "id": "1"}
    assert page["read_event"](secret, headers, BODY + b" ") is None
    assert page["read_event"](new_secret(), headers, BODY) is None
    assert page["read_event"](secret, {**headers, "webhook-signature": "x,y,z"}, BODY) is None
    assert page["read_event"](secret, {}, BODY) is None


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_as_they_stand(page: Path, tmp_path: Path) -> None:
    script = "\n".join(b.text for b in blocks(page) if "runnable" in b.words)
    done = run("bash", "-euo", "pipefail", "-c", script, folder=tmp_path)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


def test_some_commands_are_run() -> None:
    assert {page.stem for page in WITH_COMMANDS} >= {"quickstart", "configure-a-connection"}


def test_an_example_body_is_one_event() -> None:
    (body,) = [b.text for b in blocks(PARTNER_PAGE) if b.words == ("json",)]
    assert orjson.loads(body)["type"] == "vn.congdoan.member.updated.v1"
