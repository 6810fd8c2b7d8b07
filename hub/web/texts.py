"""The console's words in Vietnamese and English, and how numbers and instants are written in each.

Every text is a pair, so neither language can lack one. Words for codes are in ``hub.web.code_texts``.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from zoneinfo import ZoneInfo

from hub.web import code_texts
from hub.web.code_texts import Pair

LANGUAGES = ("vi", "en")
ZONE = ZoneInfo("Asia/Ho_Chi_Minh")

TEXTS: dict[str, Pair] = {
    "product": ("Union Hub", "Union Hub"),
    "skip": ("Đến nội dung chính", "Skip to content"),
    "sections": ("Các mục", "Sections"),
    "other_language": ("English", "Tiếng Việt"),
    "api": ("Tài liệu API", "API description"),
    "live.on": ("Đang cập nhật trực tiếp", "Updating live"),
    "live.off": ("Mất kết nối với hệ thống, đang nối lại", "Connection to the hub lost, trying again"),
    "live.none": ("Trang không tự cập nhật: hãy tải lại để xem mới.", "This page does not update itself: reload it."),
    "copy": ("Chép", "Copy"),
    "copied": ("Đã chép", "Copied"),
    "none": ("không có", "none"),
    "home.title": ("Tổng quan", "Overview"),
    "home.purpose": (
        "Dữ liệu có đang thông suốt không, và việc gì đang cần người xử lý.",
        "Whether everything is flowing, and what needs a person.",
    ),
    "home.needs": ("Việc cần xử lý: {count}", "Things that need a person: {count}"),
    "home.flowing": ("Mọi thứ đang thông suốt.", "Everything is flowing."),
    "home.flowing_but": (
        "Không có việc cần xử lý. Số điểm đến đang tạm ngắt, hệ thống tự thử lại: {count}.",
        "Nothing needs a person. Destinations left alone for now, the hub tries again by itself: {count}.",
    ),
    "home.totals": (
        "Đang chờ: {open} lượt · đợi báo nhận: {accepted} · đã tới nơi: {delivered} · đã dừng gửi: {dead}",
        "Waiting: {open} · receipt awaited: {accepted} · delivered: {delivered} · given up: {dead}",
    ),
    "repairs.title": ("Việc cần xử lý", "What needs a person"),
    "repairs.none": (
        "Không có việc nào. Khi một kết nối hay lượt gửi cần người quyết định, việc đó hiện ở đây.",
        "Nothing. When a connection or a delivery needs a decision, it appears here.",
    ),
    "repairs.why": ("Vì sao", "Why"),
    "repairs.do": ("Làm gì", "What to do"),
    "repairs.since": ("Từ", "Since"),
    "repairs.see": ("Xem các lượt đang giữ", "See what is kept"),
    "repairs.see_delivery": ("Mở lượt gửi", "Open the delivery"),
    "repairs.see_event": ("Mở sự kiện", "Open the event"),
    "repairs.see_unknown": ("Xem các lượt không rõ kết quả", "See the unknown ones"),
    "connections.title": ("Kết nối", "Connections"),
    "connections.none": (
        "Chưa có kết nối nào. Thêm tệp vào connections/ trong thư mục cấu hình rồi khởi động lại.",
        "No connection yet. Add a file to connections/ in the configuration folder and restart.",
    ),
    "connections.name": ("Điểm đến", "Destination"),
    "connections.state": ("Trạng thái", "State"),
    "connections.day": ("24 giờ qua", "Last 24 hours"),
    "connections.day_text": (
        "24 giờ qua: {good} lượt tới nơi hoặc đã tiếp nhận, {bad} lượt dừng gửi hoặc không rõ kết quả",
        "Last 24 hours: {good} delivered or accepted, {bad} given up or unknown",
    ),
    "connections.day_empty": ("24 giờ qua chưa có lượt nào", "Nothing in the last 24 hours"),
    "connections.more": (
        "Còn {count} điểm đến đang chạy bình thường, không hiện ở đây.",
        "{count} more destinations are running and not shown here.",
    ),
    "connections.handler": ("bộ xử lý trong hệ thống", "handler inside the hub"),
    "connections.receives": ("cổng nhận", "receiver"),
    "connections.reads": ("nguồn đọc", "source"),
    "connections.sends": ("cổng gửi", "sink"),
    "connections.failures": ("{count} lỗi liên tiếp", "{count} failures in a row"),
    "connections.again": ("thử lại {when}", "tries again {when}"),
    "connections.until": ("đến {when}", "until {when}"),
    "connections.run": ("Lượt chạy gần nhất", "Last run"),
    "connections.items": ("{count} mục", "{count} items"),
    "count.open": ("Đang chờ", "Waiting"),
    "count.accepted": ("Tiếp nhận", "Accepted"),
    "count.delivered": ("Tới nơi", "Delivered"),
    "count.unknown": ("Không rõ", "Unknown"),
    "count.dead": ("Dừng gửi", "Given up"),
    "count.cancelled": ("Đã hủy", "Cancelled"),
    "events.title": ("Sự kiện", "Events"),
    "events.newest": ("Sự kiện mới nhất", "Newest events"),
    "events.purpose": (
        "Những gì đã xảy ra và được ghi vào sổ cái, mới nhất trước.",
        "What happened and was written to the ledger, newest first.",
    ),
    "events.none": (
        "Chưa có sự kiện nào. Sự kiện hiện ở đây khi có dữ liệu được nhập, được đọc hay được gửi đến.",
        "No event yet. Events appear here when data is imported, read or received.",
    ),
    "events.type": ("Sự kiện", "Event"),
    "events.source": ("Nguồn", "Source"),
    "events.subject": ("Đối tượng", "Subject"),
    "events.received": ("Ghi lúc", "Recorded"),
    "events.occurred": ("Xảy ra lúc", "Happened"),
    "events.id": ("Mã sự kiện", "Event id"),
    "events.deliveries": ("Các lượt gửi của sự kiện này", "Deliveries of this event"),
    "events.pruned": ("Sự kiện này không còn trong sổ cái.", "This event is no longer in the ledger."),
    "deliveries.title": ("Lượt gửi", "Deliveries"),
    "deliveries.newest": ("Lượt gửi mới nhất", "Newest deliveries"),
    "deliveries.purpose": (
        "Mỗi dòng là một sự kiện phải gửi tới một nơi, mới nhất trước.",
        "Each row is one event owed to one place, newest first.",
    ),
    "deliveries.none": (
        "Chưa có lượt gửi nào. Lượt gửi hiện ở đây khi một sự kiện khớp với một đăng ký nhận.",
        "No delivery yet. Deliveries appear here when an event fits a subscription.",
    ),
    "deliveries.none_such": (
        "Không có lượt gửi nào khớp với bộ lọc này. Bỏ bớt điều kiện để xem nhiều hơn.",
        "No delivery fits this filter. Loosen it to see more.",
    ),
    "deliveries.all": ("Xem tất cả lượt gửi", "See all deliveries"),
    "deliveries.destination": ("Điểm đến", "Destination"),
    "deliveries.recipient": ("Người nhận", "Recipient"),
    "deliveries.state": ("Trạng thái", "State"),
    "deliveries.reason": ("Lý do", "Reason"),
    "deliveries.tries": ("Số lần thử", "Tries"),
    "deliveries.created": ("Tạo lúc", "Created"),
    "deliveries.id": ("Mã", "Id"),
    "deliveries.older": ("Cũ hơn", "Older"),
    "deliveries.first": ("Về trang đầu", "Back to the newest"),
    "deliveries.csv": ("Tải CSV", "Download CSV"),
    "stopped.title": ("Đã dừng gửi", "Given up"),
    "stopped.purpose": (
        "Những lượt gửi đã dừng, gom theo lý do. Sửa nguyên nhân trước, rồi gửi lại cả nhóm.",
        "Deliveries that were given up, by reason. Mend the cause first, then send the whole group again.",
    ),
    "stopped.none": (
        "Không có lượt nào. Lượt gửi hiện ở đây khi đã hết số lần thử hoặc bên nhận từ chối.",
        "None. Deliveries appear here when their tries are spent or the receiver refused them.",
    ),
    "stopped.count": ("Số lượt", "Deliveries"),
    "stopped.replay": ("Gửi lại {count} lượt", "Send {count} again"),
    "stopped.running": ("Đang gửi lại: {done}/{total} lượt", "Being sent again: {done} of {total}"),
    "stopped.ended": (
        "Đã đưa {done}/{total} lượt trở lại hàng đợi, còn {left} lượt",
        "{done} of {total} are owed again, {left} left",
    ),
    "stopped.stop": ("Dừng lại", "Stop"),
    "stopped.by_operator": (
        "Đã dừng theo yêu cầu; phần còn lại vẫn nguyên.",
        "Stopped as asked; the rest is as it was.",
    ),
    "stopped.by_trouble": (
        "Tự dừng vì {what} lại không nhận; phần còn lại vẫn nguyên.",
        "Stopped by itself because of {what}; the rest is as it was.",
    ),
    "stopped.told.changed": (
        "Số lượt đã đổi từ lúc trang này mở; chưa gửi lại lượt nào. Xem số mới bên dưới rồi bấm lại.",
        "The number has changed since the page was opened; none was sent again. Look below, then try again.",
    ),
    "stopped.told.busy": (
        "Đang gửi lại một nhóm khác; đợi xong hoặc dừng nhóm đó trước.",
        "Another group is being sent again; let it end or stop it first.",
    ),
    "stopped.unknown": (
        "Lượt không rõ kết quả không ở đây: có thể đã tới nơi, nên được xử lý từng lượt.",
        "What is unknown is not here: it may have arrived, and is resolved one by one.",
    ),
    "filter.title": ("Lọc", "Filter"),
    "filter.any": ("tất cả", "all"),
    "filter.day": ("Ngày", "Day"),
    "filter.apply": ("Lọc", "Filter"),
    "filter.clear": ("Bỏ lọc", "Clear"),
    "filter.wrong": ("Bộ lọc không đúng: {what}. Chưa lọc gì.", "The filter is wrong: {what}. Nothing was filtered."),
    "delivery.title": ("Lượt gửi {id}", "Delivery {id}"),
    "delivery.purpose": (
        "Chuyện gì đã xảy ra với một sự kiện phải gửi tới một nơi.",
        "What became of one event owed to one place.",
    ),
    "delivery.facts": ("Thông tin", "Facts"),
    "delivery.subscription": ("Đăng ký nhận", "Subscription"),
    "delivery.priority": ("Ưu tiên", "Priority"),
    "delivery.generation": ("Lần gửi lại", "Replay"),
    "delivery.expires": ("Hết hạn", "Expires"),
    "delivery.settled": ("Kết thúc lúc", "Settled"),
    "delivery.batch": ("Đợt gửi", "Batch"),
    "delivery.next.pending": ("Sẽ gửi: {when}.", "To be sent: {when}."),
    "delivery.next.held": (
        "Hệ thống đang giữ, chưa gửi gì. Lượt này không mất.",
        "The hub is on hold and sends nothing. This delivery is kept.",
    ),
    "delivery.next.paused": (
        "Điểm đến đang tạm dừng, chưa gửi. Lượt này được giữ lại, không mất.",
        "The destination is paused, so it is not sent yet. It is kept, not lost.",
    ),
    "delivery.next.breaker_open": (
        "Điểm đến đang tạm ngắt do lỗi liên tiếp; hệ thống tự thử lại, lượt này không mất.",
        "The destination is left alone after repeated failures; the hub tries again by itself, this one is kept.",
    ),
    "delivery.next.waiting_until": (
        "Bên nhận yêu cầu chờ; hệ thống tự gửi khi hết thời gian chờ.",
        "The receiver asked to wait; the hub sends it by itself after that.",
    ),
    "delivery.next.accepted": (
        "Đang đợi báo nhận. Hết thời hạn {when}, khi đó kết quả thành không rõ.",
        "A receipt is awaited. Its time ends {when}; then the outcome is unknown.",
    ),
    "delivery.next.unknown": (
        "Hệ thống không tự gửi lại, để không ai nhận hai lần. Hỏi bên nhận rồi xử lý kết quả bằng lệnh:",
        "The hub does not send it again, so that nobody gets it twice. Ask the receiver, then resolve it:",
    ),
    "delivery.next.dead": (
        "Khi đã sửa nguyên nhân, có thể gửi lại bằng lệnh:",
        "Once the cause is mended it can be replayed:",
    ),
    "delivery.attempts": ("Các lần thử", "Attempts"),
    "delivery.no_attempts": (
        "Chưa có lần thử nào: chưa có gì rời khỏi hệ thống.",
        "No attempt yet: nothing has left the hub.",
    ),
    "delivery.receipts": ("Báo nhận", "Receipts"),
    "delivery.no_receipts": (
        "Không có. Báo nhận hiện ở đây khi bên nhận trả mã tham chiếu.",
        "None. Receipts appear here when the receiver gives a reference.",
    ),
    "delivery.event": ("Sự kiện", "Event"),
    "attempt.no": ("Lần", "No."),
    "attempt.started": ("Bắt đầu", "Started"),
    "attempt.outcome": ("Kết quả", "Outcome"),
    "attempt.status": ("Mã trả lời", "Status"),
    "attempt.took": ("Thời gian", "Took"),
    "attempt.took_parts": (
        "tên {dns}, nối {connect}, TLS {tls}, trả lời {first_byte}, cả thảy {total}",
        "name {dns}, connected {connect}, TLS {tls}, answer {first_byte}, total {total}",
    ),
    "attempt.answer": ("Trả lời (đã che)", "Answer (masked)"),
    "receipt.ref": ("Mã tham chiếu", "Reference"),
    "receipt.state": ("Trạng thái", "State"),
    "receipt.at": ("Lúc", "At"),
    "wrong.title": ("Không có trang này", "There is no such page"),
    "wrong.delivery": (
        "Không có lượt gửi mang mã này. Kiểm tra lại mã, hoặc lượt gửi đã quá thời hạn lưu.",
        "There is no delivery with this id. Check it, or it is older than history is kept.",
    ),
    "wrong.back": ("Về trang tổng quan", "Back to the overview"),
    "ago.now": ("vừa xong", "just now"),
    "ago.s": ("{n} giây trước", "{n} s ago"),
    "ago.m": ("{n} phút trước", "{n} min ago"),
    "ago.h": ("{n} giờ trước", "{n} h ago"),
    "ago.d": ("{n} ngày trước", "{n} d ago"),
    "in.now": ("ngay bây giờ", "now"),
    "in.s": ("sau {n} giây nữa", "in {n} s"),
    "in.m": ("sau {n} phút nữa", "in {n} min"),
    "in.h": ("sau {n} giờ nữa", "in {n} h"),
    "in.d": ("sau {n} ngày nữa", "in {n} d"),
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STEPS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
#: Controls, format characters (direction, zero width), line and paragraph separators, surrogates, private use.
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs", "Co"})
_HTTP = re.compile(r"http_([0-9]{3})")


class Language:
    """One reader's language, at the instant ``now``."""

    def __init__(self, code: str, now: datetime) -> None:
        self.code = code
        self.now = now
        self._at = LANGUAGES.index(code)

    def pick(self, pair: Pair) -> str:
        return pair[self._at]

    def say(self, key: str, **values: str | int) -> str:
        """The text of ``key``; numbers are written as people write them."""
        return self._fill(TEXTS[key], values)

    def _fill(self, pair: Pair, values: dict[str, str | int]) -> str:
        shown = {k: self.number(v) if isinstance(v, int) else v for k, v in values.items()}
        return pair[self._at].format_map(shown) if shown else pair[self._at]

    # -- numbers and instants ----------------------------------------------------------------------

    def number(self, value: int) -> str:
        grouped = f"{value:,}"
        return grouped.replace(",", ".") if self.code == "vi" else grouped

    def instant(self, moment: datetime) -> str:
        local = moment.astimezone(ZONE)
        if self.code == "vi":
            return f"{local:%H:%M:%S} ngày {local:%d/%m/%Y}"
        return f"{local:%H:%M:%S} on {local.day} {_MONTHS[local.month - 1]} {local.year}"

    def distance(self, moment: datetime) -> str:
        """How far from now, in the largest unit that fits."""
        seconds = (self.now - moment).total_seconds()
        way, away = ("ago", seconds) if seconds >= 0 else ("in", -seconds)
        if away < 3:
            return self.say(f"{way}.now")
        size, unit = next(step for step in _STEPS if away >= step[0])
        return self.say(f"{way}.{unit}", n=int(away // size))

    def distance_until(self, text: str) -> str:
        """How far ahead an RFC 3339 instant is; one that has passed is now."""
        moment = self.parse(text)
        return self.distance(moment) if moment > self.now else self.say("in.now")

    @staticmethod
    def parse(text: str) -> datetime:
        """An RFC 3339 instant of a read model."""
        return datetime.fromisoformat(text)

    def between_ms(self, start: str, end: str) -> float:
        return (self.parse(end) - self.parse(start)).total_seconds() * 1000

    def milliseconds(self, value: float | None) -> str:
        if value is None:
            return "–"
        if value >= 1000:
            seconds = f"{value / 1000:.1f} s"
            return seconds.replace(".", ",") if self.code == "vi" else seconds
        return f"{round(value)} ms"

    # -- codes -------------------------------------------------------------------------------------

    def code_text(self, words: dict[str, Pair], code: str) -> str:
        """The words of a code, or the code itself."""
        return self.pick(words[code]) if code in words else code

    def state(self, state: str, channel: str | None = None) -> str:
        special = code_texts.STATES_BY_CHANNEL.get((channel or "", state))
        return self.pick(special) if special else self.code_text(code_texts.STATES, state)

    def connection_state(self, state: str) -> str:
        return self.code_text(code_texts.CONNECTION_STATES, state)

    def paused_by(self, who: str) -> str:
        return self.code_text(code_texts.PAUSED_BY, who)

    def outcome(self, outcome: str) -> str:
        return self.code_text(code_texts.OUTCOMES, outcome)

    def receipt_state(self, state: str) -> str:
        return self.code_text(code_texts.RECEIPTS, state)

    def run_state(self, state: str) -> str:
        return self.code_text(code_texts.RUNS, state)

    def priority(self, priority: int) -> str:
        return self.pick(code_texts.PRIORITIES[priority])

    def reason(self, code: str) -> str:
        """The words of a reason; "" when only the code can be shown."""
        if code in code_texts.REASONS:
            return self.pick(code_texts.REASONS[code])
        if match := _HTTP.fullmatch(code):
            return self._fill(code_texts.HTTP_STATUS, {"status": match[1]})
        prefix, colon, rest = code.partition(":")
        if colon and prefix in code_texts.PREFIXES:
            return self._fill(code_texts.PREFIXES[prefix], {"rest": self.reason(rest) or rest or "–"})
        return ""

    def repair(self, kind: str, values: dict[str, str | int], reason: str = "") -> tuple[str, str, str]:
        """What happened, why, what to do now."""
        entries = code_texts.REPAIRS
        what, why, do = entries.get(f"{kind}.{reason}") or entries.get(kind) or entries["other"]
        values = {"reason": _sentence(self.reason(reason) or reason or self.say("none")), **values}
        return self._fill(what, values), self._fill(why, values), self._fill(do, values)

    def half(self, text: str) -> str:
        """This language's half of a text written "Vietnamese / English", as plugins and problems write it."""
        vi, slash, en = text.partition(" / ")
        return (en if self.code == "en" else vi) if slash else text


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def visible(value: object) -> object:
    """What a screen would hide or act upon is spelled out: controls, zero-width and direction marks."""
    if type(value) is not str or (value.isascii() and value.isprintable()):
        return value
    return "".join(f"[U+{ord(c):04X}]" if unicodedata.category(c) in _UNSEEN else c for c in value)
