"""Secrets by reference: reading the file or variable, and finding the references in settings."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hub.contract import SecretRef
from hub.errors import ConfigError
from hub.log import register_secret

_LIMIT = 65_536


def resolve_secret(ref: SecretRef, base_dir: Path, environ: Mapping[str, str]) -> str:
    """The secret behind ``ref``; a file is relative to ``base_dir`` and its last line break is dropped.

    From here on no log line shows it. Raises: ConfigError that says what to do, without the secret.
    """
    value = _found(ref, base_dir, environ)
    register_secret(value)
    return value


def _found(ref: SecretRef, base_dir: Path, environ: Mapping[str, str]) -> str:
    if ref.env is not None and ref.file is None:
        value = environ.get(ref.env, "")
        if not value:
            raise ConfigError(f"biến môi trường {ref.env} chưa có / the variable {ref.env} is not set")
        return value
    if ref.file is not None and ref.env is None:
        return _read(base_dir / ref.file, ref.file)
    raise ConfigError("ghi đúng một trong hai: file hoặc env / write exactly one of file and env")


def secrets_in(value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], SecretRef]]:
    """Every secret reference inside a settings model, and where it stands."""
    if isinstance(value, SecretRef):
        yield loc, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_in(getattr(value, name), (*loc, name))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from secrets_in(inner, (*loc, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from secrets_in(inner, (*loc, index))


def _read(path: Path, shown: str) -> str:
    try:
        value = private_bytes(path, shown).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{shown} phải là chữ UTF-8 / {shown} must be UTF-8 text") from None
    if not value:
        raise ConfigError(f"tệp {shown} trống / the file {shown} is empty")
    return value


def private_bytes(path: Path, shown: str = "") -> bytes:
    """What a file holds that nobody else on this machine can read. Raises: ConfigError."""
    shown = shown or str(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{shown} không phải là tệp / {shown} is not a file")
        if mode & 0o077:
            raise ConfigError(
                f"người khác trên máy đọc được {shown}; chạy: chmod 600 {path}"
                f" / others on this machine can read {shown}; run: chmod 600 {path}"
            )
        with path.open("rb") as file:
            return file.read(_LIMIT)
    except FileNotFoundError:
        # The simulators' own secrets are public and written by that command.
        run = "; run: unionhub simulators" if path.name.startswith("simulator-") else ""
        raise ConfigError(
            f"không có tệp bí mật {shown}{run.replace('run', 'chạy')} / the secret file {shown} is missing{run}"
        ) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"không đọc được {shown} ({why}) / cannot read {shown} ({why})") from None
