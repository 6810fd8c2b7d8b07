"""Who is signed in to the portal: one-time links that an officer makes, and the sessions they begin.

Links and session tokens are 256 random bits; the ledger holds keyed hashes of them alone.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from secrets import token_urlsafe
from typing import Final

from pydantic import Field

from hub.contract import Command, Guard, Hub, PageRequest, Principal, Report, Rest, UnitOfWork
from hub.errors import Conflict
from hub.model import Json, to_us
from plugins.partners import params as p
from plugins.partners import portal_tables as tables
from plugins.partners.access import OWNER, sending, the_partner
from plugins.partners.settings import PartnersSettings

LINK_FOR, SESSION_FOR = timedelta(minutes=15), timedelta(hours=8)
COOKIE: Final = "unionhub_portal"
SIGN_IN: Final = "/portal/sign-in"
#: Tries a minute: of one address, and of all together.
TRIES, TRIES_OF_ALL = 10, 300
_SCOPES = frozenset({"partners:read", "partners:write"})


# -- links -----------------------------------------------------------------------------------------


class LinkParams(p.OfPartner):
    base: str = Field(
        "",
        max_length=200,
        pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+)?$",
        description="Where partners reach this hub (https://hub.example.vn), in place of public_url",
        title="Địa chỉ của hub mà đơn vị truy cập được",
    )


async def make_link(hub: Hub, given: LinkParams, report: Report) -> Json:
    """A link that signs a partner's developer in once, within 15 minutes; it is shown here and kept nowhere."""
    await the_partner(hub, given.partner)
    token, expires_at = token_urlsafe(32), hub.now() + LINK_FOR
    made = tables.ADD_PASS(
        digest=_digest(hub, "link", token), kind="link", partner=given.partner, expires_at=to_us(expires_at)
    )
    await hub.commit(UnitOfWork(statements=[made]))
    connection = sending(hub)
    base = given.base or ("" if connection is None else hub.settings_of(PartnersSettings)[connection].public_url)
    return {
        "partner": given.partner,
        "link": f"{base}{SIGN_IN}?t={token}",
        "expires_at": expires_at.isoformat(),
        "single_use": True,
    }


LINK = Command(
    group="partners",
    name="link",
    help_vi="Tạo liên kết đăng nhập cổng đối tác: dùng một lần, trong 15 phút.",
    help_en="Make a link that signs a partner in to the portal: once, within 15 minutes.",
    params=LinkParams,
    run=make_link,
    rest=Rest(method="POST", path="/partners/{partner}/link", scope="partners:write", status=201),
)


# -- sessions --------------------------------------------------------------------------------------


async def sign_in(hub: Hub, link: str) -> str | None:
    """The token of a new session in place of the link; None for one that is wrong, used or over.

    One transaction whatever was given: nothing tells the three apart, by its answer or by its time.
    """
    token, now = token_urlsafe(32), hub.now()
    digest = _digest(hub, "link", link)
    begin = tables.SIGN_IN(
        session=_digest(hub, "session", token), link=digest, now=to_us(now), expires_at=to_us(now + SESSION_FOR)
    )
    used = tables.END_PASS(digest=digest, kind="link")
    try:
        await hub.commit(UnitOfWork(guards=[Guard(begin, otherwise="link"), Guard(used, otherwise="link")]))
    except Conflict as conflict:
        if conflict.otherwise != "link":
            raise
        return None
    return token


async def sign_out(hub: Hub, request: PageRequest) -> None:
    digest = _digest(hub, "session", request.cookies.get(COOKIE, ""))
    await hub.commit(UnitOfWork(statements=[tables.END_PASS(digest=digest, kind="session")]))


async def who(hub: Hub, request: PageRequest) -> Principal | None:
    """The partner whose session the cookie holds: everything of another partner is absent to it."""
    token = request.cookies.get(COOKIE, "")
    if not token:
        return None
    rows = await hub.fetch(tables.SESSION(digest=_digest(hub, "session", token), now=to_us(hub.now())))
    return Principal(name="portal", scopes=_SCOPES, owner=OWNER + rows[0][0]) if rows else None


def cookie(token: str, secure: bool) -> str:
    """Value of Set-Cookie; with an empty token it takes the cookie away."""
    life = int(SESSION_FOR.total_seconds()) if token else 0
    plain = f"{COOKIE}={token}; Path=/portal/; Max-Age={life}; HttpOnly; SameSite=Strict"
    return plain + "; Secure" if secure else plain


def csrf(hub: Hub, request: PageRequest) -> str:
    """What every form of this session carries: another site can neither read nor guess it."""
    return hub.keyed_hash("portal-csrf", request.cookies.get(COOKIE, "")).hex()


def has_csrf(hub: Hub, request: PageRequest) -> bool:
    return hmac.compare_digest(request.form.get("csrf", "").encode(), csrf(hub, request).encode())


def _digest(hub: Hub, kind: str, token: str) -> bytes:
    return hub.keyed_hash(f"portal-{kind}", token)


# -- pace ------------------------------------------------------------------------------------------


class Pace:
    """How often something may be tried in a minute, by whom and by all; counted in this process, so per node."""

    def __init__(self, each: int, together: int) -> None:
        self._each, self._together = each, together
        self._tries: deque[tuple[datetime, str]] = deque()

    def take(self, name: str, now: datetime) -> bool:
        """Whether one more may be tried; one that may not is not counted."""
        while self._tries and self._tries[0][0] <= now - timedelta(minutes=1):
            self._tries.popleft()
        if len(self._tries) >= self._together or sum(1 for each in self._of(name)) >= self._each:
            return False
        self._tries.append((now, name))
        return True

    def _of(self, name: str) -> Iterator[str]:
        return (whose for _, whose in self._tries if whose == name)
