"""The demo, told once for all tests here; and its balance, which must see what was tampered with."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from hub.demo.balance import Balance, Row, balance
from hub.demo.stage import Books, DemoFailed
from hub.demo.story import MARK, in_hand
from hub.demo.summary import show

pytestmark = pytest.mark.xdist_group("demo")
SEED = 7


@dataclass(frozen=True)
class Told:
    """A telling that has ended: its folder, what it printed, the port somebody else had."""

    folder: Path
    code: int
    said: str
    taken_port: int


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The one telling; a second worker waits for the first one's."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    result = shared / "told.json"
    with (shared / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            with socket.create_server(("127.0.0.1", 0)) as other:
                port = other.getsockname()[1]
                done = subprocess.run(
                    [sys.executable, "-m", "hub.cli", "demo", "--once", "--seed", str(SEED), "--port", str(port),
                     "--dir", str(shared / "demo")],
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180, check=False,
                    # The operator's own settings are for another hub.
                    env={**os.environ, "UNIONHUB_HTTP__HOST": "10.0.0.1", "COLUMNS": "100"},
                )  # fmt: skip
            result.write_text(json.dumps({"code": done.returncode, "said": done.stdout, "taken_port": port}))
    return Told(shared / "demo", **json.loads(result.read_text()))


@pytest.fixture
def copy(told: Told, tmp_path: Path) -> Books:
    """What remained, for a test to tamper with."""
    shutil.copytree(told.folder, tmp_path / "demo")
    return Books.open(tmp_path / "demo")


# -- the telling -----------------------------------------------------------------------------------


def test_the_demo_ends_balanced_and_says_so(told: Told) -> None:
    assert told.code == 0, told.said[-3000:]
    assert "Sổ cái cân" in told.said and "the ledger balances" in told.said
    assert "Traceback" not in told.said and '{"at"' not in told.said


def test_a_taken_console_port_is_passed_over_and_the_other_one_printed(told: Told) -> None:
    (url,) = set(re.findall(r"http://127\.0\.0\.1:(\d+)/", told.said))
    assert int(url) != told.taken_port
    assert f"Cổng {told.taken_port} đang có chương trình khác dùng" in told.said


def test_the_two_numbers_of_the_kill_are_printed_and_large_enough(told: Told) -> None:
    leased, sending, sms = map(int, re.findall(r"(\d+) leased, (\d+) sending, (\d+) of them SMS", told.said)[0])
    assert leased + sending >= MARK and sms >= 1
    assert f"{leased} leased + {sending} sending, {sms} of them SMS" in told.said, "once more in the summary"


def test_a_crash_that_proves_too_little_fails_the_demo(copy: Books) -> None:
    with pytest.raises(DemoFailed, match="killed with 0 \\+ 0"):
        in_hand(copy)
    with change(copy) as db:
        db.execute(f"UPDATE queue SET state = 'leased' WHERE seq IN (SELECT seq FROM queue LIMIT {MARK})")
    with pytest.raises(DemoFailed, match="0 SMS"):
        in_hand(copy)
    with change(copy) as db:
        db.execute("UPDATE queue SET state = 'sending' WHERE destination = 'sms-demo'")
    assert in_hand(copy)["sms"] > 0


def test_every_line_adds_up_and_every_unknown_is_told_with_what_became_of_it(told: Told, copy: Books) -> None:
    result = balance(copy)
    assert result.faults == [], "the same books balance again"
    destinations = {name for name, row in result.rows.items() if row.owed}
    assert destinations >= {"so-noi-vu", "bhxh-tinh", "ban-quan-ly-kcn", "bao-thai-nguyen", "c-thainguyen", "sms-demo"}
    for name, row in result.rows.items():
        assert row.adds_up
        states = row.states
        ended = sum(states[s] for s in ("delivered", "accepted", "dead", "unknown", "cancelled"))
        assert row.owed == ended + row.held, name
        printed = next(line for line in told.said.splitlines() if line.split()[:1] == [name]).split()[1:]
        counts = (row.events_in, row.owed, states["delivered"], states["accepted"], states["dead"], states["unknown"],
                  states["cancelled"], row.held, row.attempts)  # fmt: skip
        assert [int(p.replace(".", "")) for p in printed[:9]] == list(counts), name
        assert len(printed) == 12, "repeats, p50 and p99 behind them"
    assert result.rows["sms-demo"].states["cancelled"] > 0, "one SMS per phone and campaign"
    unknown = {row.states["unknown"] for row in result.rows.values()}
    assert sum(unknown) == len(result.unknowns) > 0
    for delivery, connection, fate in result.unknowns:
        assert re.search(rf"{delivery} +{connection} .*/ {fate}", told.said)


def test_what_a_visitor_saw_was_kept_and_searched(told: Told) -> None:
    seen = [path.read_text() for path in sorted((told.folder / "seen").iterdir())]
    statuses = {path.stem[-3:] for path in (told.folder / "seen").iterdir()}
    assert statuses >= {"200", "202", "400", "401", "404"}
    assert sum("<html" in text for text in seen) >= 6, "pages of the console"
    assert any("unionhub_attempts_total" in text for text in seen)
    assert sum('"type":"/problems/' in text for text in seen) >= 8
    assert sum(len(text) for text in seen) > 100_000
    assert len((told.folder / "hub.log").read_text().splitlines()) > 4000


# -- tampering -------------------------------------------------------------------------------------


def change(copy: Books) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(copy.config.database, isolation_level=None))


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def write(log: Path, lines: list[dict[str, Any]]) -> None:
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_balance_sees_an_id_removed_doubled_foreign_or_refused(copy: Books) -> None:
    sms, partner, app = (copy.logs[kind] for kind in ("telecom_sms", "partner", "citizen_app"))
    lines = lines_of(sms)
    taken = [n for n, line in enumerate(lines) if line["verdict"] == "taken"]
    lost, doubled = lines[taken[0]], lines[taken[1]]
    write(sms, [*(line for line in lines if line["id"] != lost["id"]), doubled, {**doubled, "id": "feed:beef:1"}])
    lines = lines_of(partner)
    gone = next(line["id"] for line in lines if line["verdict"] == "taken" and line["id"].endswith("@so-noi-vu"))
    write(partner, [line for line in lines if line["id"] != gone])
    lines = lines_of(app)
    turned = next(line["id"] for line in lines if line["verdict"] == "taken")
    write(app, [{**line, "verdict": "refused"} if line["id"] == turned else line for line in lines])

    faults = balance(copy).faults
    assert [f for f in faults if "sent twice" in f] == [f"sent twice: {doubled['id']}"]
    assert [f for f in faults if "not in the ledger" in f] == ["taken but not in the ledger: feed:beef:1"]
    missing = [f for f in faults if "never taken" in f]
    assert {f.partition(":")[0] for f in missing} == {"sms-demo", "so-noi-vu", "c-thainguyen"} and len(missing) == 3
    assert any(turned in f for f in missing)
    assert len(faults) == 5


def test_what_was_sent_twice_is_named_once_each(copy: Books) -> None:
    """Also where two deliveries are owed to one phone, so that both expect the same id."""
    sms = copy.logs["telecom_sms"]
    lines = lines_of(sms)
    write(sms, [*lines, *lines])
    sent = {f"sent twice: {line['id']}" for line in lines if line["verdict"] == "taken"}
    assert sorted(f for f in balance(copy).faults if "sent twice" in f) == sorted(sent)


def test_the_balance_sees_a_delivery_that_is_gone_and_a_stop_that_took_too_long(copy: Books) -> None:
    with change(copy) as db:
        db.execute("DELETE FROM delivery WHERE id = (SELECT id FROM delivery WHERE destination = 'bhxh-tinh' LIMIT 1)")
        db.execute(
            "DELETE FROM delivery WHERE id = (SELECT id FROM delivery WHERE destination = 'c-thainguyen' LIMIT 1)"
        )
    faults = balance(copy, stopped_in_s=11.0).faults
    for said in ("stop took 11.0 s", "bhxh-tinh: ", "c-thainguyen: ", "campaign ", "taken but not in the ledger"):
        assert any(f.startswith(said) for f in faults), said
    with change(copy) as db:
        # The counters follow the rows: the events still tell how many are owed.
        db.execute("UPDATE tally SET count = count - 1 WHERE destination = 'bhxh-tinh' AND state = 'delivered'")
    assert any(re.match(r"bhxh-tinh: \d+ events are subscribed, \d+ owed", f) for f in balance(copy).faults)


def test_a_fault_ends_the_summary_with_no_and_the_demo_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from hub.demo.story import _end

    result = Balance(faults=["sent twice: x"])
    show(result, Console(soft_wrap=True), {"leased": 1, "sending": 2, "sms": 1})
    said = capsys.readouterr().out
    assert "KHÔNG cân" in said and "sent twice: x" in said and "Sổ cái cân" not in said
    assert (_end(result, None), _end(Balance(), None)) == (1, 0)


def test_the_sum_of_the_states_alone_does_not_make_a_line_add_up() -> None:
    row = Row(owed=3)
    row.states.update({"delivered": 1, "dead": 1, "pending": 1})
    assert row.adds_up
    row.states["delivered"] += 1
    assert not row.adds_up
    row.owed = 4
    assert row.adds_up
    row.states["lost"] += 1
    row.owed = 5
    assert not row.adds_up, "a state nobody knows"


PLANTED: dict[str, Callable[[dict[str, str]], str]] = {
    "phone": lambda c: c["phone"],
    "phone, national": lambda c: "0" + c["phone"][3:],
    "phone, in groups": lambda c: f"0{c['phone'][3:6]} {c['phone'][6:9]} {c['phone'][9:]}",
    "phone, in JSON": lambda c: json.dumps({"to": c["phone"]}),
    "citizen_number": lambda c: c["citizen_number"],
    "citizen_number, in groups": lambda c: "-".join((c["citizen_number"][:3], c["citizen_number"][3:])),
    "name": lambda c: c["name"],
    "name, upper case": lambda c: c["name"].upper(),
    "name, decomposed": lambda c: unicodedata.normalize("NFD", c["name"]),
    "name, escaped": lambda c: json.dumps(c["name"]),
    "name, without marks": lambda c: unicodedata.normalize("NFD", c["name"]).encode("ascii", "ignore").decode(),
}


def test_the_search_finds_planted_values_however_they_are_written(copy: Books) -> None:
    from hub.demo.personal import readable

    assert readable(copy) == []
    canaries = json.loads((copy.folder / "list.json").read_text())["canaries"]
    for path in copy.seen.iterdir():
        path.unlink()
    copy.hub_log.write_text("")
    for kind, spell in PLANTED.items():
        page = copy.seen / "page.txt"
        page.write_text(f'{{"said":"x {spell(canaries)}, y"}}')
        assert readable(copy) == [f"page.txt: a {kind.partition(',')[0]} is readable"], kind


def test_the_search_covers_logs_pages_secrets_other_people_and_the_database(copy: Books) -> None:
    from hub.demo.personal import readable

    told = json.loads((copy.folder / "list.json").read_text())
    someone = next(m for m in told["members"] if m["phone"] and m["citizen_number"])
    secret = (copy.config.folder / "secrets" / "simulator-partner").read_text().strip()
    with copy.hub_log.open("a") as log:
        log.write(f'{{"error":"no route to {someone["phone"]}"}}\n')
    with copy.logs["partner"].open("a") as log:
        log.write(json.dumps({"verdict": "refused", "cccd": someone["citizen_number"]}) + "\n")
    (copy.seen / "metrics.txt").write_text(f'x{{token="{secret.removeprefix("whsec_")}"}} 1\n')
    beside = copy.config.database.with_name(copy.config.database.name + ".before-upgrade")
    beside.write_bytes(b"SQLite format 3\0" + told["canaries"]["name"].encode())
    assert set(readable(copy)) == {
        "hub.log: a phone is readable",
        "partner.jsonl: a citizen_number is readable",
        "metrics.txt: a secret is readable",
        "unionhub.db.before-upgrade: the planted name is readable",
    }
    assert set(readable(copy)) <= set(balance(copy).faults), "and the balance asks for it"


# -- before it begins ------------------------------------------------------------------------------


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    from hub.demo import run_demo

    (tmp_path / "mine").write_text("keep")
    assert run_demo(once=True, seed=1, folder=tmp_path, port=0) == 2
    assert run_demo(once=True, seed=1, folder=tmp_path / "mine", port=0) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_demo_that_is_stopped_half_way_takes_everything_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "hub.cli", "demo", "--dir", str(tmp_path / "demo"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        url = next(found for line in demo.stdout if (found := re.search(r"http://127\.0\.0\.1:(\d+)/", line)))
        demo.send_signal(signal.SIGTERM)
        said = demo.stdout.read()
        assert demo.wait(20) == 130
    assert "Đã dừng giữa chừng" in said
    ports = {int(url[1])}
    for file in (tmp_path / "demo" / "config" / "connections").glob("*.toml"):
        ports |= {int(port) for port in re.findall(r"(?:127\.0\.0\.1:|port = )(\d+)", file.read_text())}
    assert len(ports) == 5
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=2)


def test_what_the_demo_imports_is_installed_by_make_demo() -> None:
    root = Path(__file__).parents[2]
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (root / "requirements" / "runtime.txt").read_text(), re.MULTILINE))
    where = packages_distributions()
    missing = set()
    folders = [*root.glob("hub/**/*.py"), *root.glob("plugins/**/*.py"), *root.glob("benchmarks/**/*.py")]
    for file in folders:
        if file == root / "benchmarks" / "peers.py":
            continue  # installs what it measures by itself, in a place of its own
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            tops = (
                {name.partition(".")[0] for name in names}
                - sys.stdlib_module_names
                - {"hub", "plugins", "benchmarks", "tests"}
            )
            missing |= {top for top in tops if not {d.lower().replace("_", "-") for d in where.get(top, ())} & pinned}
    assert missing == set()
