"""What the commands of this plugin share: who may see a partner, whose it is, and which addresses are let in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any

from yarl import URL

from hub.contract import Guard as RowGuard
from hub.contract import Hub, Statement, UnitOfWork
from hub.errors import Conflict, InputError, NotFound
from plugins.partners import tables
from plugins.partners.guard import NOT_PUBLIC, Guard, Refusal
from plugins.partners.settings import PartnerSettings, PartnersSettings

#: How long a name may take to be looked up when an address is saved.
RESOLVE_S = 3.0
#: Before the partner's name, the owner of an API key of that partner.
OWNER = "partner:"


def visible(hub: Hub, partner: str) -> bool:
    """Whether whoever asks may know of this partner: a partner's own key sees that partner alone."""
    owner = hub.principal.owner
    return not owner or owner == OWNER + partner


async def the_partner(hub: Hub, name: str) -> tuple[Any, ...]:
    """Name, title and sealed contact of a partner that the API manages.

    Raises: NotFound, InputError (409) naming the file that manages it instead.
    """
    rows = await hub.fetch(tables.PARTNER(name=name)) if visible(hub, name) else []
    if rows:
        return rows[0]
    if visible(hub, name) and name in hub.settings_of(PartnerSettings):
        raise InputError(
            f"đơn vị này do tệp {file_of(name)} quản lý: sửa ở tệp đó rồi khởi động lại; chưa có gì thay đổi"
            f" / this partner is managed by {file_of(name)}: change that file and restart; nothing was changed",
            problem="managed-by-file",
            status=409,
        )
    raise NotFound("không có đơn vị đối tác này / there is no such partner")


def file_of(connection: str) -> str:
    return f"connections/{connection}.toml"


async def commit(hub: Hub, partner: str, *statements: Statement, touch: Statement | None = None) -> None:
    """Changes rows of a partner that is still the API's; every node notices.

    Raises: NotFound where ``touch`` finds no row.
    """
    guards = [RowGuard(tables.STILL_THERE(name=partner), otherwise="gone")]
    if touch is not None:
        guards.append(RowGuard(touch, otherwise="not_found"))
    try:
        await hub.commit(UnitOfWork(guards=guards, statements=[*statements, tables.CHANGE()]))
    except Conflict as conflict:
        if conflict.otherwise == "not_found":
            raise NotFound(
                "không có mục này; chưa có gì thay đổi / there is no such thing; nothing was changed"
            ) from None
        raise


def sending(hub: Hub) -> str | None:
    """The connection that sends for all partners that the API manages; None where there is none."""
    return min(hub.settings_of(PartnersSettings), default=None)


def the_guard(hub: Hub) -> Guard:
    """The guard of the connection that sends for the API, as its file says; one that opens nothing without it."""
    name = sending(hub)
    return Guard() if name is None else hub.settings_of(PartnersSettings)[name].guard


async def checked(guard: Guard, text: str, look_up: Callable[[URL], Awaitable[Sequence[str]]] | None = None) -> URL:
    """The address, once its spelling and (where it has one now) at least one of its numbers is allowed.

    Args:
        look_up: in place of the system's resolver: numeric addresses of the host.

    Raises: InputError (422).
    """
    url = guard.look(text)
    if isinstance(url, Refusal):
        raise _refused(url)
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await (look_up or _looked_up)(url)
    except (OSError, UnicodeError):
        return url  # it may be made known later; the guard stands before every connection
    if not any(guard.allows(ip_address(each.partition("%")[0])) for each in found):
        raise _refused(NOT_PUBLIC)
    return url


async def _looked_up(url: URL) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(url.raw_host, url.port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


def _refused(refusal: Refusal) -> InputError:
    slug = "url-not-public" if refusal is NOT_PUBLIC else "url-invalid"
    return InputError(f"url: {refusal}", problem=slug, status=422)


async def endpoint_row(hub: Hub, partner: str, endpoint: str) -> tuple[Any, ...]:
    """Raises: NotFound."""
    for row in await hub.fetch(tables.ENDPOINTS_OF(partner=partner)):
        if row[1] == endpoint:
            return row
    raise NotFound("không có địa chỉ nhận này / there is no such endpoint")
