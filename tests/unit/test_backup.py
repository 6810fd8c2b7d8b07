"""The archive of a backup: it opens whole, with its key, or not at all; and what a full disk or a kill leaves."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import resource
import stat
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import Busy, ConfigError, HubError, InputError
from hub.store.aside import aside, room_for
from hub.store.backup import (
    CHUNK,
    FORMAT,
    MAGIC,
    TAG_BYTES,
    Archive,
    BackupKey,
    Header,
    Summary,
    _Chunks,
    _head,
    keep,
    new_archive,
    seal,
)

KEY = BackupKey(bytes(range(32)))


def idle(stage: str, done: int, total: int) -> None: ...


def header(**more: object) -> Header:
    said = {
        "payload": "sqlite", "payload_bytes": 0, "installation": "ab" * 16, "sequence": 7, "schemas": {"hub": "0001"},
        "hub_key": "cd" * 8, "backup_key": KEY.fingerprint, "hub_version": "0.1.0",
        "created_at": "2026-11-23T07:00:00+00:00", **more,
    }  # fmt: skip
    return Header.model_validate(said)


def write(path: Path, blocks: Sequence[bytes], key: BackupKey = KEY, **more: object) -> Summary:
    with new_archive(path) as (partial, file):
        summary = seal(file, header(**{"backup_key": key.fingerprint, **more}), blocks, key, idle)
        keep(partial, path)
    return summary


def read(path: Path, key: BackupKey = KEY) -> bytes:
    return b"".join(Archive.open(path).read(key, idle, "restore"))


def chunks(path: Path) -> tuple[bytes, list[bytes]]:
    """The head and the sealed chunks with their lengths."""
    data = path.read_bytes()
    at = len(MAGIC) + 4 + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4])
    head, found = data[:at], []
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4])
        found.append(data[at:end])
        at = end
    return head, found


def refused(path: Path, key: BackupKey = KEY) -> str:
    """What is said of an archive that must not be used, having given nothing as whole."""
    with pytest.raises(HubError) as error:
        read(path, key)
    with pytest.raises(HubError):
        Archive.open(path).verify(key, idle)
    assert "\n" not in str(error.value) and " / " in str(error.value)
    return str(error.value)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Four chunks and a summary: bytes that no packing makes smaller."""
    path = tmp_path / "large.backup"
    write(path, [random.Random(1).randbytes(CHUNK) for _ in range(4)])
    return path


# -- whole -----------------------------------------------------------------------------------------


@given(blocks=st.lists(st.binary(max_size=3000) | st.integers(0, 3_000_000).map(bytes), max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_was_sealed_comes_out_again(tmp_path_factory: pytest.TempPathFactory, blocks: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("archive") / "a.backup"
    summary = write(path, blocks)
    assert read(path) == b"".join(blocks)
    assert Archive.open(path).verify(KEY, idle) == summary
    assert summary.bytes == sum(map(len, blocks))


def test_the_header_says_what_is_needed_to_judge_an_archive_and_nothing_of_anybody(tmp_path: Path) -> None:
    path = tmp_path / "a.backup"
    write(path, [b"Nguyen Van A 0912555001" * 100])
    raw = path.read_bytes()
    assert raw.startswith(MAGIC) and b"Nguyen" not in raw and b"0912555001" not in raw
    assert set(Archive.open(path).header.model_dump()) == {
        "format", "payload", "payload_bytes", "installation", "sequence", "schemas", "hub_key", "backup_key",
        "hub_version", "created_at", "salt",
    }  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_bytes_sealed_twice_have_nothing_in_common(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, [b"the same bytes"])
    (head_a, a), (head_b, b) = chunks(tmp_path / "a"), chunks(tmp_path / "b")
    assert head_a != head_b
    without_tags = [[chunk[4:-TAG_BYTES] for chunk in found] for found in (a, b)]
    assert all(mine != theirs for mine, theirs in zip(*without_tags, strict=True)), "two keys, not one twice"


def test_memory_stays_flat_however_much_there_is(tmp_path: Path) -> None:
    path, block, count = tmp_path / "a.backup", bytes(CHUNK), 64
    tracemalloc.start()
    try:
        write(path, (block for _ in range(count)))  # type: ignore[arg-type]
        # Packed to a thousandth: unpacking must not make it all at once either.
        assert path.stat().st_size < CHUNK
        assert Archive.open(path).verify(KEY, idle).bytes == count * CHUNK
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * CHUNK


# -- not whole -------------------------------------------------------------------------------------


def test_no_byte_can_be_changed_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "a.backup"
    write(path, [b"what is owed"])
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(path)


def test_no_end_can_be_cut_off_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "a.backup"
    write(path, [b"what is owed"])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)


Meddle = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize(
    "meddle",
    [
        lambda c: c[:-1],
        lambda c: c[:2] + c[-1:],
        lambda c: [c[1], c[0], *c[2:]],
        lambda c: [c[0], *c],
        lambda c: c[1:],
        lambda c: [*c, c[-1]],
        lambda c: [*c, b"\0"],
        lambda c: [*c, b"\0\0\0\0"],
        lambda c: [*c[:-1], c[-2], c[-1]],
        lambda c: [b"\xff\xff\xff\xff" + c[0][4:], *c[1:]],
        lambda c: [],
    ],
    ids=[
        "without its summary", "without its middle", "two exchanged", "the first twice", "without its first",
        "the summary twice", "a byte more", "an empty chunk more", "one repeated", "a length beyond all", "nothing",
    ],
)  # fmt: skip
def test_whole_chunks_cannot_be_moved_dropped_or_repeated(large: Path, meddle: Meddle) -> None:
    head, found = chunks(large)
    assert len(found) >= 5
    large.write_bytes(head + b"".join(meddle(found)))
    assert "hỏng" in refused(large) and "damaged" in refused(large)


def test_a_chunk_or_a_header_of_another_archive_does_not_fit(large: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.backup"
    write(other, [random.Random(1).randbytes(CHUNK) for _ in range(4)], sequence=8)
    (head, mine), (other_head, theirs) = chunks(large), chunks(other)
    for forged in (other_head + b"".join(mine), head + b"".join([theirs[0], *mine[1:]]), head + b"".join(theirs)):
        large.write_bytes(forged)
        refused(large)


def test_a_header_cannot_be_rewritten_even_with_the_same_salt(tmp_path: Path) -> None:
    path = tmp_path / "a.backup"
    write(path, [b"x"])
    head, found = chunks(path)
    said = orjson.loads(head[len(MAGIC) + 4 :])
    said["sequence"] += 1
    forged = orjson.dumps(said)
    path.write_bytes(MAGIC + len(forged).to_bytes(4) + forged + b"".join(found))
    assert Archive.open(path).header.sequence == 8, "it reads well"
    refused(path)


def test_an_end_that_is_not_sealed_as_the_end_is_none(tmp_path: Path) -> None:
    """Even if what stands in it is right."""
    path = tmp_path / "a.backup"
    for as_it_should_be in (True, False):
        head = _head(header())
        sealer = _Chunks(KEY.of_archive(bytes.fromhex(orjson.loads(head[len(MAGIC) + 4 :])["salt"])), head)
        summary = Summary(1, hashlib.sha256(b"x").hexdigest())
        end = sealer.seal(zlib.compress(b"x")) + sealer.seal(orjson.dumps(summary._asdict()), last=as_it_should_be)
        path.write_bytes(head + end)
        if as_it_should_be:
            assert read(path) == b"x"
        else:
            refused(path)


def test_a_newer_format_names_both_formats(tmp_path: Path) -> None:
    path = tmp_path / "a.backup"
    write(path, [b"x"], format=FORMAT + 1, sequence=1)
    assert f"format {FORMAT + 1}" in refused(path) and "newer" in refused(path)
    said = orjson.dumps({"format": 99, "all": "different"})
    path.write_bytes(MAGIC + len(said).to_bytes(4) + said)
    assert "format 99" in refused(path)


@pytest.mark.parametrize(
    "content", [b"", b"SQLite format 3\0" + bytes(100), MAGIC[:-1], MAGIC, MAGIC + b"\0\0\0\x02[]", os.urandom(1000)]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.backup"
    path.write_bytes(content)
    with pytest.raises(InputError):
        Archive.open(path)


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.backup"):
        Archive.open(tmp_path / "nowhere.backup")


# -- keys ------------------------------------------------------------------------------------------


def test_another_key_is_told_by_its_fingerprint(large: Path) -> None:
    other = BackupKey(bytes(32))
    said = refused(large, other)
    assert KEY.fingerprint in said and other.fingerprint in said and "--key" in said
    with pytest.raises(ConfigError):
        read(large, other)


def test_a_new_key_is_private_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "backup.key"
    made = BackupKey.make(path)
    raw = path.read_bytes()
    assert len(raw) == 32 and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert BackupKey.load(path, tmp_path / "hub.key").fingerprint == made.fingerprint
    with pytest.raises(ConfigError, match="not overwritten"):
        BackupKey.make(path)
    assert path.read_bytes() == raw and [p.name for p in tmp_path.iterdir()] == ["backup.key"]
    with pytest.raises(ConfigError):
        BackupKey.make(tmp_path / "no such folder" / "backup.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "backup.key"
    BackupKey.make(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        BackupKey.load(path, tmp_path / "hub.key")


def test_the_hub_key_a_short_key_and_no_key_are_refused(tmp_path: Path) -> None:
    hub_key, short = tmp_path / "hub.key", tmp_path / "short.key"
    BackupKey.make(hub_key)
    short.touch(0o600)
    short.write_bytes(b"short")
    for path, why in ((hub_key, "hub key itself"), (short, "32 bytes wanted"), (tmp_path / "none", "missing")):
        with pytest.raises(ConfigError, match=why):
            BackupKey.load(path, hub_key)


# -- the disk --------------------------------------------------------------------------------------


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As a full disk: a write beyond this fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_behind_and_says_so(tmp_path: Path) -> None:
    blocks = [random.Random(n).randbytes(CHUNK) for n in range(4)]
    with files_no_larger_than(2 * CHUNK), pytest.raises(Busy, match="no space left") as error:
        write(tmp_path / "a.backup", blocks)
    assert "hết chỗ" in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_room_is_asked_for_before_it_is_taken(tmp_path: Path) -> None:
    room_for(1, tmp_path)
    with pytest.raises(Busy, match=r"about 1000000000\.0 GB are needed"):
        room_for(10**18, tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "no such folder" / "a.backup", tmp_path / "file" / "a.backup"):
        with pytest.raises(ConfigError, match=str(path.parent)):
            write(path, [b"x"])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.backup").write_text("mine")
    with pytest.raises(ConfigError, match="not overwritten"):
        write(tmp_path / "a.backup", [b"x"])
    assert (tmp_path / "a.backup").read_text() == "mine"


def test_what_a_killed_writer_left_is_cleared_and_what_one_still_writes_is_not(tmp_path: Path) -> None:
    with aside(tmp_path / "one.backup") as (live, _), aside(tmp_path / "two.backup") as (dead, file):
        fcntl.flock(file, fcntl.LOCK_UN)  # as the system does when a process dies
        (tmp_path / "mine.partial").touch()
        write(tmp_path / "three.backup", [b"x"])
        assert sorted(tmp_path.iterdir()) == sorted([live, tmp_path / "mine.partial", tmp_path / "three.backup"])
        assert not dead.exists()


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def broken_off() -> None:
        with aside(tmp_path / "a") as (_, file):
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert list(tmp_path.iterdir()) == []
