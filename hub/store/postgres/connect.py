"""Opens a connection, or says in one line which of the usual things is wrong and what to do about it.

A message names server and database, never the user's password: the address as it was written is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from hub.errors import Busy, ConfigError, HubError
from hub.store.place import place

#: PostgreSQL 14 is the oldest its makers still mend.
OLDEST_MAJOR = 14


async def connect(
    url: str, *, timeout_s: float = 10.0, settings: Mapping[str, str] | None = None, **options: Any
) -> asyncpg.Connection[Any]:
    """One connection to a server and database that the hub can work with.

    Args:
        settings: of the server, for this session (``lock_timeout`` and the like).
        options: further arguments of ``asyncpg.connect``.

    Raises: ConfigError when somebody has to change something; Busy when waiting may help.
    """
    where = place(url)
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            url, timeout=timeout_s, server_settings=dict(settings or {}), **options
        )
    except (OSError, EOFError) as error:
        raise ConfigError(_unreachable(where, error.strerror if isinstance(error, OSError) else None)) from error
    except (ValueError, OverflowError) as error:  # asyncpg's own refusals of an address are ValueErrors too
        raise ConfigError(
            f"{where}: địa chỉ cơ sở dữ liệu có phần viết sai (cổng hoặc tham số sau dấu ?) / a part of the"
            " database's address is written wrongly (the port, or a parameter behind the ?)"
        ) from error
    except asyncpg.PostgresError as error:
        if (known := explained(error, where)) is None:
            raise
        raise known from error
    told = connection.get_settings()
    try:
        check_server(
            where,
            connection.get_server_version().major,
            told.server_version,
            standby=getattr(told, "in_hot_standby", "off") == "on",  # 13 does not tell
            encoding=told.server_encoding,
        )
    except ConfigError:
        await connection.close()
        raise
    return connection


def check_server(where: str, major: int, version: str, *, standby: bool, encoding: str) -> None:
    """Raises: ConfigError when the hub cannot work with such a server or database."""
    if major < OLDEST_MAJOR:
        raise ConfigError(
            f"{where}: máy chủ PostgreSQL {version} quá cũ, cần bản {OLDEST_MAJOR} trở lên: hãy nâng cấp máy chủ /"
            f" the server is PostgreSQL {version}; {OLDEST_MAJOR} or newer is needed: upgrade the server"
        )
    if standby:
        raise ConfigError(
            f"{where}: máy chủ này chỉ để đọc (bản dự phòng): hãy ghi địa chỉ của máy chủ chính /"
            " this server is a read-only standby: give the address of the primary"
        )
    if encoding != "UTF8":
        raise ConfigError(
            f"{where}: cơ sở dữ liệu dùng bảng mã {encoding}, cần UTF8: hãy tạo lại bằng lệnh"
            f" CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0 / the database's encoding is {encoding}, UTF8 is"
            " needed: create it again with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def explained(error: BaseException, where: str) -> HubError | None:
    """What an operator can do about an error of the driver; None: it is none of the known ones.

    Args:
        where: as ``place`` tells it.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, asyncpg.PostgresError):
        cause = getattr(cause, "orig", None) or cause.__cause__  # alembic and SQLAlchemy wrap the driver's error
    told = getattr(cause, "sqlstate", None)  # a code and no text, which may hold values
    match cause:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return ConfigError(
                f"{where}: máy chủ từ chối đăng nhập ({told}): hãy kiểm tra tên người dùng, mật khẩu (trong"
                " UNIONHUB_DATABASE_URL hoặc PGPASSFILE) và pg_hba.conf / the server refused the login"
                f" ({told}): check the user's name, the password (in UNIONHUB_DATABASE_URL or PGPASSFILE) and"
                " pg_hba.conf"
            )
        case asyncpg.InvalidCatalogNameError():
            return ConfigError(
                f"{where}: không có cơ sở dữ liệu này: hãy tạo bằng lệnh createdb, hoặc sửa tên trong"
                " UNIONHUB_DATABASE_URL / there is no such database: create it with createdb, or correct the name in"
                " UNIONHUB_DATABASE_URL"
            )
        case asyncpg.InsufficientPrivilegeError() | asyncpg.InvalidSchemaNameError():
            return ConfigError(missing_right(where))
        case asyncpg.ReadOnlySQLTransactionError():
            return ConfigError(
                f"{where}: cơ sở dữ liệu chỉ cho đọc: hãy ghi địa chỉ của máy chủ chính hoặc bỏ"
                " default_transaction_read_only / the database is read-only: give the address of the primary, or take"
                " default_transaction_read_only away"
            )
        case asyncpg.LockNotAvailableError() | asyncpg.DeadlockDetectedError():
            return Busy(
                f"{where}: các bảng đang được dùng, chưa thay đổi gì; hãy thử lại / the tables are in use, nothing was"
                f" changed; try again ({told})"
            )
        case asyncpg.InsufficientResourcesError():
            return Busy(
                f"{where}: máy chủ hết chỗ trống, bộ nhớ hoặc số kết nối ({told}); hãy giải phóng rồi thử lại / the"
                f" server is out of space, memory or connections ({told}); make room and try again"
            )
        case asyncpg.PostgresConnectionError() | asyncpg.CannotConnectNowError():
            return ConfigError(_unreachable(where, told))
    return None


def _unreachable(where: str, why: str | None) -> str:
    return (
        f"{where}: không kết nối được máy chủ PostgreSQL ({why or 'không trả lời'}): hãy kiểm tra máy chủ có đang chạy,"
        f" tên máy, cổng và tường lửa / the PostgreSQL server cannot be reached ({why or 'no answer'}): check that it"
        " runs, its host, port and the firewall"
    )


def missing_right(where: str) -> str:
    return (
        f"{where}: người dùng thiếu quyền: hãy giao cơ sở dữ liệu cho người dùng này (ALTER DATABASE ... OWNER TO ...)"
        " hoặc cấp quyền CREATE trên schema / the user lacks a right: make it the database's owner (ALTER DATABASE ..."
        " OWNER TO ...), or grant CREATE on the schema"
    )
