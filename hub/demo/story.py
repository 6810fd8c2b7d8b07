"""The story itself, told while it happens: import, campaign, documents, partners, a crash, and the count."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from hub.demo.balance import Balance, balance
from hub.demo.stage import DemoFailed, Stage

#: Deliveries that must be in someone's hands when the hub is killed.
MARK = 50
QUESTIONS = 12
PUSH_TITLE = "Tết sum vầy 2027"
SHORT_TEXT = "CD Thai Nguyen: doan vien dang ky ve xe Tet truoc 10/01/2027 tai cong doan co so. Tran trong."
LONG_TEXT = (
    "Công đoàn Thái Nguyên: từ ngày 01/12/2026 đoàn viên được khám sức khỏe miễn phí tại Bệnh viện A."
    " Mang theo thẻ đoàn viên và căn cước khi đến khám."
)

_HEADS = (
    "SELECT count(*) FROM queue q JOIN destination d ON d.id = q.destination WHERE d.paused_by IS NULL AND ("
    "q.state IN ('pending', 'leased', 'sending') OR (q.state = 'accepted') OR (q.state = 'waiting' AND NOT EXISTS"
    " (SELECT 1 FROM queue h WHERE h.destination = q.destination AND h.order_key = q.order_key"
    " AND h.state = 'unknown')))"
)
_OPEN_RUNS = "SELECT count(*) FROM run WHERE state IN ('due', 'running') AND kind = 'fan_out'"


class Story:
    """One telling. Each chapter raises ``DemoFailed`` when a promise does not hold."""

    def __init__(self, stage: Stage, seed: int, console: Console) -> None:
        self.stage = stage
        self.seed = seed
        self.console = console
        self._chapter = 0
        self._started = time.monotonic()
        self.expected: dict[str, Any] = {}
        self.killed: dict[str, int] = {}

    def tell(self) -> None:
        self.open()
        self.members()
        self.again()
        self.first_campaign()
        self.questions()
        self.documents()
        self.crash()
        self.second_half()

    # -- chapters ----------------------------------------------------------------------------------

    def open(self) -> None:
        self._title("Mở: đối tác mô phỏng và hub", "Opening: simulated partners and the hub")
        stage = self.stage
        stage.start_simulators(self.seed)
        # One partner is down for the first half, one is gone for good, one is slow.
        stage.simulators["partner"].control(
            endpoints={
                "bhxh-tinh": {"down": True},
                "ban-quan-ly-kcn": {"status": 410},
                "bao-thai-nguyen": {"slow_ms": 300},
            }
        )
        stage.simulators["telecom_sms"].control(undeliv_share=0.03, early_receipt_share=0.1)
        stage.start_hub()
        self._say(f"Trang vận hành / console: [bold]{stage.url}[/bold]")

    def members(self) -> None:
        self._title("Danh sách Excel của công đoàn cơ sở", "An Excel list from a grassroots union")
        self.expected = self._make_list("list.xlsx")
        answer = self.stage.command(
            "members", "import", str(self.stage.folder / "list.xlsx"), "--report", str(self.stage.folder / "loi.xlsx")
        )
        self._expect("đoàn viên mới / created", answer["created"], self.expected["created"])
        self._expect("dòng sai / bad rows", answer["bad_rows"], self.expected["bad_rows"])
        self._say(
            f"{answer['created']} đoàn viên, {answer['duplicates']} dòng trùng, {answer['bad_rows']} dòng sai,"
            " xem loi.xlsx / members, duplicates, bad rows: see loi.xlsx"
        )

    def first_campaign(self) -> None:
        self._title("Đợt gửi tin thứ nhất: ứng dụng, còn lại SMS", "First campaign: app first, SMS for the others")
        self._announce("tet-2027", SHORT_TEXT)
        made = self.stage.wait(lambda: self._batches() >= 1, 30, "fan-out")
        self._say(f"{made and self._counts('c-thainguyen', 'sms-demo')}")

    def questions(self) -> None:
        self._title("Công nhân hỏi qua C-ThaiNguyen", "Workers ask through C-ThaiNguyen")
        app = self.stage.simulators["citizen_app"]
        app.control(ask={"count": QUESTIONS, "repeat": 2, "changed": 1, "stale": 1})
        expected = {"202": QUESTIONS + 2, "409": 1, "401": 1}
        self.stage.wait(lambda: self._answers() == expected, 30, f"answers {expected} (got {self._answers()})")
        stored = self.stage.query("SELECT count(*) FROM event WHERE type = 'vn.congdoan.question.asked.v1'")[0][0]
        self._expect("câu hỏi lưu / questions stored", stored, QUESTIONS)
        self._say(f"{QUESTIONS} câu hỏi; gửi trùng: nhận một lần; nội dung khác: 409; sai giờ: 401")

    def documents(self) -> None:
        self._title("Văn bản từ trục liên thông", "Documents from the document axis")
        self.stage.wait(
            lambda: self.stage.query("SELECT count(*) FROM event WHERE type LIKE 'vn.congdoan.document.received%'")[0][0]
            >= self.stage.simulators["doc_axis"].ready["documents"],
            40,
            "documents",
        )
        self._say(f"{self.stage.simulators['doc_axis'].ready['documents']} văn bản đã nhận / documents received")

    def crash(self) -> None:
        self._title("Mất điện giữa lúc đang gửi (SIGKILL)", "The hub is killed while sending (SIGKILL)")
        for simulator in self.stage.simulators.values():
            simulator.control(withhold=True)
        self._announce("kham-suc-khoe", LONG_TEXT)
        self.stage.wait(self._mark_reached, 60, f"{MARK} deliveries in hand and an SMS in flight")
        self.stage.kill_hub()
        rows = dict(
            self.stage.query("SELECT state, count(*) FROM queue WHERE state IN ('leased', 'sending') GROUP BY state")
        )
        flying = self.stage.query("SELECT count(*) FROM queue WHERE state = 'sending' AND destination = 'sms-demo'")
        self.killed = {"leased": rows.get("leased", 0), "sending": rows.get("sending", 0), "sms": flying[0][0]}
        self._say(
            f"Lúc bị ngắt / when killed: leased {self.killed['leased']}, sending {self.killed['sending']},"
            f" SMS đang bay / SMS in flight {self.killed['sms']}"
        )
        for simulator in self.stage.simulators.values():
            simulator.control(withhold=False)
        self.stage.start_hub()
        self._say("Hub đã chạy lại, tiếp tục từ sổ cái / restarted, going on from the ledger")

    def second_half(self) -> None:
        self._title("Nửa sau: bên bị ngắt hoạt động lại", "Second half: the partner that was down is back")
        self.stage.simulators["partner"].control(endpoints={"bhxh-tinh": {"down": False}})
        self._wait_settled(150)

    def again(self) -> None:
        self._title("Nhập lại cùng danh sách, rồi sửa một ô", "The same list again, then one edited cell")
        before = self._member_events()
        self._make_list("lai.xlsx", "--shuffle")
        answer = self.stage.command("members", "import", str(self.stage.folder / "lai.xlsx"))
        self._expect("thay đổi / changes", answer["created"] + answer["updated"], 0)
        self._expect("sự kiện mới / new events", self._member_events() - before, 0)
        self._make_list("sua.xlsx", "--edit", "5")
        self.stage.command("members", "import", str(self.stage.folder / "sua.xlsx"))
        self._expect("sự kiện sau khi sửa một ô / events after one edit", self._member_events() - before, 1)
        self._say("Cùng dữ liệu, thứ tự khác: 0 sự kiện. Sửa một ô: đúng 1 sự kiện.")

    # -- small steps -------------------------------------------------------------------------------

    def _announce(self, name: str, text: str) -> None:
        self.stage.command("campaigns", "announce", name, "--title", PUSH_TITLE, "--text", text)

    def _make_list(self, name: str, *options: str) -> dict[str, Any]:
        target = self.stage.folder / name
        expected = target.with_suffix(".json")
        subprocess.run(
            [sys.executable, "-m", "plugins.members.simulator", "--seed", str(self.seed), "--out", str(target),
             "--expected", str(expected), *options],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(expected.read_text())
        return answer

    def _mark_reached(self) -> bool:
        leased, sms = self.stage.query(
            "SELECT count(*), count(*) FILTER (WHERE state = 'sending' AND destination = 'sms-demo') FROM queue"
            " WHERE state IN ('leased', 'sending')"
        )[0]
        in_flight = self.stage.simulators["telecom_sms"].control().get("in_flight", 0)
        return bool(leased >= MARK and sms >= 1 and in_flight >= 1)

    def _answers(self) -> dict[str, int]:
        answers: dict[str, int] = self.stage.simulators["citizen_app"].control().get("answers", {})
        return answers

    def _batches(self) -> int:
        return int(self.stage.query("SELECT count(*) FROM batch WHERE state = 'done'")[0][0])

    def _member_events(self) -> int:
        return int(self.stage.query("SELECT count(*) FROM event WHERE type LIKE 'vn.congdoan.member.%'")[0][0])

    def _counts(self, *destinations: str) -> str:
        parts = []
        for name in destinations:
            owed = self.stage.query("SELECT coalesce(sum(count), 0) FROM tally WHERE destination = ?", name)[0][0]
            parts.append(f"{name}: {owed} lượt gửi")
        unreachable = self.stage.query("SELECT coalesce(sum(unreachable), 0) FROM batch")[0][0]
        return ", ".join(parts) + f"; không có kênh nào / unreachable: {unreachable}"

    def _wait_settled(self, within_s: float) -> None:
        """Nothing to come but what a switched-off destination or an unknown head holds."""
        shown = [-1]

        def settled() -> bool:
            left = self.stage.query(_HEADS)[0][0] + self.stage.query(_OPEN_RUNS)[0][0]
            if left != shown[0] and (shown[0] < 0 or abs(left - shown[0]) > 200 or left == 0):
                self._say(f"còn {left} / {left} left")
                shown[0] = left
            return bool(left == 0)

        self.stage.wait(settled, within_s, "ledger to settle", every_s=0.2)

    def _expect(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            raise DemoFailed(f"{what}: {found}, expected {expected}")

    def _title(self, vi: str, en: str) -> None:
        self._chapter += 1
        self.console.print(f"\n[bold]{self._chapter}. {vi}[/bold]  [dim]{en}[/dim]")

    def _say(self, text: str) -> None:
        self.console.print(f"   [dim]{time.monotonic() - self._started:5.1f}s[/dim]  {text}")


def run_demo(*, once: bool, seed: int, folder: Path | None, port: int) -> int:
    """Tells the story; exit code 0 only when the ledger balances."""
    console = Console(highlight=False, soft_wrap=True)
    scratch = folder or Path(tempfile.mkdtemp(prefix="unionhub-demo-"))
    if scratch.exists() and any(scratch.iterdir()):
        console.print(f"Thư mục {scratch} không trống; chọn thư mục khác / the folder is not empty: choose another one")
        return 2
    scratch.mkdir(parents=True, exist_ok=True)
    stage = Stage(scratch, port, secrets.token_bytes(16))
    try:
        story = Story(stage, seed, console)
        story.tell()
        if not once:
            _stay(stage, console)
        took = stage.stop_hub()
        for simulator in stage.simulators.values():
            simulator.stop()
        result = balance(stage, took)
        result.print(console, story.killed)
        return _end(result, scratch if folder is None and once else None)
    except (DemoFailed, KeyboardInterrupt) as error:
        console.print(f"\n[bold red]Không xong / failed:[/bold red] {error or 'Ctrl-C'}")
        console.print(f"Xem / look into: {scratch}/hub.log")
        return 1
    finally:
        stage.close()


def _stay(stage: Stage, console: Console) -> None:
    console.print(f"\nXem trực tiếp tại [bold]{stage.url}[/bold]; nhấn Ctrl-C để dừng / press Ctrl-C to stop")
    try:
        while True:
            time.sleep(0.5)
            stage.hub_died()
    except KeyboardInterrupt:
        console.print()


def _end(result: Balance, scratch: Path | None) -> int:
    if result.balanced and scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if result.balanced else 1
