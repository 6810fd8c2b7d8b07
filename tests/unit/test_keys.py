"""The hub key and the keys of subjects: sealed, erased, refused when they do not fit."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import ConfigError
from hub.security import keys
from hub.security.keys import HubKey, KeyRing

KEY = HubKey(bytes(range(32)))


class Shelf:
    """Wrapped keys as a store would keep them."""

    def __init__(self) -> None:
        self.wrapped: dict[str, bytes] = {}
        self.asked: list[str] = []

    async def load(self, subjects: Sequence[str]) -> dict[str, bytes]:
        self.asked += subjects
        return {s: self.wrapped[s] for s in subjects if s in self.wrapped}

    def keep(self, ring: KeyRing, *subjects: str) -> None:
        """What the commit of a unit does with its new keys."""
        for subject, wrapped, _ in ring.unstored(subjects, 1):
            self.wrapped.setdefault(subject, wrapped)
        ring.stored(subjects)


async def ring_with(shelf: Shelf, *subjects: str) -> KeyRing:
    ring = KeyRing(KEY, shelf.load)
    await ring.prepare(subjects, make=True)
    shelf.keep(ring, *subjects)
    return ring


async def test_what_is_sealed_is_read_back_by_its_subjects_key_alone() -> None:
    shelf = Shelf()
    ring = await ring_with(shelf, "m-1", "m-2")
    sealed = ring.seal("m-1", b"Nguyen Thi Hoa")
    assert b"Hoa" not in sealed and ring.seal("m-1", b"Nguyen Thi Hoa") != sealed
    assert ring.unseal("m-1", sealed) == b"Nguyen Thi Hoa"
    assert ring.unseal("m-2", sealed) is None
    assert ring.unseal("nobody", sealed) is None


async def test_a_changed_byte_is_no_plaintext() -> None:
    ring = await ring_with(Shelf(), "m-1")
    sealed = bytearray(ring.seal("m-1", b"text"))
    for i in range(len(sealed)):
        changed = bytes(sealed[:i]) + bytes([sealed[i] ^ 1]) + bytes(sealed[i + 1 :])
        assert ring.unseal("m-1", changed) is None


async def test_another_process_reads_it_through_the_stored_key() -> None:
    shelf = Shelf()
    sealed = (await ring_with(shelf, "m-1")).seal("m-1", b"text")
    other = KeyRing(KEY, shelf.load)
    assert not other.knows("m-1")
    await other.prepare(["m-1"], make=False)
    assert other.unseal("m-1", sealed) == b"text"


async def test_a_destroyed_key_erases_what_it_sealed_for_good() -> None:
    shelf = Shelf()
    ring = await ring_with(shelf, "m-1")
    sealed = ring.seal("m-1", b"text")
    del shelf.wrapped["m-1"]
    ring.forget(["m-1"])
    await ring.prepare(["m-1"], make=False)
    assert ring.unseal("m-1", sealed) is None
    await ring.prepare(["m-1"], make=True)
    assert ring.unseal("m-1", sealed) is None, "a new key of the same name opens nothing old"


async def test_a_wrapped_key_cannot_be_passed_off_as_another_subjects() -> None:
    shelf = Shelf()
    await ring_with(shelf, "m-1")
    shelf.wrapped["m-2"] = shelf.wrapped["m-1"]
    ring = KeyRing(KEY, shelf.load)
    with pytest.raises(InvalidTag):
        await ring.prepare(["m-2"], make=False)
    assert not ring.knows("m-2")


async def test_a_new_key_travels_with_every_unit_until_one_has_committed() -> None:
    ring = KeyRing(KEY, Shelf().load)
    await ring.prepare(["m-1"], make=True)
    first = ring.unstored(["m-1"], 1)
    assert len(first) == 1
    again = ring.unstored(["m-1"], 2)
    assert again[0][1] == first[0][1]
    ring.stored(["m-1"])
    assert ring.unstored(["m-1"], 3) == []


async def test_the_loser_of_a_race_takes_the_winners_key() -> None:
    shelf = Shelf()
    loser = KeyRing(KEY, shelf.load)
    await loser.prepare(["m-1"], make=True)
    winner = await ring_with(shelf, "m-1")
    loser.forget(["m-1"])
    await loser.prepare(["m-1"], make=True)
    assert loser.unstored(["m-1"], 1) == []
    assert loser.unseal("m-1", winner.seal("m-1", b"text")) == b"text"


async def test_a_full_cache_never_drops_a_key_of_the_call_that_filled_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest known subject and fifty thousand new ones in one unit: all of them can be sealed for."""
    monkeypatch.setattr(keys, "CACHED_KEYS", 5)
    shelf = Shelf()
    ring = await ring_with(shelf, "oldest", *(f"m-{i}" for i in range(4)))
    sealed = ring.seal("oldest", b"text")
    await ring.prepare(["oldest", "new-1"], make=True)
    assert ring.unseal("oldest", sealed) == b"text"
    shelf.keep(ring, "new-1")
    many = ["oldest", *(f"n-{i}" for i in range(20))]
    await ring.prepare(many, make=True)
    assert all(ring.knows(s) for s in many)
    shelf.keep(ring, *many)
    await ring.prepare(["last"], make=True)
    assert sum(ring.knows(s) for s in [*many, "last"]) == 5 and ring.knows("last")


async def test_the_least_used_key_leaves_the_cache_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "CACHED_KEYS", 2)
    shelf = Shelf()
    ring = await ring_with(shelf, "one", "two")
    await ring.prepare(["one"], make=False)
    await ring.prepare(["three"], make=True)
    assert ring.knows("one") and not ring.knows("two")


async def test_a_key_that_is_not_stored_yet_stays_whatever_the_cache_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropping it would leave a unit sealed under a key that nobody has."""
    monkeypatch.setattr(keys, "CACHED_KEYS", 1)
    ring = KeyRing(KEY, Shelf().load)
    await ring.prepare(["one"], make=True)
    await ring.prepare(["two"], make=True)
    assert ring.knows("one") and ring.knows("two")


# -- the key file ------------------------------------------------------------------------------------


def test_the_key_is_made_for_an_empty_database_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "var" / "hub.key"
    old = os.umask(0)
    try:
        made = HubKey.load(path, may_create=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    assert [p.name for p in path.parent.iterdir()] == ["hub.key"]
    assert HubKey.load(path, may_create=True).fingerprint == made.fingerprint
    assert HubKey.load(path, may_create=False).fingerprint == made.fingerprint


def test_a_missing_key_beside_a_database_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="copy the key file"):
        HubKey.load(tmp_path / "hub.key", may_create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"short", bytes(31), bytes(33), bytes(64)])
def test_a_file_that_is_no_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hub.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="32 bytes"):
        HubKey.load(path, may_create=True)
    assert path.read_bytes() == content


def test_what_a_crash_left_half_made_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    path.with_name(f"hub.key.{os.getpid()}.new").write_bytes(b"half")
    HubKey.load(path, may_create=True)
    assert len(path.read_bytes()) == 32


def test_two_keys_differ_in_everything_they_derive() -> None:
    other = HubKey(bytes(32))
    assert other.fingerprint != KEY.fingerprint
    assert other.keyed_hash("phone", b"x") != KEY.keyed_hash("phone", b"x")


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_a_keyed_hash_tells_kinds_and_values_apart(one: bytes, other: bytes) -> None:
    assert len(KEY.keyed_hash("phone", one)) == 16
    assert KEY.keyed_hash("phone", one) != KEY.keyed_hash("cccd", one)
    assert (KEY.keyed_hash("phone", one) == KEY.keyed_hash("phone", other)) is (one == other)
