"""The command line without a running hub: what it refuses, what it says, and how it ends."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hub.store.lock import ProcessLock
from tests.command_line import Run, unionhub

__all__ = ["unionhub"]  # a fixture

DELIVERY = "01a2086c-cd8c-812c-aa92-6250a297b748"


@pytest.fixture
def config(tmp_path: Path, unionhub: Run) -> Path:
    """What ``init`` writes."""
    folder = tmp_path / "config"
    assert unionhub("init", folder).code == 0
    return folder


# -- init ------------------------------------------------------------------------------------------


def test_init_writes_a_configuration_that_check_finds_right(unionhub: Run, tmp_path: Path) -> None:
    done = unionhub("init", tmp_path / "config")
    written = [Path(line) for line in done.out.splitlines()]
    assert done.code == 0 and {p.name for p in written} >= {"hub.toml", "subscriptions.toml", "nha-mang.toml"}
    assert all(p.is_file() for p in written)
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in (tmp_path / "config" / "secrets").iterdir())
    checked = unionhub("check", "--config", tmp_path / "config")
    assert (checked.code, checked.err) == (0, "")
    assert "đúng" in checked.out and "valid" in checked.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config"], "checking starts and writes nothing"


def test_init_refuses_what_is_not_an_empty_folder(unionhub: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        done = unionhub("init", tmp_path / name)
        assert done.code == 2 and name in done.err and "không ghi đè" in done.err
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert unionhub("init", tmp_path / "empty").code == 0


# -- check -----------------------------------------------------------------------------------------

#: What is spoiled: file, text, replacement; and what the refusal must name: place, key and what is allowed.
WRONG: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "an unknown key": ("hub.toml", '# lang = "vi"', 'lng = "vi"', ("hub.toml:17: lng", "lang")),
    "an unknown table": ("hub.toml", "[breaker]", "[braker]", ("hub.toml", "braker", "breaker")),
    "an unknown key of a connection": (
        "connections/nha-mang.toml", "port = 12775", "prt = 12775", ("nha-mang.toml:9", "settings.prt", "port"),
    ),
    "a wrong type": ("hub.toml", "# port = 8080", 'port = "8080"', ("hub.toml", "http.port", "số nguyên")),
    "a value out of range": ("hub.toml", "# jitter = 0.2", "jitter = 7", ("hub.toml", "retry.jitter", "0.5")),
    "two values that do not fit": (
        "hub.toml", "# max_s = 3600", "max_s = 1", ("hub.toml", "breaker", "max_s"),
    ),
    "no TOML": (
        "subscriptions.toml", 'name = "vao-so-van-ban"', 'name = "vao-so-van-ban', ("subscriptions.toml:16", "TOML"),
    ),
    "a missing key": (
        "connections/nha-mang.toml", 'system_id = "demo"', "", ("nha-mang.toml", "settings.system_id", "bắt buộc"),
    ),
    "a secret in the file": (
        "connections/nha-mang.toml", '{ file = "secrets/simulator-smsc" }', '"top-secret"',
        ("nha-mang.toml:11", "settings.password", "env"),
    ),
    "a secret file that is not there": (
        "connections/nha-mang.toml", "secrets/simulator-smsc", "secrets/nowhere",
        ("nha-mang.toml:11", "secrets/nowhere"),
    ),
    "a connector type nobody has": (
        "connections/nha-mang.toml", '"telecom_sms"', '"telecom_smss"', ("nha-mang.toml", "type", "telecom_sms"),
    ),
    "an event type nobody has": (
        "subscriptions.toml", "document.received.v1", "document.recieved.v1",
        ("subscriptions.toml", "types[1]", "received"),
    ),
    "a destination nobody has": (
        "subscriptions.toml", 'to = "doi-tac-mau"', 'to = "doi-tac-mua"', ("subscriptions.toml", "to", "doi-tac-mau"),
    ),
    "a handler nobody has": (
        "subscriptions.toml", "handler:doc_mgmt.register", "handler:doc_mgmt.regster", ("subscriptions.toml", "to"),
    ),
    "a field no event has": (
        "subscriptions.toml", 'to = "doi-tac-mau"', 'to = "doi-tac-mau"\nfields = ["phne"]',
        ("subscriptions.toml", "fields[1]"),
    ),
    "a numbered weekday": (
        "connections/truc-van-ban.toml", 'schedule = "every 5m"', 'schedule = "30 6 * * 1-5"',
        ("truc-van-ban.toml:7: schedule", "mon"),
    ),
    "a partner in clear text": (
        "connections/doi-tac-mau.toml", "http://127.0.0.1:18081", "http://partner.example",
        ("doi-tac-mau.toml:6: settings", "url", "https"),
    ),
    "another database": ("hub.toml", '# database_url = ""', 'database_url = "mysql://x"', ("database_url", "sqlite")),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_check_names_the_place_the_key_and_what_is_allowed(unionhub: Run, config: Path, case: str) -> None:
    file, text, replacement, named = WRONG[case]
    before = (config / file).read_text()
    assert text in before
    (config / file).write_text(before.replace(text, replacement, 1))
    done = unionhub("check", "--config", config)
    assert (done.code, done.out) == (2, "")
    for part in named:
        assert part in done.err, done.err
    assert "top-secret" not in done.err, "what stands in the wrong place may be a secret"


def test_check_names_everything_wrong_at_once(unionhub: Run, config: Path) -> None:
    (config / "hub.toml").write_text('lng = "vi"\n')
    (config / "connections" / "Tên Sai.toml").write_text("")
    (config / "subscriptions.toml").unlink()
    done = unionhub("check", "--config", config, UNIONHUB_HTTP__PROT="1", UNIONHUB_LANG="fr", UNIONHUB_HTTP__PORT="x")
    assert done.code == 2
    for named in ("lng", "Tên Sai.toml", "subscriptions.toml", "UNIONHUB_HTTP__PROT", "UNIONHUB_LANG", "HTTP__PORT"):
        assert named in done.err


def test_a_secret_others_can_read_is_refused_with_the_command_that_mends_it(unionhub: Run, config: Path) -> None:
    (config / "secrets" / "simulator-smsc").chmod(0o644)
    done = unionhub("check", "--config", config)
    assert done.code == 2 and "chmod 600" in done.err and "simulator-smsc" in done.err


# -- run refuses -----------------------------------------------------------------------------------


def test_run_refuses_a_folder_that_is_not_there(unionhub: Run, tmp_path: Path) -> None:
    done = unionhub("run", "--config", tmp_path / "nowhere")
    assert done.code == 2 and "nowhere" in done.err and "unionhub init" in done.err


def test_run_refuses_a_wrong_configuration_before_it_writes_anything(unionhub: Run, config: Path) -> None:
    (config / "hub.toml").write_text("prot = 1\n")
    assert unionhub("run", "--config", config).code == 2
    (config / "hub.toml").write_text("")
    done = unionhub("run", "--config", config, UNIONHUB_HTTP_PORT="9000")
    assert done.code == 2 and "UNIONHUB_HTTP_PORT" in done.err and "UNIONHUB_HTTP__PORT" in done.err
    assert not (config.parent / "var").exists()


@pytest.mark.parametrize("key", [None, os.urandom(32), b"short"], ids=["missing", "foreign", "short"])
def test_run_refuses_a_missing_or_foreign_key(unionhub: Run, config: Path, key: bytes | None) -> None:
    assert unionhub("connections", "list", "--config", config).code == 0
    file = config.parent / "var" / "hub.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    mine = file.read_bytes()
    file.unlink()
    if key is not None:
        file.write_bytes(key)
    for command in (["run"], ["connections", "list"], ["db", "upgrade"]):
        done = unionhub(*command, "--config", config)
        assert done.code == 2 and "key" in done.err and "copy" in done.err
    assert (file.read_bytes() if key else file.exists()) == (key or False), "no key is made or changed"
    file.write_bytes(mine)
    assert unionhub("connections", "list", "--config", config).code == 0


def test_run_refuses_a_real_carrier_without_quiet_hours_and_says_why(unionhub: Run, config: Path) -> None:
    file = config / "connections" / "nha-mang.toml"
    for host in ("10.1.2.3", "smsc.viettel.example", "169.254.1.1", "127.0.0.1.nip.io", "::ffff:10.0.0.1"):
        file.write_text(file.read_text().replace(f'host = "{_host_of(file)}"', f'host = "{host}"'))
        done = unionhub("run", "--config", config)
        assert done.code == 2 and "connections/nha-mang.toml" in done.err
        assert "quiet_hours = false" in done.err and "trình giả lập" in done.err and "simulator" in done.err


def _host_of(file: Path) -> str:
    return next(line.split('"')[1] for line in file.read_text().splitlines() if line.startswith("host"))


def test_run_refuses_a_taken_port(unionhub: Run, config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = unionhub("run", "--config", config, UNIONHUB_HTTP__PORT=port)
    assert done.code == 2 and port in done.err and "http.port" in done.err
    assert unionhub("connections", "list", "--config", config).code == 0, "the ledger was given back"


def test_whoever_comes_second_is_refused_with_the_pid(unionhub: Run, config: Path) -> None:
    assert unionhub("connections", "list", "--config", config).code == 0
    lock = ProcessLock(config.parent / "var" / "unionhub.db.lock")
    lock.acquire()
    try:
        for command in (["run"], ["connections", "list"], ["db", "upgrade"]):
            done = unionhub(*command, "--config", config)
            assert done.code == 2 and f"pid {os.getpid()}" in done.err and "tiến trình khác" in done.err
    finally:
        lock.release()
    assert unionhub("connections", "list", "--config", config).code == 0


def test_trouble_with_files_is_told_without_a_traceback(unionhub: Run, config: Path) -> None:
    var = config.parent / "var"
    var.write_text("a file where a folder must be")
    done = unionhub("connections", "list", "--config", config)
    assert done.code == 1 and str(var) in done.err
    assert unionhub("simulators", "--config", config).code == 1
    var.unlink()
    var.mkdir()
    (var / "unionhub.db").write_bytes(os.urandom(8192))
    (var / "hub.key").write_bytes(os.urandom(32))
    done = unionhub("run", "--config", config)
    assert done.code == 1 and "cơ sở dữ liệu" in done.err


# -- commands --------------------------------------------------------------------------------------

LISTINGS = {
    ("deliveries", "list"): "deliveries",
    ("events", "list"): "events",
    ("connections", "list"): "connections",
    ("repairs", "list"): "repairs",
    ("sync", "list"): "runs",
    ("members", "list"): "members",
    ("members", "units"): "units",
}


def test_every_listing_answers_json_and_text(unionhub: Run, config: Path) -> None:
    for command, key in LISTINGS.items():
        done = unionhub(*command, "--config", config, "--json")
        assert done.code == 0 and isinstance(done.json[key], list), command
    shown = unionhub("connections", "list", "--config", config)
    assert shown.code == 0 and "c-thainguyen" in shown.out
    assert "(chưa có gì)" in unionhub("events", "list", "--config", config).out
    assert "(nothing yet)" in unionhub("events", "list", "--config", config, UNIONHUB_LANG="en").out
    plugins = unionhub("plugins", "--json").json
    assert {p["name"] for p in plugins} >= {"members", "partners", "telecom_sms", "citizen_app", "doc_mgmt"}
    assert not any(p["error"] for p in plugins)


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (1, ["deliveries", "show", DELIVERY]),
        (1, ["deliveries", "replay", DELIVERY]),
        (1, ["deliveries", "resolve", DELIVERY, "--as", "delivered", "--reason", "gọi điện hỏi"]),
        (1, ["connections", "check", "nobody"]),
        (1, ["connections", "pause", "nobody"]),
        (1, ["sync", "run", "doi-tac-mau"]),
        (1, ["members", "import", "/nowhere/list.xlsx"]),
        (2, ["deliveries", "show", "12345"]),
        (2, ["deliveries", "resolve", DELIVERY, "--as", "maybe", "--reason", "x"]),
        (2, ["deliveries", "resolve", DELIVERY, "--as", "failed", "--reason", "x"]),
        (2, ["deliveries", "list", "--limit", "0"]),
        (2, ["deliveries", "list", "--state", "lost"]),
        (2, ["deliveries", "list", "--nonsense"]),
        (2, ["deliveries"]),
        (2, ["nonsense"]),
        (0, ["connections", "pause", "doi-tac-mau", "--reason", "bảo trì"]),
        (0, ["connections", "resume", "doi-tac-mau"]),
        (0, ["sync", "run", "truc-van-ban"]),
        (0, ["release"]),
        (0, ["db", "upgrade"]),
        (0, ["--help"]),
        (0, ["--version"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exit_codes_tell_failed_work_from_wrong_usage(
    unionhub: Run, config: Path, code: int, command: list[str]
) -> None:
    takes_config = len(command) > 1 or command == ["release"]
    done = unionhub(*command, *(["--config", config] if takes_config else []))
    assert done.code == code, done
    if code:
        assert done.err.strip() or done.out.strip(), "it says why"


def test_a_broken_file_is_refused_with_the_reason_and_changes_nothing(
    unionhub: Run, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.xlsx").write_bytes(b"PK\x03\x04 not a workbook")
    for extra in ([], ["--json"]):
        done = unionhub("members", "import", tmp_path / "list.xlsx", "--config", config, *extra)
        assert done.code == 1 and done.out.strip()
    with sqlite3.connect(config.parent / "var" / "unionhub.db") as db:
        assert db.execute("SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM members_member)").fetchone() == (
            0,
            0,
        )
    db.close()


# -- connections check -----------------------------------------------------------------------------


class _Refusing(http.server.BaseHTTPRequestHandler):
    """An app whose door is open and whose login fails."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"error": "invalid_client"}')

    def log_message(self, *_: object) -> None: ...


@contextmanager
def listening(kind: str) -> Iterator[int]:
    """A port where nobody listens, where somebody speaks no TLS, or where the login is refused."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        if kind == "closed":
            server.server_close()
            yield server.server_address[1]
            return
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "url", "steps"),
    [
        ("closed", "https://khong-co-that.invalid", {"dns": False}),
        ("closed", "https://localhost:{port}", {"dns": True, "tcp": False}),
        ("open", "https://localhost:{port}", {"dns": True, "tcp": True, "tls": False}),
        ("open", "http://localhost:{port}", {"dns": True, "tcp": True, "login": False}),
    ],
)
def test_a_check_tells_dns_tcp_tls_and_login_apart(
    unionhub: Run, config: Path, kind: str, url: str, steps: dict[str, bool]
) -> None:
    with listening(kind) as port:
        file = config / "connections" / "c-thainguyen.toml"
        file.write_text(file.read_text().replace("http://127.0.0.1:18082", url.format(port=port)))
        done = unionhub("connections", "check", "c-thainguyen", "--config", config, "--json")
    found = {step["step"]: step["ok"] for step in done.json["steps"]}
    assert (done.code, found) == (1, steps)
    assert all(step["detail"] for step in done.json["steps"] if not step["ok"])


# -- broken plugins --------------------------------------------------------------------------------

BROKEN = {
    "a_import": "raise RuntimeError('no such library')",
    "b_hook": (
        "from hub.hookspecs import hookimpl\n@hookimpl\ndef hub_connector_types():\n    raise ValueError('boom')\n"
    ),
    "c_misspelt": "from hub.hookspecs import hookimpl\n@hookimpl\ndef hub_connecter_types():\n    return []\n",
    "d_exits": "import sys\nsys.exit(3)\n",
    "f_open": (
        "from hub.hookspecs import hookimpl\nfrom hub.contract import ConnectionSettings, ConnectorType\n"
        "def fall(context, settings):\n    raise ValueError('boom')\n"
        "@hookimpl\ndef hub_connector_types():\n"
        "    return [ConnectorType(name='falls', settings=ConnectionSettings, open=fall)]\n"
    ),
}


With = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def with_plugins(tmp_path: Path) -> Callable[[dict[str, str]], With]:
    """``unionhub ...`` as a process beside a distribution that is installed with one entry point per module given."""

    def install(modules: dict[str, str]) -> With:
        info = tmp_path / "site" / "strange-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
        points = "".join(f"{name} = strange_{name}\n" for name in modules)
        (info / "entry_points.txt").write_text("[unionhub.plugins]\n" + points)
        for name, code in modules.items():
            (info.parent / f"strange_{name}.py").write_text(code)

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            environ = {**os.environ, "PYTHONPATH": str(info.parent)}
            command = [sys.executable, "-m", "hub.cli", *arguments]
            return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)

        return run

    return install


def test_broken_plugins_are_named_left_out_and_the_others_work(
    with_plugins: Callable[[dict[str, str]], With], config: Path
) -> None:
    run = with_plugins(BROKEN)

    listed = run("plugins", "--json")
    assert listed.returncode == 0
    errors = {p["name"]: p["error"] for p in json.loads(listed.stdout) if p["error"]}
    assert set(errors) >= {"a_import", "b_hook", "c_misspelt", "d_exits"}
    assert "no such library" in errors["a_import"] and "boom" in errors["b_hook"]
    assert "hub_connecter_types" in errors["c_misspelt"]
    assert {p["name"] for p in json.loads(listed.stdout) if not p["error"]} >= {"members", "partners", "telecom_sms"}

    checked = run("check", "--config", str(config))
    assert checked.returncode == 1 and all(name in checked.stderr for name in errors)

    (config / "connections" / "falls.toml").write_text('type = "falls"\n')
    used = run("connections", "list", "--config", str(config), "--json")
    assert used.returncode == 0, used.stderr
    names = {c["connection"] for c in json.loads(used.stdout)["connections"]}
    assert "c-thainguyen" in names and "falls" not in names
    assert '"plugin.raised"' in used.stderr and '"falls"' in used.stderr


def test_a_directory_that_cannot_be_made_does_not_keep_the_hub_from_running(
    with_plugins: Callable[[dict[str, str]], With], config: Path
) -> None:
    code = "from hub.hookspecs import hookimpl\n@hookimpl\ndef hub_directory(hub):\n    raise ValueError('boom')\n"
    run = with_plugins({"a_directory": code})
    used = run("connections", "list", "--config", str(config))
    assert used.returncode == 0 and "a_directory" in used.stderr
