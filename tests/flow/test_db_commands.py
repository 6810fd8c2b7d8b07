"""``unionhub db backup|backup-key|restore|check``: what they write and refuse, and that nothing goes out twice."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import resource
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hub import backups, cli, db_commands
from hub import log as hub_log
from hub.app import HubApp
from hub.clock import system_clock
from hub.contract import RetryLater
from hub.errors import Busy, ConfigError, HubError
from hub.settings import Configuration
from hub.store.backup import FORMAT, Archive, BackupKey, Header, keep, new_archive, seal
from hub.store.lock import ProcessLock
from hub.store.migrate import CORE
from hub.testing import RecordingSink, StandingClock, eventually
from tests.command_line import Done, Run, unionhub
from tests.flow.conftest import Site, emit, later, reach, states
from tests.ledger import check_books
from tests.postgres import Server

__all__ = ["unionhub"]  # a fixture


def idle(stage: str, done: int, total: int) -> None: ...


# -- the command line ------------------------------------------------------------------------------


class Machine:
    """A folder with ``config`` and ``var``, and commands on it."""

    def __init__(self, folder: Path, unionhub: Run) -> None:
        self.folder = folder
        self.config = folder / "config"
        self.var = folder / "var"
        self.database = self.var / "unionhub.db"
        self._unionhub = unionhub

    def __call__(self, *arguments: object, **environ: str) -> Done:
        return self._unionhub(*arguments, "--config", self.config, **environ)

    def another(self) -> Machine:
        """A clean machine with the same configuration and keys, and no ledger."""
        other = Machine(self.folder.parent / "another", self._unionhub)
        shutil.copytree(self.config, other.config)
        other.var.mkdir()
        shutil.copy(self.var / "hub.key", other.var / "hub.key")
        return other

    def backup(self) -> Path:
        done = self("db", "backup", "--json")
        assert done.code == 0, done
        return Path(done.json["file"])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as db:
            return db.execute(sql).fetchall()

    def fill(self, rows: int) -> None:
        """Content that no packing makes smaller."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as db:
            db.execute(
                "INSERT INTO content (event_id, body) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n"
                " WHERE x < ?) SELECT randomblob(16), randomblob(300) FROM n",
                (rows,),
            )

    def files(self) -> dict[str, bytes]:
        """What is in ``var``, without the lock."""
        return {p.name: p.read_bytes() for p in self.var.iterdir() if p.name != "unionhub.db.lock"}


@pytest.fixture
def machine(tmp_path: Path, unionhub: Run) -> Machine:
    """An installation that has a ledger with a member list's worth of rows and a backup key."""
    made = Machine(tmp_path / "machine", unionhub)
    assert unionhub("init", made.config).code == 0
    assert made("connections", "list").code == 0
    made.fill(3000)
    assert made("db", "backup-key", made.config / "secrets" / "backup.key").code == 0
    toml = made.config / "hub.toml"
    toml.write_text(toml.read_text().replace('# key_file = ""', 'key_file = "secrets/backup.key"'))
    return made


def test_a_backup_restored_on_a_clean_machine_has_the_same_hash_and_the_same_rows(machine: Machine) -> None:
    done = machine("db", "backup", "--json")
    archive = Path(done.json["file"])
    assert done.code == 0 and archive.parent == machine.folder / "backups"
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600 and stat.S_IMODE(archive.parent.stat().st_mode) == 0o700
    checked = machine("db", "check", archive, "--json")
    other = machine.another()
    restored = other("db", "restore", archive, "--json")
    assert (checked.code, restored.code) == (0, 0)
    assert done.json["sha256"] == checked.json["sha256"] == restored.json["sha256"]
    assert done.json["installation"] == restored.json["installation"]
    for table in ("content", "installation", "connection", "destination", "members_member"):
        assert machine.rows(f"SELECT * FROM {table}") == other.rows(f"SELECT * FROM {table}"), table
    assert other("db", "check").code == 0
    assert other("release", "--json").json["was_held"] == "restored"


def test_each_command_says_what_a_person_must_know(machine: Machine, tmp_path: Path) -> None:
    for lang, not_in_it, on_hold in (("vi", "KHÔNG NẰM TRONG", "ĐANG GIỮ"), ("en", "IS NOT IN IT", "ON HOLD")):
        archive = tmp_path / f"{lang}.backup"
        backed_up = machine("db", "backup", "--to", archive, UNIONHUB_LANG=lang)
        assert not_in_it in backed_up.out and str(machine.var / "hub.key") in backed_up.out
        restored = machine("db", "restore", archive, "--replace", UNIONHUB_LANG=lang)
        assert restored.code == 0 and on_hold in restored.out and "unionhub release" in restored.out
        assert "unionhub.db.replaced-" in restored.out
        key = machine("db", "backup-key", tmp_path / f"{lang}.key", UNIONHUB_LANG=lang)
        assert f'key_file = "{tmp_path / lang}.key"' in key.out
        assert machine("db", "backup", "--to", tmp_path / f"{lang}.2", "--key", tmp_path / f"{lang}.key").code == 0
        for _, left in enumerate(machine.var.glob("*.replaced-*")):
            left.unlink()


def test_long_work_says_how_far_it_is(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_commands, "TELL_EVERY_S", 0.0)
    done = machine("db", "backup", UNIONHUB_LANG="en")
    for stage in ("copying the ledger", "sealing", "reading it back"):
        assert re.search(rf"{stage} \d+ %, .* left", done.err), done.err
    assert machine("db", "restore", *(machine.folder / "backups").iterdir(), "--replace", "--json").err == ""


def test_a_backup_key_is_needed_and_the_command_that_makes_one_is_named(machine: Machine) -> None:
    key = machine.config / "secrets" / "backup.key"
    assert machine("db", "backup-key", key).code == 2, "an old key is never overwritten"
    key.chmod(0o640)
    done = machine("db", "backup")
    assert done.code == 2 and "chmod 600" in done.err
    key.unlink()
    assert machine("db", "backup").code == 2
    toml = machine.config / "hub.toml"
    toml.write_text(toml.read_text().replace('key_file = "secrets/backup.key"', ""))
    done = machine("db", "backup")
    assert done.code == 2 and "unionhub db backup-key" in done.err
    toml.write_text(toml.read_text().replace('# schedule = ""', 'schedule = "every 24h"'))
    done = machine("check")
    assert done.code == 2 and "key_file" in done.err
    assert machine.files().keys() == {p.name for p in machine.var.iterdir()} - {"unionhub.db.lock"}
    assert not (machine.folder / "backups").exists()


def test_a_key_in_place_of_the_hub_key_is_refused(machine: Machine) -> None:
    done = machine("db", "backup", "--key", machine.var / "hub.key")
    assert done.code == 2 and "hub key itself" in done.err


def test_a_backup_that_cannot_be_read_back_is_not_kept(machine: Machine, unionhub: Run) -> None:
    """A disk that does not keep what it was given."""
    config = cli.load_configuration(machine.config)
    machine.fill(10_000)  # several chunks: the first is read before the rest is spoiled
    spoiled: list[Path] = []

    def step(stage: str, done: int, total: int) -> None:
        if stage == "verify" and not spoiled:
            spoiled.extend((machine.folder / "backups").glob("*partial*"))
            flip(spoiled[0], spoiled[0].stat().st_size - 100)

    with pytest.raises(HubError, match="cannot be read back"):
        backups.take(config, system_clock(), step)
    assert len(spoiled) == 1 and list((machine.folder / "backups").iterdir()) == []


# -- bad input -------------------------------------------------------------------------------------

#: How an archive is spoiled, and what the one line must say.
SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda p: os.truncate(p, p.stat().st_size - 1), "cut short"),
    "cut in half": (lambda p: os.truncate(p, p.stat().st_size // 2), "cut short"),
    "a flipped bit": (lambda p: flip(p, p.stat().st_size // 2), "damaged"),
    "a flipped bit of its header": (lambda p: flip(p, 100), ""),
    "a newer format": (lambda p: reseal(p, format=FORMAT + 1), "newer"),
    "a newer schema": (lambda p: reseal(p, schemas={"hub": "9999"}), "9999"),
    "a newer schema of a plugin": (lambda p: reseal(p, schemas={"members": "9999"}), "members"),
    "another kind of ledger": (lambda p: reseal(p, payload="tables"), "tables"),
    "another hub key": (lambda p: reseal(p, hub_key="00" * 8), "hub.key"),
    "more than there is room for": (lambda p: reseal(p, payload_bytes=10**18), "no space left"),
    "another ledger inside": (lambda p: reseal(p, blocks=(b"no database" * 1000,)), "broken"),
    "no archive": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(1000)), "not a backup"),
    "nothing": (lambda p: p.write_bytes(b""), "not a backup"),
    "gone": (lambda p: p.unlink(), "No such file"),
}
#: What restoring alone finds.
ONLY_IN_PLACE = {"another hub key", "more than there is room for", "another ledger inside"}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def reseal(path: Path, *, blocks: tuple[bytes, ...] = (b"x",), **more: object) -> None:
    """Another archive under this name, sealed with the right key."""
    header = Archive.open(path).header.model_copy(update=more)
    key = BackupKey.load(path.parents[1] / "config" / "secrets" / "backup.key", path / "nowhere")
    path.unlink()
    with new_archive(path) as (partial, file):
        seal(file, Header.model_validate(header.model_dump()), blocks, key, idle)
        keep(partial, path)


@pytest.mark.parametrize("case", SPOILED)
def test_an_archive_that_cannot_be_used_is_refused_in_one_line_and_changes_nothing(machine: Machine, case: str) -> None:
    archive = machine.backup()
    spoil, word = SPOILED[case]
    spoil(archive)
    before = machine.files()
    for command in (("restore", archive, "--replace"), ("check", archive)):
        done = machine("db", *command)
        if command[0] == "check" and case in ONLY_IN_PLACE:
            assert done.code == 0
            continue
        assert done.code == (1 if "room" in case else 2), done
        assert word in done.err and len(done.err.splitlines()) == 1 and done.out == ""
        assert machine.files() == before


def test_a_wrong_backup_key_is_told_by_both_fingerprints(machine: Machine, tmp_path: Path) -> None:
    archive, other = machine.backup(), BackupKey.make(tmp_path / "other.key")
    before = machine.files()
    for command in (("restore", archive, "--replace"), ("check", archive)):
        done = machine("db", *command, "--key", tmp_path / "other.key")
        assert done.code == 2 and other.fingerprint in done.err and Archive.open(archive).header.backup_key in done.err
    assert machine.files() == before


@pytest.mark.parametrize("key", [None, os.urandom(32), b"short"], ids=["missing", "foreign", "short"])
def test_a_missing_or_foreign_hub_key_is_asked_for(machine: Machine, key: bytes | None) -> None:
    archive, other = machine.backup(), machine.another()
    (other.var / "hub.key").unlink()
    if key is not None:
        (other.var / "hub.key").write_bytes(key)
    before = other.files()
    done = other("db", "restore", archive)
    assert done.code == 2 and "key" in done.err and "copy" in done.err
    assert other.files() == before


def test_a_ledger_in_place_is_not_overwritten_unasked(machine: Machine) -> None:
    archive = machine.backup()
    before = machine.files()
    done = machine("db", "restore", archive)
    assert done.code == 2 and "--replace" in done.err and machine.files() == before
    assert machine("db", "restore", archive, "--replace").code == 0
    [kept] = machine.var.glob("unionhub.db.replaced-*Z")
    assert kept.read_bytes() == before["unionhub.db"]


def test_a_running_hub_is_backed_up_and_checked_but_not_restored_over(machine: Machine, tmp_path: Path) -> None:
    lock = ProcessLock(machine.var / "unionhub.db.lock")
    lock.acquire()
    try:
        archive = machine.backup()
        assert machine("db", "check").code == 0
        before = machine.files()
        done = machine("db", "restore", archive, "--replace")
        assert done.code == 2 and f"pid {os.getpid()}" in done.err and machine.files() == before
        elsewhere = tmp_path / "elsewhere"
        assert machine("db", "restore", archive, "--into", elsewhere).code == 2, "the hub key is not there yet"
        assert not elsewhere.exists()
        elsewhere.mkdir()
        shutil.copy(machine.var / "hub.key", elsewhere / "hub.key")
        assert machine("db", "restore", archive, "--into", elsewhere).code == 0
    finally:
        lock.release()
    listed = machine("connections", "list", "--json", UNIONHUB_VAR_DIR=str(elsewhere))
    assert listed.code == 0 and machine("release", "--json", UNIONHUB_VAR_DIR=str(elsewhere)).json == {
        "was_held": "restored"
    }


def test_a_target_that_cannot_be_written_is_named(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "no such folder" / "a.backup", tmp_path / "file" / "a.backup", tmp_path / "file"):
        done = machine("db", "backup", "--to", target)
        assert done.code == 2 and str(target.parent) in done.err and len(done.err.splitlines()) == 1
    assert (tmp_path / "file").read_bytes() == b""
    archive = machine.backup()
    assert machine("db", "restore", archive, "--into", tmp_path / "file").code == 2


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As a full disk: a write beyond this fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_with_1_and_leaves_nothing_half_done(machine: Machine, tmp_path: Path) -> None:
    archive = machine.backup()
    before = machine.files()
    with files_no_larger_than(300_000):
        backed_up = machine("db", "backup", "--to", tmp_path / "a.backup")
        restored = machine("db", "restore", archive, "--replace")
    for done in (backed_up, restored):
        assert done.code == 1 and "hết chỗ" in done.err and "no space left" in done.err
        assert len(done.err.splitlines()) == 1 and done.out == ""
    assert not (tmp_path / "a.backup").exists() and not list(tmp_path.glob("*partial*"))
    assert machine.files() == before
    assert machine("db", "check").code == 0


def test_checking_the_ledger_ends_with_1_when_something_is_wrong_and_2_without_a_ledger(machine: Machine) -> None:
    assert machine("db", "check").code == 0
    with closing(sqlite3.connect(machine.database, isolation_level=None)) as db:
        db.execute("INSERT INTO tally VALUES ('doi-tac-mau', 'delivered', 5)")
    done = machine("db", "check", "--json")
    assert done.code == 1 and not done.json["ok"]
    assert [c["check"] for c in done.json["checks"] if not c["ok"]] == ["books.counters"]
    assert "books.counters" in machine("db", "check").out
    assert machine("db", "check", UNIONHUB_VAR_DIR=str(machine.folder / "empty")).code == 2
    assert machine("db", "backup", UNIONHUB_VAR_DIR=str(machine.folder / "empty")).code == 2
    assert not (machine.folder / "empty").exists()


@pytest.mark.postgres
def test_a_ledger_in_postgresql_is_backed_up_and_restored_by_the_same_commands(
    machine: Machine, postgres_server: Server, postgres_dsn: str
) -> None:
    """Moved, backed up, restored into an empty database: the same rows, on hold; and nowhere over another ledger."""
    moved = machine("db", "move", "--to", postgres_dsn, "--json")
    assert moved.code == 0 and {t["table"]: t["rows"] for t in moved.json["tables"]}["content"] == 3000
    assert machine("connections", "list").code == 2, "the old file refuses"
    url = {"UNIONHUB_DATABASE_URL": postgres_dsn}
    done = machine("db", "backup", "--json", **url)
    assert done.code == 0, done
    archive = done.json["file"]
    checked = machine("db", "check", "--json", **url)
    assert checked.code == 0 and {c["check"] for c in checked.json["checks"]} > {"books.counters", "key", "hold"}

    name = postgres_server.create_database()
    try:
        other = {"UNIONHUB_DATABASE_URL": postgres_server.dsn(name)}
        assert machine("db", "restore", archive, "--replace", **other).code == 2
        restored = machine("db", "restore", archive, "--json", **other)
        assert restored.code == 0 and restored.json["hold"] == "restored", restored
        rows = postgres_server.execute("SELECT (SELECT count(*) FROM content), hold FROM ledger", database=name)
        assert [tuple(row) for row in rows] == [(3000, "restored")]
        assert machine("db", "check", **other).code == 0
        assert machine("release", **other).code == 0
        assert machine("connections", "list", **other).code == 0, "and a release lasts"
        assert postgres_server.execute("SELECT hold FROM ledger", database=name)[0][0] is None
        again = machine("db", "restore", archive, **other)
        assert again.code == 2 and name in again.err
    finally:
        postgres_server.drop_database(name)
    assert not [path for path in machine.var.iterdir() if path.is_dir()], "nothing is left beside the key"


# -- a whole hub, its sink counted -----------------------------------------------------------------


def backup_settings(folder: Path, **more: Any) -> dict[str, Any]:
    """A key, and the settings that name it."""
    key = folder / "backup.key"
    if not key.exists():
        BackupKey.make(key)
    return {"backup": {"key_file": str(key), "folder": "backups", **more}}


def restored(config: Configuration, archive: Path, now: datetime, **more: Any) -> backups.Restored:
    return backups.restore(config, [CORE], archive, now, idle, **more)


async def test_a_restored_ledger_resends_nothing_until_it_is_released(
    site: Site, alpha: RecordingSink, clock: StandingClock
) -> None:
    """Backed up while it sends, gone on, then put back: what went out since is in the backup as still owed."""
    site.settings = backup_settings(site.folder)
    unsafe = site.sink("unsafe", resend_is_safe=False)
    unsafe.script = [RetryLater(reason="busy")] * 3
    async with site.running() as hub:
        config = hub.config
        await emit(hub, 3)
        await reach(hub, ["delivered"] * 3, "alpha")
        await reach(hub, ["pending(busy)"] * 3, "unsafe")
        taken = await asyncio.to_thread(backups.take, config, clock(), idle)
        later(hub, clock, 3600)  # the original goes on: those three go out
        await emit(hub, 2)
        await reach(hub, ["delivered"] * 5, "alpha")
        await reach(hub, ["delivered"] * 5, "unsafe")
    sent = len(alpha.shipments), len(unsafe.shipments)
    assert restored(config, taken.path, clock(), replace=True).owed == 3
    for _ in range(2):  # a restart releases nobody
        clock.advance(7200)
        async with site.running() as hub:
            assert await hub.store.held() == "restored"
            await emit(hub)  # is taken in, and shown
            later(hub, clock, 60)
            assert (await states(hub, "unsafe")).count("pending(busy)") == 3
            await looks(hub)
            assert (len(alpha.shipments), len(unsafe.shipments)) == sent
    async with site.running() as hub:
        await release(hub)
        await reach(hub, ["delivered"] * 5, "alpha")
        await reach(hub, ["delivered"] * 5, "unsafe")
        await check_books(hub.store)
    assert len(alpha.shipments) == sent[0] + 2, "what the backup knew as delivered never goes again"
    assert len(unsafe.shipments) == sent[1] + 2 + 3, "what it knew as owed does, on a person's word"


async def looks(hub: HubApp) -> None:
    """Lets the worker look for work, again and again: what it asks the ledger is answered before our own question."""
    assert hub.worker is not None
    for _ in range(10):
        hub.worker.wake()
        await asyncio.sleep(0)
        await hub.store.ping()


async def release(hub: HubApp) -> None:
    from hub.commands import COMMANDS

    command = next(c for c in COMMANDS if c.name == "release")
    await command.run(hub, command.params(), lambda said: None)


async def test_what_was_in_flight_in_a_backup_is_not_sent_blindly_after_the_release(
    site: Site, clock: StandingClock
) -> None:
    from hub.contract import Outcome, Shipment

    async def never(shipment: Shipment) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    site.settings = backup_settings(site.folder)
    unsafe = site.sink("unsafe", resend_is_safe=False)
    unsafe.script = [never] * 2
    async with site.running() as hub:
        config = hub.config
        await emit(hub, 2)
        await eventually(lambda: len(unsafe.shipments) == 2)
        taken = await asyncio.to_thread(backups.take, config, clock(), idle)
    restored(config, taken.path, clock(), replace=True)
    async with site.running() as hub:
        await release(hub)
        await reach(hub, ["unknown(crashed_while_sending)"] * 2)
    assert len(unsafe.shipments) == 2


async def test_personal_content_opens_again_after_a_restore(
    site: Site, alpha: RecordingSink, clock: StandingClock
) -> None:
    site.settings = backup_settings(site.folder)
    alpha.script = [RetryLater(reason="busy")]
    personal = {"type": "vn.congdoan.person.changed.v1", "subject": "person-1"}
    async with site.running() as hub:
        config = hub.config
        await emit(hub, 1, **personal)
        await reach(hub, ["pending(busy)"])
        taken = await asyncio.to_thread(backups.take, config, clock(), idle)
    restored(config, taken.path, clock(), replace=True)
    async with site.running() as hub:
        await release(hub)
        later(hub, clock, 3600)
        await reach(hub, ["delivered"])
    assert alpha.shipments[0].body == alpha.shipments[1].body


# -- by schedule -----------------------------------------------------------------------------------


@pytest.fixture
def log_lines() -> Iterator[io.BytesIO]:
    """Where log lines go during a test."""
    before, handlers, level = vars(hub_log._state).copy(), logging.root.handlers[:], logging.root.level
    lines = io.BytesIO()
    hub_log.configure(lines, strict=True)
    yield lines
    vars(hub_log._state).update(before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


async def repairs(hub: HubApp) -> list[tuple[str, str]]:
    rows = await hub.store.read("SELECT kind, object FROM repair WHERE cleared_at IS NULL")
    return [(kind, object) for kind, object in rows]


async def test_the_schedule_keeps_its_last_backups_and_removes_nobody_elses(
    site: Site, alpha: RecordingSink, clock: StandingClock, log_lines: io.BytesIO
) -> None:
    site.settings = backup_settings(site.folder, keep=2)
    folder = site.folder / "backups"
    async with site.running() as hub:
        await emit(hub)
        by_hand = await asyncio.to_thread(backups.take, hub.config, clock(), idle)
        strange = folder / "unionhub-auto-20200101T000000Z.backup"
        foreign = folder / "unionhub-auto-20200102T000000Z.backup"
        strange.write_text("not ours")
        key = BackupKey.load(site.folder / "backup.key", site.folder / "var" / "hub.key")
        with new_archive(foreign) as (partial, file):
            other = by_hand.header.model_copy(update={"installation": "ff" * 16, "salt": "ab" * 32})
            seal(file, other, [b"x"], key, idle)
            keep(partial, foreign)
        for n in range(4):
            clock.advance(86_400)
            assert await backups.back_up(hub.config, hub.store, clock) == 1
            scheduled = set(folder.iterdir()) - {by_hand.path, strange, foreign}
            assert len(scheduled) == min(n + 1, 2)
        assert max(scheduled).name == f"unionhub-auto-{clock():%Y%m%dT%H%M%SZ}.backup", "the newest is among them"
        assert {by_hand.path, strange, foreign} <= set(folder.iterdir())
        assert await repairs(hub) == []
        assert Archive.open(max(scheduled)).verify(key, idle).bytes
    hub_log.flush()
    assert log_lines.getvalue().count(b'"backup.finished","state":"done"') == 4


async def test_a_scheduled_backup_that_fails_opens_one_repair_until_one_succeeds(
    site: Site, alpha: RecordingSink, clock: StandingClock
) -> None:
    site.settings = backup_settings(site.folder)
    key = site.folder / "backup.key"
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["delivered"])
        (site.folder / "backups").write_text("a file where the folder must be")
        for _ in range(2):
            with pytest.raises(ConfigError):
                await backups.back_up(hub.config, hub.store, clock)
            assert await repairs(hub) == [("backup_failed", "ledger")]
        (site.folder / "backups").unlink()
        await backups.back_up(hub.config, hub.store, clock)
        assert await repairs(hub) == []
        key.unlink()
        with pytest.raises(ConfigError):
            await backups.back_up(hub.config, hub.store, clock)
        assert await repairs(hub) == [("backup_failed", "ledger")]


async def test_a_full_disk_is_told_as_soon_as_the_ledger_can_be_written_again(
    site: Site, alpha: RecordingSink, clock: StandingClock, log_lines: io.BytesIO
) -> None:
    site.settings = backup_settings(site.folder)
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["delivered"])
        with files_no_larger_than(0):
            task = asyncio.create_task(backups.back_up(hub.config, hub.store, clock))
            await eventually(lambda: b'"backup.finished","state":"failed","reason":"busy"' in log_lines.getvalue())
        with pytest.raises(Busy):
            await task
        assert await repairs(hub) == [("backup_failed", "ledger")]
        assert list((site.folder / "backups").iterdir()) == []


async def test_a_hub_that_stops_does_not_wait_for_its_backup_and_leaves_nothing_of_it(
    site: Site, alpha: RecordingSink, clock: StandingClock
) -> None:
    site.settings = backup_settings(site.folder)
    begun, go_on = threading.Event(), threading.Event()

    def hesitating() -> datetime:
        """The first thing that the thread asks for."""
        begun.set()
        assert go_on.wait(30)
        return clock()

    async with site.running() as hub:
        await emit(hub, 50)
        task = asyncio.create_task(backups.back_up(hub.config, hub.store, hesitating))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list((site.folder / "backups").iterdir()) == []
        assert not list((site.folder / "var").glob("*partial*"))
        assert await repairs(hub) == []
