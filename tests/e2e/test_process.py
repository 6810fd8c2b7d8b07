"""The hub as a process among others: started, asked, stopped, killed, and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Run, unionhub
from tests.e2e.installation import CAMPAIGN, Installation, until

__all__ = ["unionhub"]  # a fixture

PEOPLE = 160
#: The simulators that hear of these people.
REACHED = ("partner", "citizen_app", "telecom_sms")
UNDER_WAY = "SELECT count(*) FROM queue WHERE state IN ('waiting', 'pending', 'leased', 'sending', 'accepted')"
IN_HAND = "SELECT count(*) FROM queue WHERE state IN ('leased', 'sending')"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation.new(tmp_path_factory.mktemp("shipped"))
    with installation.simulators():
        yield installation


@pytest.fixture
def crowd(
    shipped: Installation, tmp_path: Path, unionhub: Run, request: pytest.FixtureRequest
) -> Iterator[Installation]:
    """People in the ledger, and a message owed to each of them."""
    installation = shipped.another(tmp_path, CAMPAIGN)
    done = unionhub("members", "import", installation.member_list(PEOPLE), "--config", installation.config, "--json")
    assert done.code == 0 and done.json["created"] == PEOPLE
    # Another text in each test, since an SMS is known by its phone and text.
    text = f"Cong doan moi du Tet sum vay {request.node.name}."
    announce = ("campaigns", "announce", "tet", "--title", "Tết", "--text", text)
    assert unionhub(*announce, "--config", installation.config).code == 0
    yield installation
    for name in REACHED:
        installation.behave(name, slow_ms=0, withhold=False)


def test_the_shipped_configuration_runs_beside_its_simulators(shipped: Installation, unionhub: Run) -> None:
    with shipped.hub() as hub:
        for path in ("/healthz", "/readyz", "/metrics", "/api/v1/connections", "/api/openapi.json", "/"):
            assert hub.get(path)[0] == 200, path
        # The axis is pulled at start, its documents reach the partner and their status goes back.
        documents = until(lambda: shipped.count("SELECT count(*) FROM event WHERE type LIKE '%.document.received.v1'"))
        until(lambda: shipped.count(UNDER_WAY) == 0)
        assert len(shipped.taken("partner")) == shipped.states("doi-tac-mau")["delivered"] >= documents
        assert set(shipped.states("truc-van-ban")) == {"delivered"}
        assert shipped.states("nha-mang") == shipped.states("c-thainguyen") == {}, "nobody is written to"
        for name in ("c-thainguyen", "doi-tac-mau", "nha-mang", "truc-van-ban"):
            done = unionhub("connections", "check", name, "--config", shipped.config)
            assert done.code == 0, done
        repairs = unionhub("repairs", "list", "--config", shipped.config, "--json").json["repairs"]
        assert {r["kind"] for r in repairs} == {"packets_quarantined"}, "the axis sends one that nobody can read"
        assert hub.stop() == 0
    lines = [json.loads(line) for line in shipped.log.read_text().splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines if line["event"].startswith("hub.")][-1] == "hub.stopped"
    assert not [line for line in lines if line["level"] == "error"]


def test_commands_go_through_the_running_hub_and_end_as_they_do_without_one(
    shipped: Installation, unionhub: Run
) -> None:
    commands = {
        ("deliveries", "list", "--json"): 0,
        ("connections", "pause", "doi-tac-mau", "--reason", "bảo trì"): 0,
        ("connections", "resume", "doi-tac-mau"): 0,
        ("deliveries", "show", "01a2086c-cd8c-812c-aa92-6250a297b748"): 1,
        ("deliveries", "show", "12345"): 2,
        ("deliveries", "list", "--limit", "0"): 2,
        ("connections", "check", "nobody"): 1,
        ("members", "import", "/nowhere/list.xlsx"): 1,
        ("sync", "run", "doi-tac-mau"): 1,
    }
    with shipped.hub() as hub:
        # Nobody else can open the ledger now: whatever is answered came through the hub.
        through = {c: unionhub(*c, "--config", shipped.config) for c in commands}
        again = unionhub("run", "--config", shipped.config, UNIONHUB_HTTP__PORT="0")
        assert again.code == 2 and f"pid {hub.process.pid}" in again.err
        assert hub.get("/readyz")[0] == 200, "who came second did no harm"
        assert hub.stop() == 0
    alone = {c: unionhub(*c, "--config", shipped.config) for c in commands}
    for command, code in commands.items():
        assert (through[command].code, alone[command].code) == (code, code), command
        said = [line for line in alone[command].err.splitlines() if not line.startswith("{")]
        assert through[command].err.splitlines() == said, command


def test_a_killed_hub_leaves_a_ledger_that_opens_again_at_once(shipped: Installation, unionhub: Run) -> None:
    with shipped.hub() as hub:
        hub.process.kill()
        assert hub.process.wait(5) == -signal.SIGKILL
    assert (shipped.folder / "var" / "hub.sock").exists(), "what it left behind"
    assert unionhub("connections", "list", "--config", shipped.config).code == 0
    with shipped.hub() as hub:
        assert unionhub("events", "list", "--config", shipped.config).code == 0
        assert hub.stop() == 0
    assert not (shipped.folder / "var" / "hub.sock").exists(), "a hub that stops takes its socket with it"


def test_a_running_hub_reads_its_files_again_when_it_is_told_to(shipped: Installation, unionhub: Run) -> None:
    subscriptions = shipped.config / "subscriptions.toml"
    kept = subscriptions.read_text()

    def said(event: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in shipped.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == event]

    with shipped.hub() as hub:
        subscriptions.write_text(kept + "\nnonsense = 1\n")
        refused = unionhub("reload", "--config", shipped.config)
        assert refused.code == 2 and "nonsense" in refused.err
        hub.process.send_signal(signal.SIGHUP)
        until(lambda: said("hub.not_reloaded"))
        subscriptions.write_text(kept)
        hub.process.send_signal(signal.SIGHUP)
        until(lambda: said("hub.reloaded"))
        assert hub.stop() == 0


def test_a_path_too_long_for_a_socket_gets_one_elsewhere(
    shipped: Installation, unionhub: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 60 characters, more than a hundred bytes.
    var = tmp_path / "Liên đoàn Lao động tỉnh Thái Nguyên" / "dữ liệu của phần mềm tích hợp"
    monkeypatch.setenv("UNIONHUB_VAR_DIR", str(var))
    with tempfile.TemporaryDirectory() as short, shipped.hub(XDG_RUNTIME_DIR=short) as hub:
        named = (var / "unionhub.db.lock").read_text().splitlines()
        assert named[0] == str(hub.process.pid) and Path(named[1]).is_socket()
        assert Path(named[1]).is_relative_to(short) and len(os.fsencode(named[1])) <= 100
        assert Path(named[1]).stat().st_mode & 0o077 == 0
        # Another environment than the hub's: the lock file says where it listens.
        done = unionhub("connections", "list", "--config", shipped.config, XDG_RUNTIME_DIR=str(tmp_path / "other"))
        assert done.code == 0
        assert hub.stop() == 0


def test_beyond_loopback_a_token_is_made_printed_and_never_logged(shipped: Installation) -> None:
    with shipped.hub(UNIONHUB_HTTP__HOST="0.0.0.0") as hub:  # noqa: S104 - what is refused without a token
        token = urllib.parse.parse_qs(urllib.parse.urlsplit(hub.url).query)["token"][0]
        assert len(token) >= 24
        for path in ("/", "/metrics", "/api/v1/events"):
            assert hub.get(path)[0] == 401
            assert hub.get(path, Authorization=f"Bearer {token}")[0] == 200
        assert hub.get("/healthz")[0] == 200
        assert hub.stop() == 0
        assert token not in shipped.log.read_text()
    with shipped.hub("--console-token") as hub:
        assert "token=" in hub.url and token not in hub.url
        assert hub.get("/metrics")[0] == 401


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_under_way_is_told_that_the_hub_stopped(
    shipped: Installation, unionhub: Run, tmp_path: Path, by: signal.Signals
) -> None:
    make = [sys.executable, "-m", "plugins.members.simulator", "--out", str(tmp_path / "list.xlsx")]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    with shipped.hub(UNIONHUB_VAR_DIR=str(tmp_path / "var")) as hub:
        # The reader takes a second over such a list; the first progress says that it has begun.
        importing = subprocess.Popen(
            [sys.executable, "-m", "hub.cli", "members", "import", tmp_path / "list.xlsx", "--config", shipped.config],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "UNIONHUB_VAR_DIR": str(tmp_path / "var")},
        )  # fmt: skip
        assert importing.stderr is not None and importing.stderr.readline()
        hub.stop(by)
        out, err = importing.communicate(timeout=20)
    assert "Traceback" not in err
    # A stop gives a command a second to end by itself.
    assert importing.returncode == 1 or by == signal.SIGTERM
    if importing.returncode:
        assert (importing.returncode, out) == (1, "") and "hub dừng trước khi trả lời" in err
    # Nothing of it is half there, and once more is enough.
    done = unionhub(
        "members", "import", tmp_path / "list.xlsx", "--config", shipped.config, "--json",
        UNIONHUB_VAR_DIR=str(tmp_path / "var"),
    )  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "var" / "unionhub.db")) as db:
        members = db.execute("SELECT count(*) FROM members_member").fetchone()[0]
        events = db.execute("SELECT count(*) FROM event WHERE type LIKE '%.member.created.v1'").fetchone()[0]
    assert done.code == 0 and members == events == done.json["created"] + done.json["unchanged"] > 1000


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_and_doubles_nothing(crowd: Installation, by: signal.Signals) -> None:
    for name in REACHED:
        crowd.behave(name, slow_ms=60)
    with crowd.hub() as hub:
        until(
            lambda: crowd.taken("telecom_sms") and crowd.taken("partner") and crowd.count(IN_HAND) >= 20, every_s=0.01
        )
        assert hub.stop(by) == 0
    assert crowd.count(IN_HAND) == 0, "what was claimed was settled or given back"
    assert crowd.count("SELECT count(*) FROM queue WHERE state = 'pending'") > 0, "stopped in the middle"
    assert crowd.count("SELECT count(*) FROM attempt WHERE outcome IN ('lost', 'ambiguous')") == 0
    for name in REACHED:
        crowd.behave(name, slow_ms=0)
    with crowd.hub() as hub:
        until(lambda: crowd.count(UNDER_WAY) == 0, 60)
        assert hub.stop() == 0
    owed = {"doi-tac-mau": "partner", "c-thainguyen": "citizen_app", "nha-mang": "telecom_sms"}
    for destination, simulator in owed.items():
        states, taken = crowd.states(destination), crowd.taken(simulator)
        assert set(states) <= {"delivered", "dead"} and set(taken.values()) == {1}, (destination, states)
        assert len(taken) == sum(states.values()), destination
    assert sum(sum(crowd.states(d).values()) for d in ("c-thainguyen", "nha-mang")) == PEOPLE


def test_a_stop_does_not_wait_for_those_who_never_answer(crowd: Installation) -> None:
    for name in REACHED:
        crowd.behave(name, withhold=True)
    with crowd.hub(UNIONHUB_WORKER__STOP_WITHIN_S="4") as hub:
        address = urllib.parse.urlsplit(hub.base)
        host = (address.hostname or "", address.port or 0)
        with socket.create_connection(host) as slow, socket.create_connection(host) as reader:
            slow.sendall(
                b"POST /in/c-thainguyen HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            reader.sendall(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            until(lambda: crowd.behave("telecom_sms")["in_flight"] > 0 and crowd.count(IN_HAND) >= 20, every_s=0.01)
            assert hub.stop(within_s=4.0) == 0
    assert crowd.count(IN_HAND) == 0
    unknown = crowd.states("nha-mang").get("unknown", 0)
    assert unknown > 0, "an SMS without an answer is unknown, not sent again"
    for name in REACHED:
        crowd.behave(name, withhold=False)
    with crowd.hub() as hub:
        until(lambda: crowd.count(UNDER_WAY) == 0, 60)
        assert hub.stop() == 0
    assert set(crowd.taken("telecom_sms").values()) == {1}, "no SMS twice"
    assert max(crowd.taken("partner").values()) <= 2
    assert set(crowd.states("doi-tac-mau")) == set(crowd.states("c-thainguyen")) == {"delivered"}
