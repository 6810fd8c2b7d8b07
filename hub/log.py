"""Log lines: one wide JSON line on stderr per unit of work, with nothing readable about a person or a secret.

``log("delivery.attempted", connection="partner-a", outcome="delivered", total_ms=12.5)``: the event's name is
a noun and a past tense, values are codes, ids and numbers. The last step masks the finished bytes, so that
whatever slipped through the steps before is caught there.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import Any, BinaryIO, Literal, cast
from uuid import UUID

import orjson

from hub.clock import system_clock
from hub.contract import LogEvent
from hub.errors import HubError

# structlog looks for rich, for a console that we do not have: 67 modules, an eighth of a start.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]  # as if it were not installed
import structlog  # noqa: E402
from structlog.tracebacks import extract  # noqa: E402

if _rich is None:
    del sys.modules["rich"]
else:
    sys.modules["rich"] = _rich

Log = Callable[..., None]
Level = Literal["info", "warning", "error"]

MASK = "***"
#: How long a line written on the event loop may wait for others.
FLUSH_WITHIN_S = 0.02
#: Values of these keys, and of keys ending in ``_<one of these>``, are never written.
SENSITIVE_KEYS = frozenset(
    {
        "address", "authorization", "body", "cccd", "cookie", "email", "name", "password", "phone", "secret",
        "signature", "text", "title", "token",
    }
)  # fmt: skip
#: A shorter one would blot out ordinary words.
MIN_SECRET_LENGTH = 6

# +84 or 0 and nine digits, bare or grouped by spaces or dots; or twelve digits, unless they end a UUID. Letters
# beside the digits make them part of an id, a digit and a dot before them the fraction of a number.
_NUMBERS = (
    rb"(?<![0-9A-Za-z])(?<![0-9]\.)%s"
    rb"(?:(?:\+?84|0)(?:[0-9]{9}|[ .]?[0-9]{2,3}[ .][0-9]{3}[ .][0-9]{3,4})|[0-9]{12})(?![0-9A-Za-z])"
    rb"(?<![0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
)
_PERSONAL = re.compile(_NUMBERS % b"")
# In our own lines a bare number behind a key was judged before it was rendered; stars there would not be JSON.
_PERSONAL_IN_LINE = re.compile(_NUMBERS % rb"""(?<![^\\]":)""")
#: Keys that say a unit carry measures, however many digits those have.
_UNITS = ("_us", "_ms", "_s", "_bytes", "_count")
# Tells in a fraction of a microsecond whether a line holds a run long enough for the expression above, which
# takes ten: digits, spaces and dots become 0, everything else 1.
_RUNS = bytes(0x30 if chr(byte) in "0123456789 ." else 0x31 for byte in range(256))
_LONG_RUN = b"0" * 10
# Random ids have such runs in one line of seven; no number is found in 32 characters in one piece.
_IDS = re.compile(rb'"[0-9a-f]{32}"')
#: A phone or citizen number kept as a number has at least this many digits.
_LARGE = 10_000_000_000
# C1 controls, Arabic letter mark, zero-width and bidi marks, line and paragraph separator, bidi isolates, BOM:
# what a terminal or viewer would act upon. JSON has escaped the controls below 0x20 already.
_UNSEEN = re.compile(rb"\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf|\x7f")


#: Every line the hub itself writes; a test compares. Lines of a connection are its plugin's own, and in its README.
LOG_EVENTS: dict[str, LogEvent] = {
    each.name: each
    for each in (
        # the hub itself
        LogEvent("hub.started", "The ledger is open and work has begun.", ("connections", "held")),
        LogEvent("hub.listening", "The web server answers.", ("url",)),
        LogEvent("hub.stopped", "The hub has stopped."),
        LogEvent(
            "hub.reloaded",
            "Works by other files from now on; what is named here of hub.toml counts from the next start.",
            ("connections", "needs_restart"),
        ),
        LogEvent("hub.not_reloaded", "The files are not valid: it goes on as before.", ("error",), "error"),
        LogEvent("plugin.left_out", "A plugin is broken and was left out.", ("plugin", "code", "why"), "error"),
        LogEvent(
            "plugin.raised",
            "A plugin raised where it must not.",
            ("connection", "destination", "plugin", "error"),
            "error",
        ),
        LogEvent(
            "loop.blocked",
            "The event loop stands still, so that everybody waits: in which plugin's code, and for what it works.",
            ("plugin", "destination", "stalled_ms", "where"),
            "error",
        ),
        LogEvent(
            "loop.crowded",
            "A plugin has started tasks without end; its connection is paused.",
            ("plugin", "connection", "tasks"),
            "error",
        ),
        LogEvent(
            "memory.grown",
            "The process holds more memory than it may: what grew within a moment, and whose it is, if anybody's.",
            ("plugin", "connection", "rss_mb", "grown_kb", "of_kb"),
            "error",
        ),
        LogEvent("command.failed", "An operator's command ended with an error.", ("command", "error"), "warning"),
        LogEvent(
            "ledger.marker_not_written", "The marker beside the ledger could not be written.", ("error",), "error"
        ),
        LogEvent("library.warned", "A library logged a warning or worse.", ("logger", "said"), "warning"),
        LogEvent("line.unwritable", "A log line could not be rendered.", ("of", "why"), "error"),
        # in
        LogEvent("event.received", "An inbound request was answered.", ("connection", "status", "reason")),
        LogEvent(
            "request.quarantined",
            "A genuine body that no mapping could read was kept.",
            ("connection", "event_id", "reason"),
            "warning",
        ),
        LogEvent(
            "request.still_unread",
            "A request that was kept cannot be read by today's mapping either.",
            ("connection", "event_id", "error"),
            "warning",
        ),
        LogEvent("api.refused", "A key that is not valid was presented.", ("key", "reason"), "warning"),
        LogEvent(
            "subject.erased",
            "A person's data key was destroyed on somebody's word; known is false where it was gone already.",
            ("subject", "who", "known", "cancelled"),
        ),
        LogEvent("api.answered", "A command that writes was asked for over HTTP.", ("who", "operation", "status")),
        LogEvent(
            "page.refused",
            "A plugin's page refused a sign-in or a form, or somebody tried too often.",
            ("path", "who", "status"),
            "warning",
        ),
        LogEvent("request.failed", "A request met an error of ours.", ("path", "error"), "error"),
        LogEvent(
            "backup.finished",
            "A scheduled backup is in its place and was read back, or none was made.",
            ("state", "reason", "sequence", "ledger_bytes", "file_bytes", "total_s", "removed"),
        ),
        LogEvent("run.finished", "A pull or fan-out has ended.", ("kind", "object", "state", "reason", "items")),
        LogEvent(
            "history.pruned",
            "A pass has deleted what was kept long enough; rows: how many of each table.",
            ("rows", "before", "took_s"),
        ),
        LogEvent(
            "history.day_not_made",
            "A day's partition could not be made now: its rows go to the default one meanwhile.",
            ("partition", "reason"),
            "warning",
        ),
        LogEvent(
            "history.postponed",
            "A pass did not take place or broke off; what is left waits for the next one.",
            ("reason",),
            "warning",
        ),
        # out
        LogEvent(
            "delivery.attempted",
            "One try of one delivery and what follows from it.",
            (
                "delivery",
                "event_id",
                "type",
                "destination",
                "try_no",
                "outcome",
                "reason",
                "state",
                "status",
                "total_us",
                "age_us",
            ),
            plain=True,
        ),
        LogEvent(
            "delivery.ended",
            "A delivery ended without a try: cancelled, expired or poison.",
            ("delivery", "destination", "state", "reason"),
        ),
        LogEvent(
            "delivery.diverted",
            "A delivery is owed to another destination from now on.",
            ("delivery", "destination", "to"),
        ),
        LogEvent("delivery.broke", "Sending met an error of ours.", ("delivery", "destination", "error"), "error"),
        LogEvent(
            "delivery.late",
            "A result came after its lease was taken over; it changed nothing.",
            ("delivery", "destination"),
            "warning",
        ),
        LogEvent("destination.paused", "A destination was paused.", ("destination", "reason"), "warning"),
        LogEvent(
            "worker.blocked", "The ledger did not take a step; it is tried again.", ("reason", "delivery"), "warning"
        ),
        LogEvent(
            "connection.broke", "A connection's own task ended and is restarted.", ("connection", "error"), "warning"
        ),
        LogEvent(
            "worker.claim_unheard",
            "The answer to a claim was lost; what it had leased is free again.",
            ("deliveries",),
            "warning",
        ),
        # several nodes on one ledger
        LogEvent(
            "node.joined",
            "This process counts as alive; a term above 1: it had not, and what it held may be another's.",
            ("node", "boot", "term"),
        ),
        LogEvent("node.leads", "This process schedules, sweeps and places events from now on.", ("node",)),
        LogEvent("node.lost", "A process gave no sign of life for a lease.", ("node", "boot", "silent_s"), "warning"),
        LogEvent("node.took_over", "What lost processes had leased is free again.", ("node", "deliveries"), "warning"),
        LogEvent(
            "node.beat_failed",
            "A sign of life could not be written; written once until one succeeds.",
            ("node", "error"),
            "warning",
        ),
        LogEvent("node.clock_set", "The database server's clock was set by so much.", ("by_s",), "warning"),
        LogEvent(
            "node.clock_off",
            "This machine's clock is off the database server's: log lines and ids carry its time.",
            ("node", "off_s"),
            "warning",
        ),
        LogEvent(
            "node.outdated",
            "Another node has upgraded the tables: this one takes and begins nothing more, and ends with exit code 2.",
            ("node", "error"),
            "error",
        ),
        LogEvent(
            "ledger.group_rerun",
            "A group of units failed and was rolled back; each was run again alone.",
            ("units", "reason"),
            "warning",
        ),
        LogEvent(
            "ledger.hints_lost",
            "Other nodes' hints do not arrive; what is due is found by looking.",
            ("error",),
            "warning",
        ),
    )
}


def know(events: Iterable[LogEvent]) -> None:
    """Adds the lines of plugins to the catalogue of this process."""
    _state.of_plugins.update((each.name, each) for each in events)


def log(event: str, **fields: Any) -> None:
    """Writes one line. Never raises, except for an uncatalogued name in strict mode (tests)."""
    known = LOG_EVENTS.get(event) or _state.of_plugins.get(event)
    if known is None and _state.strict:
        raise ValueError(f"log event {event!r} is not in LOG_EVENTS")
    level = known.level if known else "info"
    if known is not None and known.plain:
        _state.logger.write_plain({"at": system_clock(), "level": level, "event": event, **fields})
        return
    _state.logger.write(level, {"at": system_clock(), "level": level, "event": event, **fields})


def bind(**fixed: Any) -> Log:
    """``log`` with fields that every line of a part has in common."""

    def bound(event: str, **fields: Any) -> None:
        log(event, **{**fixed, **fields})

    return bound


def register_secret(value: str) -> None:
    """From now on this value is masked wherever it occurs in a line; see ``MIN_SECRET_LENGTH``."""
    value = value.removeprefix("whsec_")
    if len(value) >= MIN_SECRET_LENGTH:
        # As JSON writes it: a quote or backslash in a password is escaped in the line.
        rendered = {*_state.secrets, orjson.dumps(value)[1:-1]}
        # The longest first, so that a secret inside another does not leave the rest of it readable.
        _state.secrets = tuple(sorted(rendered, key=len, reverse=True))


def mask(data: bytes) -> bytes:
    """``data`` without registered secrets, phone numbers and citizen numbers: for what a partner answered."""
    return _masked(data, _PERSONAL)


def _masked(data: bytes, personal: re.Pattern[bytes]) -> bytes:
    for secret in _state.secrets:
        if secret in data:
            data = data.replace(secret, MASK.encode())
    if _LONG_RUN not in data.translate(_RUNS) or _LONG_RUN not in _IDS.sub(b"", data).translate(_RUNS):
        return data
    return personal.sub(MASK.encode(), data)


def configure(stream: BinaryIO | None = None, *, strict: bool = False) -> None:
    """Sets where lines go (stderr) and whether a name outside ``LOG_EVENTS`` is an error.

    What libraries log through ``logging`` at WARNING or above becomes a line too, without its arguments.
    """
    _state.strict = strict
    _state.logger = _wide(stream)
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)


# -- processors, in order --------------------------------------------------------------------------


def _exception(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """``error=exc`` becomes kinds and frames, without local variables and without what it says.

    The texts of strangers' exceptions quote values; ours carry ids only and are kept.
    """
    error = line.get("error")
    if isinstance(error, BaseException):
        line["error"] = type(error).__name__
        if isinstance(error, HubError):
            line["said"] = str(error)
        elif isinstance(error, OSError) and error.strerror:
            line["said"] = error.strerror
        line["trace"] = [
            {
                "type": stack.exc_type,
                "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack.frames],
            }
            for stack in extract(type(error), error, error.__traceback__, show_locals=False).stacks
        ]
    return line


def _render(_: Any, __: str, line: MutableMapping[str, Any]) -> bytes:
    try:
        data = orjson.dumps(_without_sensitive(line), default=_plain, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        failed = {"at": line["at"], "level": "error", "event": "line.unwritable", "of": str(line["event"])[:100]}
        data = orjson.dumps({**failed, "why": type(error).__name__}, default=_plain, option=_OPTIONS)
    return _masked(_seen(data), _PERSONAL_IN_LINE)


def _seen(data: bytes) -> bytes:
    """Everything in it visible: what a terminal would act upon is escaped."""
    return data if data.isascii() and b"\x7f" not in data else _UNSEEN.sub(_escaped, data)


def _without_sensitive(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    # On the path of every attempt: most values are of the first kind, and looking a type up is one hash.
    return {
        key: MASK
        if _sensitive(key)
        else value
        if type(value) in _AS_IT_IS or (type(value) is int and -_LARGE < value < _LARGE)
        else _inside(value, key)
        for key, value in fields.items()
    }


def _inside(value: Any, key: Any = "") -> Any:
    if isinstance(value, int | float):
        return _number(value, key)
    if isinstance(value, Mapping):
        return _without_sensitive(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [each if type(each) in _AS_IT_IS else _inside(each) for each in value]
    return value


def _number(value: float, key: Any) -> float | str:
    """Masked when it may be a phone or a citizen number kept as a number."""
    if -_LARGE < value < _LARGE:
        return round(value, 4) if type(value) is float else value
    if str(key).endswith(_UNITS) or value != value or abs(value) > 1e20:
        return value
    return MASK if _PERSONAL.search(b"%d" % value) else value


@lru_cache(maxsize=1024)
def _sensitive(key: str) -> bool:
    return str(key).lower().replace("-", "_").rpartition("_")[2] in SENSITIVE_KEYS


def _plain(value: Any) -> str:
    """What JSON has no word for: its kind alone, since a repr may hold anything."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else f"<{type(value).__name__}>"


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"".join(b"\\u%04x" % ord(char) for char in match[0].decode())


# -- where lines go --------------------------------------------------------------------------------


class _WideLine(structlog.BoundLoggerBase):
    """Hands a line through the processors as it is: structlog's own methods would copy it four times."""

    def write(self, level: Level, line: MutableMapping[str, Any]) -> None:
        done: Any = line
        for processor in self._processors:
            done = processor(self._logger, level, done)
        self._logger.msg(done, at_once=level != "info")

    def flush(self) -> None:
        self._logger.flush()

    def write_plain(self, line: Mapping[str, Any]) -> None:
        """The line of every try: rendered and masked as a whole, at half the cost."""
        try:
            data = orjson.dumps(line, option=_OPTIONS)
        except (TypeError, ValueError):  # not plain after all
            self.write("info", dict(line))
            return
        self._logger.msg(_masked(_seen(data), _PERSONAL_IN_LINE), at_once=False)


def flush() -> None:
    """Writes what waits for company."""
    _state.logger.flush()


class _Lines:
    """Writes whole lines; a full disk or a closed pipe must not stop deliveries.

    On the event loop, lines of one moment are written together a little later: a system call for each
    costs as much as the line itself. Warnings and errors, lines from elsewhere and the end of the process
    do not wait.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = Lock()
        self._waiting: deque[bytes] = deque()
        #: Whether the event loop will flush.
        self._awaited = False
        atexit.register(self.flush)

    def msg(self, line: bytes, at_once: bool = True) -> None:
        self._waiting.append(line)
        if at_once:
            self.flush()
        elif not self._awaited:
            try:
                asyncio.get_running_loop().call_later(FLUSH_WITHIN_S, self.flush)
                self._awaited = True
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        with self._lock:
            self._awaited = False  # first: what comes from now on is flushed by the next one
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if not lines:
                return
            try:
                self._stream.write(b"\n".join(lines) + b"\n")
                self._stream.flush()
            except (OSError, ValueError):
                # Nowhere is left to complain to.
                return


class _FromLibraries(logging.Handler):
    """Lines of libraries, as their templates: the arguments may be anything."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        more = {"error": error} if error else {}
        log("library.warned", logger=record.name, said=str(record.msg)[:300], **more)


def _wide(stream: BinaryIO | None) -> _WideLine:
    lines = _Lines(stream if stream is not None else sys.stderr.buffer)
    wrapped = structlog.wrap_logger(lines, processors=[_exception, _render], wrapper_class=_WideLine)
    return cast(_WideLine, wrapped.bind())


class _State:
    """What ``configure`` and ``register_secret`` set; one per process, as stderr is."""

    def __init__(self) -> None:
        self.strict = False
        self.of_plugins: dict[str, LogEvent] = {}
        self.secrets: tuple[bytes, ...] = ()
        self.logger = _wide(None)


_AS_IT_IS = frozenset({str, bool, type(None), UUID, datetime})
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
_state = _State()
