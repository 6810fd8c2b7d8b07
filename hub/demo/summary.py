"""The last words of the demo: one line per connection, what is not known, and whether it balances."""

from __future__ import annotations

from collections.abc import Mapping

import rich.box
from rich.console import Console
from rich.table import Table

from hub.demo.balance import Balance

#: A narrower terminal folds columns beyond recognition; the lines wrap instead.
_WIDTH = 148
_COLUMNS = (
    ("kết nối", "connection"), ("sự kiện vào", "events in"), ("phải gửi", "owed"), ("tới nơi", "delivered"),
    ("tiếp nhận", "accepted"), ("dừng gửi", "dead"), ("không rõ", "unknown"), ("đã hủy", "cancelled"),
    ("còn giữ", "held"), ("lần thử", "attempts"), ("gửi lặp", "repeats"), ("p50", "ms"), ("p99", "ms"),
)  # fmt: skip


def vi(number: int) -> str:
    """1.234, as offices write it."""
    return f"{number:,}".replace(",", ".")


def show(result: Balance, console: Console, killed: Mapping[str, int]) -> None:
    """Prints everything; ``killed`` is what the ledger held when the hub was killed."""
    Console(file=console.file, width=max(console.width, _WIDTH), highlight=False).print(_table(result))
    reached = result.subjects - result.unreachable
    console.print(
        f"Đợt gửi: {vi(result.subjects)} người = {vi(reached)} có lượt gửi + {vi(result.unreachable)} không có kênh nào"
        f" / campaigns: {result.subjects} people = {reached} with a delivery + {result.unreachable} unreachable"
    )
    console.print(
        f"Lúc bị tắt đột ngột: {killed['leased']} đã nhận việc + {killed['sending']} đang gửi, trong đó"
        f" {killed['sms']} SMS / when killed: {killed['leased']} leased + {killed['sending']} sending,"
        f" {killed['sms']} of them SMS"
    )
    console.print(
        f"Dừng theo lệnh (SIGTERM) trong {f'{result.stopped_in_s:.1f}'.replace('.', ',')} giây"
        f" / stopped by SIGTERM within {result.stopped_in_s:.1f} s"
    )
    if result.unknowns:
        console.print(
            f"{len(result.unknowns)} lượt không rõ kết quả, không lượt nào được tự gửi lại; sổ của bên nhận cho biết:"
            f" / {len(result.unknowns)} unknown, none was sent again; the partner's own log says:"
        )
    for delivery, connection, fate in result.unknowns:
        console.print(f"  {delivery}  {connection}  {_FATES[fate]} / {fate}")
    for fault in result.faults:
        console.print(f"[bold red]{fault}[/bold red]")
    if result.balanced:
        console.print(
            "[bold green]Sổ cái cân: không mất gì, không SMS nào gửi hai lần"
            " / the ledger balances: nothing lost, no SMS sent twice[/bold green]"
        )
    else:
        count = len(result.faults)
        console.print(f"[bold red]Sổ cái KHÔNG cân: {count} chỗ / the ledger does NOT balance: {count}[/bold red]")


_FATES = {"taken": "đã nhận", "not taken": "chưa nhận", "partly taken": "nhận một phần"}


def _table(result: Balance) -> Table:
    table = Table(
        title="\nSổ cái so với nhật ký của từng bên / the ledger beside the partners' own logs",
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for number, (name, english) in enumerate(_COLUMNS):
        table.add_column(f"{name}\n[dim]{english}[/dim]", justify="right" if number else "left", no_wrap=True)
    for name in sorted(result.rows):
        r = result.rows[name]
        s = r.states
        counts = (r.events_in, r.owed, s["delivered"], s["accepted"], s["dead"], s["unknown"], s["cancelled"], r.held,
                  r.attempts, r.repeats)  # fmt: skip
        table.add_row(name, *map(vi, counts), f"{r.p50_ms:.0f}", f"{r.p99_ms:.0f}")
    return table
