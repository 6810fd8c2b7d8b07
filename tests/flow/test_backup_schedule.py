"""The hub backs itself up when its schedule says so, while it works, and once a slot."""

from __future__ import annotations

from hub.app import HubApp
from hub.store.backup import Archive, BackupKey
from hub.testing import RecordingSink, StandingClock, eventually
from tests.flow.conftest import Site, emit, later, reach
from tests.flow.test_db_commands import backup_settings, idle

DAY_S = 86_400


async def ended(hub: HubApp) -> list[tuple[str, str]]:
    """State and reason of every backup run that has ended, the first one first."""
    sql = "SELECT state, reason FROM run WHERE kind = 'backup' AND finished_at IS NOT NULL ORDER BY due_at"
    return [(state, reason) for state, reason in await hub.store.read(sql)]


async def test_without_a_schedule_nothing_is_backed_up(site: Site, alpha: RecordingSink, clock: StandingClock) -> None:
    site.settings = backup_settings(site.folder)
    for day in range(1, 3):
        async with site.running() as hub:
            await emit(hub)
            await reach(hub, ["delivered"] * day)
            assert await hub.store.read("SELECT count(*) FROM run") == [(0,)]
        clock.advance(DAY_S)


async def test_each_slot_gets_one_backup_and_a_restart_in_it_none(
    site: Site, alpha: RecordingSink, clock: StandingClock
) -> None:
    site.settings = backup_settings(site.folder, schedule="every 24h", keep=2)
    for day in range(1, 4):
        for _ in range(2):
            async with site.running() as hub:
                await emit(hub)
                await eventually(lambda hub=hub, day=day: all_done(hub, day))
                assert await ended(hub) == [("done", "")] * day
                later(hub, clock, 60)
        clock.advance(DAY_S)
    key = BackupKey.load(site.folder / "backup.key", site.folder / "var" / "hub.key")
    kept = sorted((site.folder / "backups").iterdir())
    assert len(kept) == 2
    assert all(Archive.open(path).verify(key, idle).bytes for path in kept)


async def all_done(hub: HubApp, count: int) -> bool:
    return len(await ended(hub)) == count


async def test_a_backup_that_fails_is_a_failed_run_and_the_hub_goes_on(
    site: Site, alpha: RecordingSink, clock: StandingClock
) -> None:
    site.settings = backup_settings(site.folder, schedule="every 24h")
    (site.folder / "backups").write_text("a file where the folder must be")
    async with site.running() as hub:
        await eventually(lambda: all_done(hub, 1))
        assert await ended(hub) == [("failed", "config_invalid")]
        assert await hub.store.read("SELECT kind, object FROM repair") == [("backup_failed", "ledger")]
        await emit(hub)
        await reach(hub, ["delivered"])


async def test_a_stop_during_a_backup_leaves_nothing_and_the_next_start_makes_it_up(
    site: Site, alpha: RecordingSink, clock: StandingClock
) -> None:
    site.settings = backup_settings(site.folder, schedule="every 24h")
    running = "SELECT count(*) FROM run WHERE kind = 'backup' AND state = 'running'"
    async with site.running() as hub:
        for _ in range(20):
            await emit(hub, 50)
        await eventually(lambda: hub.store.read("SELECT 1 FROM run WHERE kind = 'backup'"), every_s=0.001)
    partial = [p for folder in ("var", "backups") for p in (site.folder / folder).glob("*partial*")]
    assert partial == []
    async with site.running() as hub:
        await eventually(lambda: all_done(hub, 1))
        assert await ended(hub) == [("done", "")]
        assert await hub.store.read(running) == [(0,)]
    [archive] = (site.folder / "backups").iterdir()
    key = BackupKey.load(site.folder / "backup.key", site.folder / "var" / "hub.key")
    assert Archive.open(archive).verify(key, idle).bytes
