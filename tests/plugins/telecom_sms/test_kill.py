"""kill -9, three times during a large sending, at a carrier that loses 2 % of its answers: the books balance."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from plugins.telecom_sms.simulator.journal import taken_id
from tests.e2e.installation import until

from .kill_victim import TEXT
from .support import KEY

ROOT = Path(__file__).parents[3]
COUNT = 200
WINDOW = 10
KILLS_AT = (30, 80, 130)
PATIENCE_S = 60.0


def started(module: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait(PATIENCE_S)
    assert process.stdout is not None
    process.stdout.close()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def state(control: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{control}/control", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def ledger(folder: Path) -> list[tuple[str, str, str]]:
    """Recipient, state and reason of every delivery."""
    with closing(sqlite3.connect(folder / "var" / "unionhub.db")) as db:
        return db.execute(
            "SELECT recipient, state, coalesce(reason, '') FROM queue UNION ALL"
            " SELECT recipient, state, coalesce(reason, '') FROM delivery"
        ).fetchall()


def test_three_kills_and_lost_answers_lose_nothing_double_nothing_and_every_doubt_is_counted(tmp_path: Path) -> None:
    folder, log = tmp_path / "hub", tmp_path / "smsc.jsonl"
    folder.mkdir()
    behaviour = json.dumps({"lose_share": 0.02, "slow_ms": 10, "receipt_delay_ms": 0, "receipt_retry_ms": 200})
    carrier = started("plugins.telecom_sms.simulator", "--log", log, "--key", KEY.hex(), "--set", behaviour)
    ready = json.loads(line_of(carrier))
    victim = ("tests.plugins.telecom_sms.kill_victim", folder, ready["port"], COUNT)
    try:
        for taken in KILLS_AT:
            hub = started(*victim)
            assert line_of(hub) == b"ready\n"
            until(lambda at=taken: state(ready["control"])["taken"] >= at, PATIENCE_S, every_s=0.02)
            ended(hub, signal.SIGKILL)
        hub = started(*victim)
        assert line_of(hub) == b"ready\n"
        until(lambda: len(ledger(folder)) == COUNT + 1 and not _under_way(folder), PATIENCE_S)
        until(lambda: state(ready["control"])["receipts_pending"] == 0 and not _under_way(folder), PATIENCE_S)
        lost = state(ready["control"])["lost"]
        ended(hub, signal.SIGTERM)
    finally:
        ended(carrier, signal.SIGTERM)

    sent = Counter(line["id"] for line in map(json.loads, log.read_text().splitlines()) if line["verdict"] == "taken")
    assert set(sent.values()) == {1}, "a machine sent something twice"
    # The last one shares its phone with the first: one of the two is cancelled, whichever came second.
    stands = {taken_id(KEY, _phone(who), TEXT, 1): (now, why) for who, now, why in ledger(folder) if now != "cancelled"}
    assert len(stands) == COUNT
    assert set(sent) <= set(stands), "the carrier has something the ledger does not know"
    counted = Counter(now for now, _ in stands.values())
    assert set(counted) <= {"delivered", "unknown"}, counted
    assert all(name in sent for name, (now, _) in stands.items() if now == "delivered")
    # Nobody is lost: who is in no log is a doubt that is shown, not a message that is forgotten.
    assert all(stands[name][0] == "unknown" for name in set(stands) - set(sent))
    doubts = Counter(why for now, why in stands.values() if now == "unknown")
    assert 0 < counted["unknown"] <= lost + len(KILLS_AT) * WINDOW, (doubts, lost)
    assert set(doubts) <= {"crashed_while_sending", "no_answer"}


def _under_way(folder: Path) -> bool:
    return any(now in ("pending", "leased", "sending", "waiting", "accepted") for _, now, _ in ledger(folder))


def _phone(recipient: str) -> str:
    """As ``People`` gives them out: m0000 has 84912550000; the last one has the first one's."""
    number = int(recipient.removeprefix("m"))
    return f"8491255{number % COUNT:04}"
