"""A member is erased: one key less, and neither the profile, the Directory nor a list brings the person back."""

from __future__ import annotations

from pathlib import Path

from hub.app import HubApp
from hub.control import run_command
from tests.engines import ON_BOTH

from .test_import_flow import AN, HOA, call, events, hub_in, written


async def _erase(hub: HubApp, phone: str) -> str:
    """As the page says: find the id, then say it back."""
    (member,) = (await call(hub, "show", who=phone))["members"]
    subject = str(member["id"])
    given = {"subject": subject, "reason": "Phiếu 12/2026", "confirm": subject}
    assert (await run_command(hub, "subjects erase", given, lambda progress: None))["erased"]
    return subject


@ON_BOTH
async def test_an_erased_member_has_no_name_no_address_and_does_not_come_back(
    tmp_path: Path, database_url: str
) -> None:
    async with hub_in(tmp_path, database_url) as hub:
        await call(hub, "import", file=written(tmp_path / "a.xlsx", HOA, AN))
        subject = await _erase(hub, "0912555001")
        assert list(await hub.directory.addresses([subject], "phone")) == []
        (shown,) = (await call(hub, "show", who=subject))["members"]
        assert (shown["name"], shown["phone"], shown["erased"]) == (None, None, True)
        before = await events(hub)
        moved = [*HOA[:6], "U-2", *HOA[7:]]
        answer = await call(hub, "import", file=written(tmp_path / "b.xlsx", moved, AN))
        assert [(p["code"], p["row"]) for p in answer["problems"]] == [("member_erased", 2)]
        assert await events(hub) == before
        (other,) = (await call(hub, "show", who="0912555002"))["members"]
        assert (other["name"], other["erased"]) == ("Ma Văn An", False), "nobody else is touched"
