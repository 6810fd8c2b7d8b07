"""The portal: what a partner's developer sees and does alone, at ``/portal/``; server-rendered, without JavaScript.

Every page is of the partner that is signed in: none takes a partner's name, so what is another partner's is absent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal
from urllib.parse import quote, urlencode

from pydantic import ValidationError

from hub.contract import Hub, PageRequest, PageResponse, PageRoute
from hub.errors import InputError, NotFound
from plugins.partners.portal import account, endpoints, recovery
from plugins.partners.portal.render import LANGUAGE_COOKIE, LANGUAGES, View, see, static
from plugins.partners.portal.sessions import LINK, SIGN_IN, has_csrf, who

__all__ = ["LINK", "PAGES"]
Show = Callable[[View], Awaitable[PageResponse]]
_ENDPOINT = "/portal/endpoints/{endpoint}"
_DELIVERY = _ENDPOINT + "/deliveries/{delivery}"


def _page(
    method: Literal["GET", "POST"], path: str, show: Show, *, open: bool = False, most: int = 65_536
) -> PageRoute:
    """``open``: also for who has not signed in, and without the session's own token in the form."""

    async def handle(hub: Hub, request: PageRequest) -> PageResponse:
        view = View.of(hub, request)
        language = request.query.get("lang")
        if method == "GET" and language in LANGUAGES:
            kept = f"{LANGUAGE_COOKIE}={language}; Path=/portal/; Max-Age=31536000; HttpOnly; SameSite=Lax"
            return see(_back(request), **{"Set-Cookie": kept})
        if not open and not view.partner:
            return see(SIGN_IN)
        if method == "POST" and not open and not has_csrf(hub, request):
            vi = "Biểu mẫu này đã cũ. Mở lại trang rồi gửi lại; chưa có gì thay đổi."
            en = "This form is an old one. Open the page again and send it again; nothing was changed."
            return view.wrong(403, vi, en)
        try:
            return await show(view)
        except NotFound:
            vi = "Không có trang hay mục này. Kiểm tra lại địa chỉ."
            return view.wrong(404, vi, "There is no such page or thing. Check the address.")
        except ValidationError as error:
            where = ", ".join(sorted({str(each["loc"][0]) for each in error.errors() if each["loc"]}))
            vi = f"Chưa lưu gì: giá trị không hợp lệ ({where})."
            return view.wrong(422, vi, f"Nothing was saved: a value is not valid ({where}).")
        except InputError as error:
            return view.wrong(error.http_status, view.t.half(str(error)), view.t.half(str(error)))

    return PageRoute(method=method, path=path, handle=handle, who=who, max_body_bytes=most)


def _back(request: PageRequest) -> str:
    rest = urlencode({name: value for name, value in request.query.items() if name != "lang"})
    # One slash: with two, the rest of the path would be a host.
    return "/" + quote(request.path.lstrip("/")) + ("?" + rest if rest else "")


async def _nobody(hub: Hub, request: PageRequest) -> None:
    """Files of the portal are everybody's."""


PAGES: tuple[PageRoute, ...] = (
    _page("GET", "/portal/", account.home),
    _page("GET", SIGN_IN, account.sign_in_page, open=True),
    _page("POST", SIGN_IN, account.sign_in_form, open=True),
    _page("POST", "/portal/sign-out", account.sign_out_form),
    _page("GET", "/portal/types/{type}", account.event_type),
    _page("GET", "/portal/doctor", account.doctor_page),
    _page("POST", "/portal/doctor", account.doctor_form, most=account.DOCTOR_BYTES),
    _page("GET", "/portal/new-endpoint", endpoints.new),
    _page("POST", "/portal/new-endpoint", endpoints.add),
    _page("POST", "/portal/new-inbox", endpoints.add_inbox),
    _page("GET", "/portal/inbox/{endpoint}", endpoints.inbox),
    _page("GET", _ENDPOINT, endpoints.page),
    _page("POST", _ENDPOINT, endpoints.change),
    _page("POST", _ENDPOINT + "/rotate", endpoints.rotate),
    _page("POST", _ENDPOINT + "/remove", endpoints.remove),
    _page("POST", _ENDPOINT + "/test", endpoints.test),
    _page("GET", _DELIVERY, endpoints.delivery),
    _page("POST", _DELIVERY + "/resend", recovery.resend),
    _page("GET", _ENDPOINT + "/replay", recovery.replay),
    _page("POST", _ENDPOINT + "/replay", recovery.start),
    _page("POST", _ENDPOINT + "/replays/{replay}/stop", recovery.stop),
    PageRoute(method="GET", path="/portal/static/{name}", handle=static, who=_nobody),
)
