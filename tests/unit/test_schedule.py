"""Which slot an instant is in: the same for whoever asks, and as long as nothing new is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hub.model import EPOCH
from hub.schedule import slot
from hub.settings_model import parse_schedule


def at(text: str) -> datetime:
    """An instant as it is written in Vietnam, seven hours before UTC."""
    return (datetime.fromisoformat(text) - timedelta(hours=7)).replace(tzinfo=UTC)


def named(schedule: str, now: str) -> datetime | None:
    minute = slot(parse_schedule(schedule), at(now))
    return None if minute is None else EPOCH + timedelta(minutes=minute)


@pytest.mark.parametrize(
    ("schedule", "now", "minute"),
    [
        ("30 6 * * mon-fri", "2026-11-23 06:30:00", "2026-11-23 06:30"),
        ("30 6 * * mon-fri", "2026-11-23 06:30:59", "2026-11-23 06:30"),
        ("30 6 * * mon-fri", "2026-11-23 06:31:05", "2026-11-23 06:30"),  # a late timer is no other slot
        ("30 6 * * mon-fri", "2026-11-23 23:59:00", "2026-11-23 06:30"),
        ("30 6 * * mon-fri", "2026-11-23 06:29:59", "2026-11-20 06:30"),  # Friday's
        ("*/5 * * * *", "2026-11-23 10:04:59", "2026-11-23 10:00"),
        ("0 3 1 * *", "2026-11-23 10:00:00", "2026-11-01 03:00"),
        ("0 3 1 1 *", "2026-11-23 10:00:00", "2026-01-01 03:00"),
    ],
)
def test_a_cron_slot_is_the_minute_it_named_last(schedule: str, now: str, minute: str) -> None:
    assert named(schedule, now) == at(minute)


def test_a_line_that_names_no_minute_has_no_slot() -> None:
    assert named("0 0 30 2 *", "2026-11-23 10:00:00") is None


@pytest.mark.parametrize(("seconds", "same"), [(0, True), (29.9, True), (30, False), (-0.1, False)])
def test_a_period_is_a_slot(seconds: float, same: bool) -> None:
    every = parse_schedule("every 30s")
    begin = at("2026-11-23 10:00:00")
    assert (slot(every, begin) == slot(every, begin + timedelta(seconds=seconds))) is same
