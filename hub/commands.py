"""The operator's commands of the core; plugins add theirs through the same door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from hub import dead_letters, views
from hub.app import HubApp
from hub.commit import delivery_id as derive_id
from hub.contract import Command, Hub, Report, Rest
from hub.errors import InputError, NotFound
from hub.model import Json, State, to_us
from hub.retention import Pruner, Rules


class Params(BaseModel):
    """What a command takes; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")


def _argument(description: str, **more: Any) -> Any:
    return Field(description=description, json_schema_extra={"argument": True}, **more)


class Nothing(Params):
    """No parameters."""


class Limit(Params):
    limit: int = Field(50, ge=1, le=10_000, description="How many rows at most.")


class ListDeliveries(Limit):
    state: State | None = Field(None, description="Only deliveries in this state.")
    to: str | None = Field(None, description="Only this destination.")
    reason: str | None = Field(None, description="Only this reason.")
    event: str | None = Field(None, description="Only deliveries of this event id.")
    by: Literal["reason", "destination", "state"] | None = Field(
        None, description="Count what did not arrive by this, in place of listing it."
    )


class OneId(Params):
    id: str = Field(
        description="Id of a delivery (or of the event it belongs to).",
        json_schema_extra={"argument": True, "format": "uuid"},
    )


class Replay(Params):
    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})] | None = _argument(
        "Id of a delivery; without one, all that stopped for --reason.", default=None
    )
    reason: str | None = Field(None, description="Send all again that stopped for this reason; counts them first.")
    to: str | None = Field(None, description="With --reason: only to this destination.")
    state: Literal["dead", "cancelled"] = Field("dead", description="With --reason: dead or cancelled ones.")
    expect: int | None = Field(None, ge=1, description="With --reason: how many there are; without it nothing is sent.")


class OneBatch(Params):
    id: str = _argument("Id of a batch, or of the event it sends.")


class Resolve(OneId):
    verdict: Literal["delivered", "failed", "resend"] = Field(
        alias="as", description="What is known now: delivered, failed, or resend on your word."
    )
    reason: str = Field(min_length=3, max_length=200, description="Who says so and why; kept with the delivery.")


class Prune(Params):
    dry_run: bool = Field(False, description="Count what would go, delete nothing.")


class OneName(Params):
    name: str = _argument("Name of a connection or destination.")


class Pause(OneName):
    reason: str = Field("", max_length=200, description="Shown to everybody who asks why.")


def _app(hub: Hub) -> HubApp:
    assert isinstance(hub, HubApp)
    return hub


async def _list_deliveries(hub: Hub, p: ListDeliveries, report: Report) -> Json:
    if p.by is not None:
        return await dead_letters.counted(_app(hub), p.by, p.state.value if p.state else None, p.to, p.reason)
    rows = await views.deliveries(
        _app(hub).store,
        state=p.state.value if p.state else None,
        destination=p.to,
        reason=p.reason,
        event_id=views.parse_id(p.event) if p.event else None,
        limit=p.limit,
    )
    return {"deliveries": rows}


async def _show_delivery(hub: Hub, p: OneId, report: Report) -> Json:
    found = await views.delivery(_app(hub).store, views.parse_id(p.id), unseal=hub.unseal)
    if found is not None:
        return found
    rows = await views.deliveries(_app(hub).store, event_id=views.parse_id(p.id), limit=1000)
    if not rows:
        raise NotFound(f"không có lượt gửi hay sự kiện {p.id} / no delivery or event {p.id}")
    return {"deliveries": rows}


async def _replay(hub: Hub, p: Replay, report: Report) -> Json:
    app = _app(hub)
    if (p.id is None) == (p.reason is None):
        raise InputError("ghi mã một lượt gửi, hoặc --reason / give the id of a delivery, or --reason")
    if p.id is None:
        assert p.reason is not None
        return await dead_letters.replay(app, p.reason, p.to, p.state, p.expect, report)
    old = await views.delivery(app.store, views.parse_id(p.id))
    if old is None:
        raise NotFound(f"không có lượt gửi {p.id} / no delivery {p.id}")
    generations = await views.deliveries(app.store, event_id=views.parse_id(old["event_id"]), limit=10_000)
    same = [g for g in generations if (g["destination"], g["recipient"]) == (old["destination"], old["recipient"])]
    following = derive_id(
        views.parse_id(old["event_id"]), old["destination"], old["recipient"], max(g["generation"] for g in same) + 1
    )
    if await app.store.replay(views.parse_id(p.id), following, to_us(app.now())) is None:
        raise InputError(
            f"lượt gửi {p.id} chưa kết thúc nên không gửi lại được; xem: unionhub deliveries show {p.id}"
            f" / delivery {p.id} is not settled, so it cannot be replayed",
            problem="not-settled",
            status=409,
        )
    _wake(app)
    return {"replayed": p.id, "delivery": views.show_id(following)}


async def _resolve(hub: Hub, p: Resolve, report: Report) -> Json:
    app = _app(hub)
    if not await app.store.resolve(views.parse_id(p.id), p.verdict, p.reason, to_us(app.now())):
        raise InputError(
            f"lượt gửi {p.id} không ở trạng thái 'không rõ kết quả'; không đổi gì"
            f" / delivery {p.id} is not unknown; nothing was changed",
            problem="not-unknown",
            status=409,
        )
    _wake(app)
    return {"resolved": p.id, "as": p.verdict}


def _wake(app: HubApp) -> None:
    if app.worker is not None:
        app.worker.wake()


async def _list_events(hub: Hub, p: Limit, report: Report) -> Json:
    return {"events": await views.events(_app(hub).store, p.limit)}


async def _reread(hub: Hub, p: OneName, report: Report) -> Json:
    read, left = await _app(hub).reread(p.name)
    return {"connection": p.name, "read": read, "still_unread": left, "failed": left > 0}


async def _list_connections(hub: Hub, p: Nothing, report: Report) -> Json:
    return {"connections": await views.connections(_app(hub).store)}


async def _check_connection(hub: Hub, p: OneName, report: Report) -> Json:
    connection = _app(hub).connections.get(p.name)
    if connection is None:
        raise NotFound(f"không có kết nối '{p.name}' / no connection '{p.name}'")
    if connection.check is None:
        return {"steps": [], "ok": True}
    steps: list[Json] = []
    async for step in connection.check():
        steps.append({"step": step.step, "ok": step.ok, "detail": step.detail})
        report(steps[-1])
    ok = all(s["ok"] for s in steps)
    return {"steps": steps, "ok": ok, "failed": not ok}


def _pauser(by: str | None) -> Callable[[Hub, Any, Report], Awaitable[Json]]:
    async def run(hub: Hub, p: Any, report: Report) -> Json:
        app = _app(hub)
        now = to_us(app.now())
        found = [
            kind
            for kind in ("connection", "destination")
            if await app.store.pause(kind, p.name, by, getattr(p, "reason", ""), now)
        ]
        if not found:
            raise NotFound(f"không có kết nối hay điểm đến '{p.name}' / no connection or destination '{p.name}'")
        _wake(app)
        return {"name": p.name, "state": "paused" if by else "open"}

    return run


async def _repairs(hub: Hub, p: Nothing, report: Report) -> Json:
    return {"repairs": await views.repairs(_app(hub).store)}


async def _sync(hub: Hub, p: OneName, report: Report) -> Json:
    return {"name": p.name, "due": await _app(hub).pull_now(p.name)}


async def _runs(hub: Hub, p: Limit, report: Report) -> Json:
    return {"runs": await views.runs(_app(hub).store, p.limit), "batches": await views.batches(_app(hub).store)}


async def _batches(hub: Hub, p: Limit, report: Report) -> Json:
    return {"batches": (await views.batches(_app(hub).store))[: p.limit]}


async def _show_batch(hub: Hub, p: OneBatch, report: Report) -> Json:
    found = await hub.batch(UUID(bytes=views.parse_id(p.id)))
    if found is None:
        raise NotFound(f"không có đợt {p.id} / no batch {p.id}")
    return found


async def _stop_batch(hub: Hub, p: OneBatch, report: Report) -> Json:
    if not await hub.stop_batch(UUID(bytes=views.parse_id(p.id))):
        raise NotFound(f"không có đợt {p.id} / no batch {p.id}")
    return await _show_batch(hub, p, report)


async def _prune(hub: Hub, p: Prune, report: Report) -> Json:
    app = _app(hub)
    pruner = Pruner(app.store, Rules.of(app.config, app.router), app.clock)
    rows = await (pruner.would_go() if p.dry_run else pruner.one_pass())
    return {
        "dry_run": p.dry_run,
        "history_kept_from": pruner.kept_from().isoformat(),
        "tables": [{"table": table, "rows": count} for table, count in sorted(rows.items()) if count],
    }


async def _reload(hub: Hub, p: Nothing, report: Report) -> Json:
    return await _app(hub).reload()


async def _nodes(hub: Hub, p: Nothing, report: Report) -> Json:
    return {"nodes": await views.nodes(_app(hub).store)}


async def _release(hub: Hub, p: Nothing, report: Report) -> Json:
    app = _app(hub)
    was = await app.store.held()
    await app.store.hold(None)
    _wake(app)
    return {"was_held": was}


COMMANDS: tuple[Command, ...] = (
    Command(
        group="deliveries", name="list", params=ListDeliveries, run=_list_deliveries, writes=False,
        help_vi="Liệt kê lượt gửi, mới nhất trước", help_en="List deliveries, newest first",
    ),
    Command(
        group="deliveries", name="show", params=OneId, run=_show_delivery, writes=False,
        help_vi="Xem một lượt gửi và các lần thử", help_en="Show one delivery and its attempts",
    ),
    Command(
        group="deliveries", name="replay", params=Replay, run=_replay,
        help_vi="Gửi lại một lượt đã kết thúc, hoặc mọi lượt dừng vì một lý do",
        help_en="Send a settled delivery once more, or all that stopped for one reason",
        rest=Rest(method="POST", path="/deliveries/{id}/replay", scope="deliveries:write"),
    ),
    Command(
        group="deliveries", name="resolve", params=Resolve, run=_resolve,
        help_vi="Xử lý kết quả một lượt 'không rõ'", help_en="Say what became of an unknown delivery",
        rest=Rest(method="POST", path="/deliveries/{id}/resolve", scope="deliveries:write"),
    ),
    Command(
        group="events", name="list", params=Limit, run=_list_events, writes=False,
        help_vi="Liệt kê sự kiện, mới nhất trước", help_en="List events, newest first",
    ),
    Command(
        group="events", name="reread", params=OneName, run=_reread,
        help_vi="Đọc lại các yêu cầu đã giữ vì chưa đọc được", help_en="Read again what was kept because nobody could",
        rest=Rest(method="POST", path="/connections/{name}/reread", scope="connections:write"),
    ),
    Command(
        group="connections", name="list", params=Nothing, run=_list_connections, writes=False,
        help_vi="Liệt kê kết nối và số lượt gửi", help_en="List connections and their counts",
    ),
    Command(
        group="connections", name="check", params=OneName, run=_check_connection, writes=False,
        help_vi="Thử kết nối: DNS, TCP, TLS, đăng nhập", help_en="Try a connection: DNS, TCP, TLS, login",
    ),
    Command(
        group="connections", name="pause", params=Pause, run=_pauser("operator"),
        help_vi="Tạm dừng; các lượt gửi được giữ lại", help_en="Pause; deliveries are held",
        rest=Rest(method="POST", path="/connections/{name}/pause", scope="connections:write"),
    ),
    Command(
        group="connections", name="resume", params=OneName, run=_pauser(None),
        help_vi="Chạy tiếp", help_en="Resume",
        rest=Rest(method="POST", path="/connections/{name}/resume", scope="connections:write"),
    ),
    Command(
        group="repairs", name="list", params=Nothing, run=_repairs, writes=False,
        help_vi="Việc cần xử lý", help_en="What needs a person",
    ),
    Command(
        group="sync", name="run", params=OneName, run=_sync,
        help_vi="Đọc nguồn ngay, không đợi lịch", help_en="Pull a source now",
        rest=Rest(method="POST", path="/connections/{name}/pull", scope="connections:write"),
    ),
    Command(
        group="sync", name="list", params=Limit, run=_runs, writes=False,
        help_vi="Các lượt chạy và đợt gửi gần đây", help_en="Recent runs and batches",
    ),
    Command(
        group="batches", name="list", params=Limit, run=_batches, writes=False,
        help_vi="Liệt kê các đợt, mới nhất trước", help_en="List batches, newest first",
    ),
    Command(
        group="batches", name="show", params=OneBatch, run=_show_batch, writes=False,
        help_vi="Một đợt đã tới đâu: đếm theo trạng thái và lý do",
        help_en="How far a batch is: counts by state and reason",
    ),
    Command(
        group="batches", name="stop", params=OneBatch, run=_stop_batch,
        help_vi="Dừng hẳn một đợt: lượt chưa gửi được hủy",
        help_en="Stop a batch for good: what was not sent is cancelled",
    ),
    Command(
        group="db", name="prune", params=Prune, run=_prune,
        help_vi="Xóa lịch sử đã quá thời hạn lưu, ngay bây giờ", help_en="Delete history past its retention, now",
    ),
    Command(
        group="", name="nodes", params=Nothing, run=_nodes, writes=False,
        help_vi="Các nút đang dùng chung sổ cái PostgreSQL", help_en="The nodes that share a ledger on PostgreSQL",
    ),
    Command(
        group="", name="reload", params=Nothing, run=_reload,
        help_vi="Đọc lại kết nối và đăng ký từ tệp cấu hình, không dừng hub",
        help_en="Read connections and subscriptions from their files again, without a stop",
    ),
    Command(
        group="", name="release", params=Nothing, run=_release,
        help_vi="Cho gửi tiếp sau khi phục hồi hoặc chép máy", help_en="Send again after a restore or a copy",
    ),
)  # fmt: skip
