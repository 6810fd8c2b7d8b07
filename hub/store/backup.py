"""The archive a backup is: a header anybody may read, then bytes of any kind, compressed and sealed in chunks.

    UNIONHUB-BACKUP\\n | length, header (JSON) | length, sealed chunk | ... | length, sealed summary

It knows no engine: the header says what the bytes are. Each archive has a key of its own, derived from the
backup key and a salt. A chunk's nonce is its number and whether it is the last, and each chunk is bound to the
whole header: what was changed, cut off, put elsewhere or taken from another archive does not open. The summary
holds length and SHA-256 of the bytes, so that packing and unpacking are checked as well.

Source: STREAM in Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015; the payload of age-encryption.org/v1 has the same shape.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hub.errors import ConfigError, InputError
from hub.secret_files import private_bytes
from hub.store.aside import aside, sync_folder, told_of

MAGIC = b"UNIONHUB-BACKUP\n"
FORMAT = 1
KEY_BYTES = 32
SALT_BYTES = 32
TAG_BYTES = 16
#: Bytes sealed at once. Nothing larger is ever in memory.
CHUNK = 1024 * 1024
_HEADER_MAX = 64 * 1024
#: Half the size at 70 MB/s of one core; higher levels save a twentieth and take twice as long.
_LEVEL = 1

#: Told what is being done, how many bytes of how many; may raise to stop it.
Step = Callable[[str, int, int], None]


class BackupKey:
    """What opens the archives of an installation; not the hub key, and kept apart from both."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.fingerprint = hmac.digest(key, b"unionhub/backup-fingerprint", "sha256")[:8].hex()

    @classmethod
    def load(cls, path: Path, hub_key: Path) -> BackupKey:
        """Raises: ConfigError when it is missing, open to others, no key, or the hub key itself."""
        key = private_bytes(path)
        if len(key) != KEY_BYTES:
            raise ConfigError(
                f"{path} không phải khóa sao lưu (cần {KEY_BYTES} byte, tệp có {len(key)}); tạo bằng: unionhub db"
                f" backup-key TỆP / {path} is no backup key ({KEY_BYTES} bytes wanted, {len(key)} found); make one"
                " with: unionhub db backup-key FILE"
            )
        with told_of(hub_key):
            if hub_key.exists() and hmac.compare_digest(hub_key.read_bytes(), key):
                raise ConfigError(
                    f"{path} chính là khóa hub; bản sao lưu phải có khóa riêng: unionhub db backup-key TỆP"
                    f" / {path} is the hub key itself; backups have a key of their own: unionhub db backup-key FILE"
                )
        return cls(key)

    @classmethod
    def make(cls, path: Path) -> BackupKey:
        """A new key in a new file, for this user alone. Raises: ConfigError when something is there."""
        key = os.urandom(KEY_BYTES)
        with aside(path) as (partial, file):
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(partial, path)
            except FileExistsError:
                raise ConfigError(
                    f"đã có {path}; các bản sao lưu cũ có thể còn cần nó nên không ghi đè, hãy chọn tên khác"
                    f" / {path} exists; old backups may need it, so it was not overwritten: choose another name"
                ) from None
            sync_folder(path.parent)
        return cls(key)

    def of_archive(self, salt: bytes) -> AESGCM:
        derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"unionhub/backup/1").derive(self._key)
        return AESGCM(derived)


class Header(BaseModel):
    """What is known of an archive without its key: nothing about a person."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    payload: str = Field(description="What the bytes are; 'sqlite' is an SQLite file.")
    payload_bytes: int = Field(ge=0)
    installation: str
    sequence: int = Field(description="How many commits the ledger had seen.")
    schemas: dict[str, str] = Field(description="Version of the tables by owner.")
    hub_key: str = Field(description="Fingerprint of the hub key that reads the personal content.")
    backup_key: str = Field(description="Fingerprint of the key this archive is sealed with.")
    hub_version: str
    created_at: str
    salt: str = Field(default_factory=lambda: os.urandom(SALT_BYTES).hex(), pattern=r"^[0-9a-f]{64}$")


class Summary(NamedTuple):
    """What the payload was, said at its end."""

    bytes: int
    sha256: str


# -- writing ---------------------------------------------------------------------------------------


@contextmanager
def new_archive(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A place to ``seal`` into and then ``keep``. Raises: ConfigError when ``path`` exists or cannot be written."""
    if path.exists():
        raise ConfigError(
            f"đã có {path}, không ghi đè; hãy chọn tên khác"
            f" / {path} exists and was not overwritten: choose another name"
        )
    with aside(path) as pair:
        yield pair


def seal(file: IO[bytes], header: Header, payload: Iterable[bytes], key: BackupKey, step: Step) -> Summary:
    """Writes a whole archive and makes it durable."""
    head = _head(header)
    file.write(head)
    sealer = _Chunks(key.of_archive(bytes.fromhex(header.salt)), head)
    packer, digest, done, waiting = zlib.compressobj(_LEVEL), hashlib.sha256(), 0, bytearray()
    for block in payload:
        digest.update(block)
        done += len(block)
        waiting += packer.compress(block)
        while len(waiting) >= CHUNK:
            file.write(sealer.seal(bytes(waiting[:CHUNK])))
            del waiting[:CHUNK]
        step("write", done, header.payload_bytes)
    waiting += packer.flush()
    for start in range(0, len(waiting), CHUNK):
        file.write(sealer.seal(bytes(waiting[start : start + CHUNK])))
    summary = Summary(done, digest.hexdigest())
    file.write(sealer.seal(orjson.dumps(summary._asdict()), last=True))
    file.flush()
    os.fsync(file.fileno())
    # Read back from the disk, not from memory.
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return summary


def keep(partial: Path, path: Path) -> None:
    """Gives a finished archive its name."""
    partial.rename(path)
    sync_folder(path.parent)


def _head(header: Header) -> bytes:
    said = header.model_dump_json().encode()
    return MAGIC + len(said).to_bytes(4) + said


class _Chunks:
    """The chunks of one archive in their order."""

    def __init__(self, cipher: AESGCM, head: bytes) -> None:
        self._cipher = cipher
        self._bound_to = hashlib.sha256(head).digest()
        self._number = 0

    def _nonce(self, last: bool) -> bytes:
        self._number += 1
        return self._number.to_bytes(11) + bytes([last])

    def seal(self, plain: bytes, *, last: bool = False) -> bytes:
        sealed = self._cipher.encrypt(self._nonce(last), plain, self._bound_to)
        return len(sealed).to_bytes(4) + sealed

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        return self._cipher.decrypt(self._nonce(last), sealed, self._bound_to)


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose header was read; nothing in it is certain before the last block came out."""

    path: Path
    header: Header
    head: bytes

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Raises: InputError when it is no archive, damaged or of a newer format; ConfigError: not readable."""
        with told_of(path), path.open("rb") as file:
            head = file.read(len(MAGIC) + 4)
            if not head.startswith(MAGIC):
                raise InputError(f"{path} không phải bản sao lưu của Union Hub / {path} is not a backup of Union Hub")
            said = file.read(min(int.from_bytes(head[len(MAGIC) :]), _HEADER_MAX))
        try:
            fields = orjson.loads(said)
            if isinstance(fields, dict) and isinstance(fields.get("format"), int) and fields["format"] > FORMAT:
                raise InputError(
                    f"{path} do bản Union Hub mới hơn viết (định dạng {fields['format']}, bản này đọc được {FORMAT}):"
                    f" cài bản mới hơn rồi làm lại / {path} was written by a newer Union Hub (format"
                    f" {fields['format']}, this one reads {FORMAT}): install the newer version, then try again"
                )
            return cls(path, Header.model_validate(fields), head + said)
        except (orjson.JSONDecodeError, ValidationError):
            raise damaged(path) from None

    def check_key(self, key: BackupKey) -> None:
        """Raises: ConfigError when another key sealed it, naming both by their fingerprints."""
        if key.fingerprint != self.header.backup_key:
            raise ConfigError(
                f"{self.path} được niêm phong bằng khóa sao lưu khác (dấu {self.header.backup_key}, khóa đang dùng"
                f" {key.fingerprint}): chỉ đúng tệp khóa bằng --key / {self.path} was sealed with another backup key"
                f" (fingerprint {self.header.backup_key}, the one given is {key.fingerprint}): name the right file"
                " with --key"
            )

    def read(self, key: BackupKey, step: Step, doing: str) -> Reading:
        self.check_key(key)
        return Reading(self, key, step, doing)

    def verify(self, key: BackupKey, step: Step) -> Summary:
        """Reads all of it and keeps nothing. Raises: InputError when it is damaged."""
        reading = self.read(key, step, "verify")
        deque(reading, maxlen=0)
        return reading.summary


class Reading:
    """The payload, at most ``CHUNK`` bytes at a time, then its ``summary``.

    Raises: InputError where the archive is damaged, at the latest behind the last block.
    """

    summary: Summary

    def __init__(self, archive: Archive, key: BackupKey, step: Step, doing: str) -> None:
        self._archive = archive
        self._cipher = key.of_archive(bytes.fromhex(archive.header.salt))
        self._step = step
        self._doing = doing

    def __iter__(self) -> Iterator[bytes]:
        unpacker, digest, done, said = zlib.decompressobj(), hashlib.sha256(), 0, b""
        for chunk, last in self._chunks():
            if last:
                said = chunk
                break
            while chunk:
                try:
                    block = unpacker.decompress(chunk, CHUNK)
                except zlib.error:
                    raise damaged(self._archive.path) from None
                chunk = unpacker.unconsumed_tail
                digest.update(block)
                done += len(block)
                self._step(self._doing, done, self._archive.header.payload_bytes)
                yield block
        rest = unpacker.flush()
        digest.update(rest)
        yield rest
        self.summary = Summary(done + len(rest), digest.hexdigest())
        if not unpacker.eof or orjson.loads(said) != self.summary._asdict():
            raise damaged(self._archive.path)

    def _chunks(self) -> Iterator[tuple[bytes, bool]]:
        opener = _Chunks(self._cipher, self._archive.head)
        with told_of(self._archive.path), self._archive.path.open("rb") as file:
            file.seek(len(self._archive.head))
            size = file.read(4)
            while size:
                length = int.from_bytes(size)
                sealed = file.read(length) if length <= CHUNK + TAG_BYTES else b""
                if len(sealed) != length:
                    raise damaged(self._archive.path)
                size = file.read(4)
                try:
                    yield opener.open(sealed, last=not size), not size
                except InvalidTag:
                    raise damaged(self._archive.path) from None


def damaged(path: Path) -> InputError:
    return InputError(
        f"{path} bị hỏng hoặc bị cắt cụt, không dùng được; không có gì thay đổi. Dùng bản sao lưu khác"
        f" / {path} is damaged or cut short and cannot be used; nothing was changed. Use another backup"
    )
