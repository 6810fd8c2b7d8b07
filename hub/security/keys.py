"""The hub key and the data keys of subjects.

Personal content is AES-256-GCM under a data key per subject, wrapped by the hub key: destroying the data
key erases the person everywhere, backups included. Keyed hashes stand for phones and citizen numbers.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hub.errors import ConfigError

NONCE_BYTES = 12
KEY_BYTES = 32
#: Data keys kept in memory, the longest unused dropped first.
CACHED_KEYS = 20_000
#: Look-ups of keys that share one query, each for up to 500 subjects: within what a statement may bind.
ASKED_AT_ONCE = 50


class HubKey:
    """The one secret of an installation (``var/hub.key``); everything else is derived from it."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigError(f"the hub key must be {KEY_BYTES} bytes, found {len(key)}: copy the right file")
        self._wrap = AESGCM(_derive(key, "wrap"))
        self._hash = _derive(key, "hash")
        self.fingerprint = _derive(key, "fingerprint")[:8]

    @classmethod
    def load(cls, path: Path, *, may_create: bool) -> HubKey:
        """Reads the key file, or makes it (mode 0600) for an empty database only."""
        try:
            return cls(path.read_bytes())
        except FileNotFoundError:
            if not may_create:
                raise ConfigError(
                    f"thiếu {path} mà cơ sở dữ liệu đã có dữ liệu: chép tệp khóa từ nơi có cơ sở dữ liệu, hoặc từ bản"
                    f" sao lưu / {path} is missing and the database is not empty: copy the key file from where the"
                    " database came, or from its backup"
                ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and linked: a crash or a second process never leaves or sees half a key.
        aside = path.with_name(f"{path.name}.{os.getpid()}.new")
        aside.unlink(missing_ok=True)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # somebody was faster: theirs is the key
                os.link(aside, path)
        finally:
            aside.unlink()
        return cls(path.read_bytes())

    def keyed_hash(self, kind: str, value: bytes) -> bytes:
        return hashlib.blake2b(value, digest_size=16, key=self._hash, person=kind.encode()[:16]).digest()

    def wrap(self, subject: str, data_key: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrap.encrypt(nonce, data_key, subject.encode())

    def unwrap(self, subject: str, wrapped: bytes) -> bytes:
        return self._wrap.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], subject.encode())


def _derive(key: bytes, purpose: str) -> bytes:
    return hmac.digest(key, b"unionhub/" + purpose.encode(), "sha256")


class _Nonces:
    """Random nonces, drawn from the system many at a time: a system call for each gives up the interpreter lock."""

    AT_ONCE = 256

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def take(self) -> bytes:
        if self._at == len(self._pool):
            self._pool, self._at = os.urandom(NONCE_BYTES * self.AT_ONCE), 0
        self._at += NONCE_BYTES
        return self._pool[self._at - NONCE_BYTES : self._at]


class _Together:
    """Looks up what several ask at the same time with one question: each costs a thread's turn and a query."""

    def __init__(self, load: Callable[[Sequence[str]], Awaitable[dict[str, bytes]]]) -> None:
        self._load = load
        self._waiting: list[tuple[Sequence[str], asyncio.Future[dict[str, bytes]]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def __call__(self, subjects: Sequence[str]) -> dict[str, bytes]:
        answer: asyncio.Future[dict[str, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting.append((subjects, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await answer

    async def _ask(self) -> None:
        """Until nobody waits; who comes while a question is under way is part of the next."""
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:ASKED_AT_ONCE], self._waiting[ASKED_AT_ONCE:]
                subjects = list(dict.fromkeys(subject for each, _ in asked for subject in each))
                try:
                    found = await self._load(subjects)
                except Exception as error:  # everybody hears of it; whoever asks next tries again
                    for _, answer in asked:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for each, answer in asked:
                    if not answer.done():
                        answer.set_result({subject: found[subject] for subject in each if subject in found})
        finally:
            self._asking = None


class KeyRing:
    """Data keys by subject: loaded from the store, made on first use, cached unwrapped.

    A key that was made here but not yet committed travels with every unit that uses it.
    """

    def __init__(self, hub_key: HubKey, load: Callable[[Sequence[str]], Awaitable[dict[str, bytes]]]) -> None:
        self._hub_key = hub_key
        self._load = _Together(load)
        #: Bytes, not ciphers: one of those takes 2.5 KB and is made in 1.5 µs.
        self._open: OrderedDict[str, bytes] = OrderedDict()
        self._unstored: dict[str, bytes] = {}
        self._nonces = _Nonces()

    async def prepare(self, subjects: Iterable[str], *, make: bool) -> None:
        """Brings the subjects' keys into memory; ``make`` creates those that do not exist."""
        wanted = list(dict.fromkeys(subjects))
        missing = []
        for subject in wanted:
            if subject in self._open:
                self._open.move_to_end(subject)
            else:
                missing.append(subject)
        if not missing:
            return
        for start in range(0, len(missing), 500):
            stored = await self._load(missing[start : start + 500])
            for subject, wrapped in stored.items():
                if subject not in self._open:
                    self._open[subject] = self._hub_key.unwrap(subject, wrapped)
        if make:
            for subject in missing:
                if subject not in self._open:
                    data_key = os.urandom(KEY_BYTES)
                    self._unstored[subject] = self._hub_key.wrap(subject, data_key)
                    self._open[subject] = data_key
        while len(self._open) > max(CACHED_KEYS, len(wanted)):  # those of this call stay
            oldest = next((s for s in self._open if s not in self._unstored), None)
            if oldest is None:
                break
            del self._open[oldest]

    def knows(self, subject: str) -> bool:
        return subject in self._open

    def seal(self, subject: str, plaintext: bytes) -> bytes:
        nonce = self._nonces.take()
        return nonce + AESGCM(self._open[subject]).encrypt(nonce, plaintext, None)

    def unseal(self, subject: str, sealed: bytes) -> bytes | None:
        """None when the subject's key is gone (erased) or does not fit."""
        key = self._open.get(subject)
        if key is None:
            return None
        try:
            return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except InvalidTag:
            return None

    def unstored(self, subjects: Iterable[str], now_us: int) -> list[tuple[str, bytes, int]]:
        """Rows that must commit with the first use of new keys: subject, wrapped key, made at."""
        return [(s, self._unstored[s], now_us) for s in subjects if s in self._unstored]

    def stored(self, subjects: Iterable[str]) -> None:
        """Those keys are on disk now."""
        for s in subjects:
            self._unstored.pop(s, None)

    def forget(self, subjects: Iterable[str]) -> None:
        """After a lost race: read the winner's key next time."""
        for s in subjects:
            self._unstored.pop(s, None)
            self._open.pop(s, None)
