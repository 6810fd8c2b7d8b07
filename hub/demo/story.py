"""The story itself, told while it happens: import, campaign, documents, partners, a crash, and the count."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from hub import log
from hub.clock import system_clock
from hub.demo import summary
from hub.demo.balance import Balance, balance
from hub.demo.outside import Outside
from hub.demo.stage import Books, DemoFailed, Stage
from hub.demo.summary import vi
from hub.signing import parse_secret, sign

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
#: Seconds between lines of progress where there is no terminal.
_TELL_EVERY_S = 2.0
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

    def tell(self, wanted_port: int) -> None:
        self.open(wanted_port)
        self.members()
        self.again()
        self.first_campaign()
        self.questions()
        self.documents()
        self.crash()
        self.second_half()
        self.look_around()

    # -- chapters ----------------------------------------------------------------------------------

    def open(self, wanted_port: int) -> None:
        self._title("Hub và các bên mô phỏng khởi động", "The hub and the simulated partners start")
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
        if wanted_port not in (0, stage.port):
            self._say(
                f"Cổng {wanted_port} đang có chương trình khác dùng, hub lấy cổng {stage.port}",
                f"port {wanted_port} is taken, the hub uses {stage.port}",
            )
        self._say(f"Trang vận hành / console: [bold]{stage.url}[/bold]")
        self._say(
            "BHXH tỉnh đang mất kết nối, ban quản lý KCN trả lời 410 (thôi nhận), báo Thái Nguyên trả lời chậm",
            "one partner is down, one answers 410 (gone), one is slow",
        )

    def members(self) -> None:
        self._title("Nhập danh sách Excel của công đoàn cơ sở", "A list from grassroots unions is imported")
        self.expected = self._make_list("list.xlsx")
        answer = self.stage.command(
            "members", "import", str(self.stage.folder / "list.xlsx"), "--report", str(self.stage.folder / "loi.xlsx")
        )
        self._expect("đoàn viên mới / created", answer["created"], self.expected["created"])
        self._expect("dòng cần sửa / rows to correct", answer["bad_rows"], self.expected["bad_rows"])
        self._say(
            f"{vi(answer['created'])} đoàn viên mới, {vi(answer['duplicates'])} dòng trùng,"
            f" {vi(answer['bad_rows'])} dòng cần sửa, lý do ghi ở từng dòng trong loi.xlsx",
            f"{answer['created']} members, {answer['duplicates']} duplicates, {answer['bad_rows']} rows to correct",
        )

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
        self._say(
            "Cùng dữ liệu, khác thứ tự và tên tệp: không có sự kiện mới. Sửa một ô: đúng một sự kiện",
            "the same rows in another order: no event; one edited cell: one event",
        )

    def first_campaign(self) -> None:
        self._title(
            "Đợt gửi tin thứ nhất: có ứng dụng thì gửi vào ứng dụng, còn lại gửi SMS",
            "The first campaign: to the app where there is one, else by SMS",
        )
        self._announce("tet-2027", SHORT_TEXT)
        self.stage.wait(lambda: self._batches() >= 1, 30, "fan-out")
        app, sms = self._owed("c-thainguyen"), self._owed("sms-demo")
        unreachable = self.stage.query("SELECT coalesce(sum(unreachable), 0) FROM batch")[0][0]
        self._say(
            f"{vi(app)} lượt gửi vào ứng dụng, {vi(sms)} lượt SMS, {vi(unreachable)} người không có kênh nào",
            f"{app} to the app, {sms} by SMS, {unreachable} people unreachable",
        )

    def questions(self) -> None:
        self._title("Công nhân hỏi công đoàn qua C-ThaiNguyen", "Workers ask the union through C-ThaiNguyen")
        app = self.stage.simulators["citizen_app"]
        app.control(ask={"count": QUESTIONS, "repeat": 2, "changed": 1, "stale": 1})
        expected = {"202": QUESTIONS + 2, "409": 1, "401": 1}
        self.stage.wait(lambda: self._answers() == expected, 30, f"answers {expected} (got {self._answers()})")
        stored = self.stage.query("SELECT count(*) FROM event WHERE type = 'vn.congdoan.question.asked.v1'")[0][0]
        self._expect("câu hỏi lưu / questions stored", stored, QUESTIONS)
        self._say(
            f"{QUESTIONS} câu hỏi đã lưu. Gửi trùng: lưu một lần. Cùng mã, khác nội dung: 409. Chữ ký quá hạn: 401",
            f"{QUESTIONS} stored; a repeat: once; the same id, another body: 409; an old signature: 401",
        )
        self._expect("nội dung lạ / an unknown body", self._post(json.dumps(self._rating()).encode()), 202)
        self._say(
            "Một nội dung ký đúng mà chưa đọc được: giữ lại, thêm một việc cần xử lý",
            "a genuine body that no mapping reads: kept, one thing to do",
        )

    def documents(self) -> None:
        self._title("Văn bản đến từ trục liên thông", "Documents from the axis")
        count = self.stage.simulators["doc_axis"].ready["documents"]
        received = "SELECT count(*) FROM event WHERE type = 'vn.congdoan.document.received.v1'"
        self.stage.wait(lambda: self.stage.query(received)[0][0] >= count, 40, "documents")
        self._say(
            f"{vi(count)} văn bản đã nhận, trạng thái 01 và 03 được gửi trả về trục",
            f"{count} received; their status 01 and 03 goes back",
        )

    def crash(self) -> None:
        self._title("Hub bị tắt đột ngột (SIGKILL) giữa lúc đang gửi", "The hub is killed while it is sending")
        for simulator in self.stage.simulators.values():
            simulator.control(withhold=True)
        self._announce("kham-suc-khoe", LONG_TEXT)
        self.stage.wait(self._mark_reached, 60, f"{MARK} deliveries in hand and an SMS in flight")
        self.stage.kill_hub()
        self.killed = in_hand(self.stage.books)
        leased, sending, sms = self.killed.values()
        there, where = ("cơ sở dữ liệu", "database") if self.stage.books.database_url else ("tệp dữ liệu", "file")
        self._say(
            f"Trong {there} lúc đó: {leased} lượt đã nhận việc, {sending} lượt đang gửi, {sms} trong số đó là SMS",
            f"in the {where} then: {leased} leased, {sending} sending, {sms} of them SMS",
        )
        for simulator in self.stage.simulators.values():
            simulator.control(withhold=False)
        self.stage.start_hub()
        self._say(
            "Hub chạy lại và làm tiếp từ sổ cái; SMS chưa có trả lời thì không gửi lại",
            "restarted, it goes on from the ledger; an SMS without an answer is not sent again",
        )

    def second_half(self) -> None:
        self._title("BHXH tỉnh có kết nối lại, hub gửi bù", "The partner that was down is back and catches up")
        self.stage.simulators["partner"].control(endpoints={"bhxh-tinh": {"down": False}})
        self._wait_settled(150)
        held = self._owed("ban-quan-ly-kcn")
        self._say(
            f"Mọi lượt gửi đã xong; {vi(held)} lượt của ban quản lý KCN được giữ lại đến khi có người xử lý",
            f"all settled; {held} for the partner that is gone are held for a person",
        )

    def look_around(self) -> None:
        """Looks at everything a visitor sees, for the search after the end: nobody may be readable there."""
        planted = self.expected["canaries"]
        phone = planted["phone"].replace("+84", "0")
        for path in ("/", "/deliveries", "/deliveries?state=unknown", "/deliveries?state=dead", "/deliveries.csv",
                     "/events", "/metrics", "/readyz", "/api/v1/deliveries?limit=1000", "/api/v1/events?limit=1000",
                     "/api/v1/connections", "/api/v1/repairs"):  # fmt: skip
            self._expect(path, self.stage.visit(path), 200)
        for (delivery,) in self.stage.query(
            "SELECT id FROM queue WHERE state = 'unknown' UNION ALL"
            " SELECT id FROM (SELECT id FROM delivery WHERE destination = 'sms-demo' ORDER BY id DESC LIMIT 3) d"
        ):
            self._expect("delivery", self.stage.visit(f"/deliveries/{delivery.hex()}"), 200)
        for path in (
            f"/api/v1/deliveries?destination={phone}",
            f"/api/v1/deliveries/{phone}",
            f"/in/{phone}",
            f"/{phone}",
        ):
            self.stage.visit(path)
        for body in (
            json.dumps(planted, ensure_ascii=False).encode()[:-1],
            b"{" + phone.encode(),
            b"\xff" + phone.encode(),
        ):
            self._expect(
                "unsigned", self.stage.visit("/in/c-thainguyen", body, {"Content-Type": "application/json"}), 401
            )
            self._expect("not JSON", self._post(body), 400)

    # -- small steps -------------------------------------------------------------------------------

    def _announce(self, name: str, text: str) -> None:
        self.stage.command("campaigns", "announce", name, "--title", PUSH_TITLE, "--text", text)

    def _rating(self) -> dict[str, Any]:
        """What the app may send one day, about the person whose data must not be readable anywhere."""
        planted = self.expected["canaries"]
        return {"type": "rating", "stars": 5, "worker": {"name": planted["name"], "phone": planted["phone"]}}

    def _post(self, body: bytes) -> int:
        """Sends ``body`` as the citizen app would, rightly signed; answers the status."""
        secret = (self.stage.books.config.folder / "secrets" / "simulator-app-webhook").read_text().strip()
        now = int(system_clock().timestamp())
        id = f"msg_{len(body)}_{now}"
        headers = {"webhook-id": id, "webhook-timestamp": str(now), "Content-Type": "application/json"}
        headers["webhook-signature"] = sign(parse_secret(secret), id, now, body)
        return self.stage.visit("/in/c-thainguyen", body, headers)

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

    def _owed(self, destination: str) -> int:
        counted = "SELECT coalesce(sum(count), 0) FROM tally WHERE destination = ?"
        return int(self.stage.query(counted, destination)[0][0])

    def _wait_settled(self, within_s: float) -> None:
        """Nothing to come but what a switched-off destination or an unknown head holds."""
        spinner = self.console.status("")
        told = time.monotonic()

        def settled() -> bool:
            nonlocal told
            left = self.stage.query(_HEADS)[0][0] + self.stage.query(_OPEN_RUNS)[0][0]
            words = f"Còn {vi(left)} lượt", f"{left} left"
            spinner.update(f"{words[0]} / {words[1]}")
            # Where nothing can be overwritten, a line now and then.
            if left and not self.console.is_terminal and time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                self._say(*words)
            return bool(left == 0)

        with spinner:
            self.stage.wait(settled, within_s, "ledger to settle", every_s=0.2)

    def _expect(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            raise DemoFailed(f"{what}: {found}, expected {expected}")

    def _title(self, vietnamese: str, english: str) -> None:
        self._chapter += 1
        self.console.print(f"\n[bold]{self._chapter}. {vietnamese}[/bold]\n   [dim]{english}[/dim]")

    def _say(self, vietnamese: str, english: str = "") -> None:
        took = time.monotonic() - self._started
        below = f"\n           [dim]{english}[/dim]" if english else ""
        self.console.print(f"   [cyan]{took:5.1f}s[/cyan]  {vietnamese}{below}")


def in_hand(books: Books) -> dict[str, int]:
    """What the ledger holds after a kill: deliveries leased, sending, and SMS among the latter.

    Raises ``DemoFailed`` when that is too little for the crash to prove anything.
    """
    ((leased, sending, sms),) = books.query(
        "SELECT count(*) FILTER (WHERE state = 'leased'), count(*) FILTER (WHERE state = 'sending'),"
        " count(*) FILTER (WHERE state = 'sending' AND destination = 'sms-demo') FROM queue"
    )
    if leased + sending < MARK or sms < 1:
        raise DemoFailed(
            f"lúc bị tắt chỉ có {leased} + {sending} lượt và {sms} SMS, cần ít nhất {MARK} và 1"
            f" / killed with {leased} + {sending} in hand and {sms} SMS, at least {MARK} and 1 are needed"
        )
    return {"leased": leased, "sending": sending, "sms": sms}


def run_demo(*, once: bool, seed: int, folder: Path | None, port: int, database_url: str = "") -> int:
    """Tells the story; exit code 0 only when the ledger balances.

    Args:
        database_url: an empty PostgreSQL database instead of a file; what is told stays there.

    Raises: ConfigError when that database cannot be used.
    """
    console = Console(highlight=False, soft_wrap=True)
    if database_url and not Outside(Path(), database_url).is_empty():
        console.print(
            "cơ sở dữ liệu đã có dữ liệu, không ghi gì vào đó; hãy tạo một cơ sở dữ liệu trống bằng lệnh createdb"
            " / the database is not empty and nothing was written to it; create an empty one with createdb"
        )
        return 2
    scratch = folder or Path(tempfile.mkdtemp(prefix="unionhub-demo-"))
    if scratch.exists() and (not scratch.is_dir() or any(scratch.iterdir())):
        console.print(
            f"{scratch} đã có nội dung; hãy chọn thư mục khác / {scratch} is not empty: choose another folder"
        )
        return 2
    scratch.mkdir(parents=True, exist_ok=True)
    # Whoever stops us stops what we started too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stage = Stage(scratch, port, database_url)
    try:
        story = Story(stage, seed, console)
        story.tell(port)
        if not once:
            _stay(stage, console)
        took = stage.stop_hub()
        stage.stop_simulators()
        with (scratch / "balance.log").open("wb") as lines:
            log.configure(lines)
            result = balance(stage.books, took)
        summary.show(result, console, story.killed)
        return _end(result, scratch if folder is None and once else None)
    except DemoFailed as error:
        console.print(f"\n[bold red]Không xong / failed:[/bold red] {error}")
        console.print(f"Xem {stage.books.hub_log} / see {stage.books.hub_log}")
        return 1
    except KeyboardInterrupt:
        console.print("\nĐã dừng giữa chừng, chưa đối chiếu / stopped half-way, nothing was compared")
        return 130
    finally:
        stage.close()


def _stay(stage: Stage, console: Console) -> None:
    console.print(
        f"\nXem trực tiếp tại [bold]{stage.url}[/bold]. Nhấn Ctrl-C để dừng và đối chiếu"
        f" / look at [bold]{stage.url}[/bold]; Ctrl-C stops and compares"
    )
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
