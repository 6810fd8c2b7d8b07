"""Ids derived from what makes a delivery unique, and shards from ids."""

from __future__ import annotations

import itertools
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from hub.commit import delivery_id, event_range, key_hash, queue_row
from hub.model import Priority, new_id
from hub.routing import Subscription

event_ids = st.builds(lambda: new_id().bytes) | st.binary(min_size=16, max_size=16)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(event_ids, names, names, st.integers(0, 1000))
def test_a_delivery_id_is_a_uuid_of_version_8_within_its_events_range(
    event: bytes, destination: str, recipient: str, generation: int
) -> None:
    id = delivery_id(event, destination, recipient, generation)
    low, high = event_range(event)
    assert low <= id <= high
    made = UUID(bytes=id)
    assert made.version == 8 and made.variant == "specified in RFC 4122"
    assert id[:6] == event[:6], "it sorts beside its event"


@given(st.lists(st.tuples(event_ids, names, names, st.integers(0, 9)), max_size=50))
def test_two_deliveries_have_one_id_only_when_they_are_the_same(owed: list[tuple[bytes, str, str, int]]) -> None:
    assert len({delivery_id(*o) for o in owed}) == len(set(owed))


@given(names, names)
def test_no_part_of_a_name_moves_into_its_neighbour(one: str, other: str) -> None:
    event = bytes(16)
    if (one + other, "") != (one, other):
        assert delivery_id(event, one + other, "", 0) != delivery_id(event, one, other, 0)


@given(st.lists(event_ids, min_size=2, max_size=20, unique=True))
def test_ranges_of_events_with_other_times_do_not_touch(events: list[bytes]) -> None:
    ranges = sorted({event_range(e) for e in events})
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))


@given(st.text(max_size=40))
def test_a_shard_is_a_signed_64_bit_number_and_stable(value: str) -> None:
    assert -(2**63) <= key_hash(value) < 2**63
    assert key_hash(value) == key_hash(value)


def test_a_shard_does_not_change_between_versions() -> None:
    """It will decide where rows live: another value is a migration."""
    assert key_hash("m-0001") == 2022114706050091446
    assert delivery_id(bytes(range(16)), "partner", "m-1", 2).hex() == "000102030405860788fcf06f66892a7a"


def test_the_earlier_of_two_expiries_counts() -> None:
    plain = Subscription(name="s", types=("x",), to="partner")
    short = Subscription(name="s", types=("x",), to="partner", expires_after_s=10)
    assert queue_row(plain, b"", bytes(16), "p", "", 5, 0).expires_at is None
    assert queue_row(plain, b"", bytes(16), "p", "", 5, 0, expires_at=7).expires_at == 7
    assert queue_row(short, b"", bytes(16), "p", "", 5, 0).expires_at == 10_000_005
    assert queue_row(short, b"", bytes(16), "p", "", 5, 0, expires_at=7).expires_at == 7
    assert queue_row(short, b"", bytes(16), "p", "", 5, 0, expires_at=10**12).expires_at == 10_000_005


def test_a_subscription_overrides_the_priority_of_its_events() -> None:
    urgent = Subscription(name="s", types=("x",), to="partner", priority=Priority.URGENT, on_dead="hold")
    made = queue_row(urgent, b"", bytes(16), "p", "", 5, 0, priority=2)
    assert (made.priority, made.on_dead_hold) == (0, 1)
