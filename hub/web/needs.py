"""What needs a person, in three parts each: what happened, why, what to do now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote
from uuid import UUID

from hub.app import HubApp
from hub.model import Json
from hub.web.texts import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One thing to do. ``link`` is (key of its text, address); ``command`` is typed as it stands."""

    key: str
    what: str
    why: str
    do: str
    code: str = ""
    since: str | None = None
    link: tuple[str, str] | None = None
    commands: tuple[str, ...] = ()


def needs(
    hub: HubApp,
    language: Language,
    repairs: Sequence[Json],
    connections: Sequence[Json],
    totals: Mapping[str, int],
    held: str | None,
) -> list[Need]:
    """The hold first, then repairs (the oldest first), then what is not a repair but waits for a person too."""
    found = []
    if held is not None:
        what, why, do = language.repair("held", {}, held)
        found.append(Need(key="held", what=what, why=why, do=do, code=held, commands=("unionhub release",)))
    found += [_of_repair(language, repair, connections) for repair in repairs]
    if totals.get("unknown", 0) > 0:
        days = hub.config.hub.unknown.unresolved_after_days
        what, why, do = language.repair("unknown_outcomes", {"count": totals["unknown"], "days": days})
        link = ("repairs.see_unknown", "/deliveries?state=unknown")
        found.append(Need(key="unknown", what=what, why=why, do=do, link=link))
    for broken in hub.registry.broken:
        what, why, do = language.repair("plugin_left_out", {"object": broken.name, "detail": language.half(broken.why)})
        found.append(Need(key=f"plugin:{broken.name}", what=what, why=why, do=do, code=broken.code))
    return found


def _of_repair(language: Language, repair: Json, connections: Sequence[Json]) -> Need:
    kind, object, detail = repair["kind"], repair["object"], repair["detail"]
    what, why, do = language.repair(kind, {"object": object, "detail": language.half(detail)}, detail)
    link: tuple[str, str] | None = None
    commands: tuple[str, ...] = ()
    # A detail that is a code is shown as one; plugins write sentences there.
    code = detail if kind in ("destination_paused", "connection_paused") else kind
    match kind:
        case "destination_paused":
            link = _kept(object)
            commands = (f"unionhub connections resume {object}",)
        case "connection_paused":
            destinations = [r["destination"] for r in connections if r["connection"] == object and r["destination"]]
            if len(destinations) == 1:
                link = _kept(destinations[0])
            commands = (f"unionhub connections check {object}", f"unionhub connections resume {object}")
        case "login_refused":
            commands = (f"unionhub connections check {object}",)
        case "key_expiring":
            commands = ("unionhub keys list", f"unionhub keys revoke {object}")
        case "not_understood":
            link = ("repairs.see_event", f"/deliveries?event={_dashed(detail)}")
            commands = (f"unionhub events reread {object}",)
        case "poison":
            link = ("repairs.see_delivery", f"/deliveries/{_dashed(object)}")
            commands = (f"unionhub deliveries replay {_dashed(object)}",)
    return Need(
        key=f"repair:{repair['id']}", what=what, why=why, do=do, code=code, since=repair["opened_at"], link=link,
        commands=commands,
    )  # fmt: skip


def _kept(destination: str) -> tuple[str, str]:
    return "repairs.see", f"/deliveries?state=open&destination={quote(destination, safe='')}"


def _dashed(id: str) -> str:
    """The usual spelling of an id; what is none stays as it is, quoted."""
    try:
        return str(UUID(id))
    except ValueError:
        return quote(id, safe="")
