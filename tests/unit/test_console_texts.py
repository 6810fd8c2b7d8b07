"""The console's words in both languages, and how numbers, instants and codes are written."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

from hub.model import State
from hub.web import code_texts, console, texts
from hub.web.texts import TEXTS, Language

WEB = Path(console.__file__).parent
NOW = datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC)
VI = Language("vi", NOW)
EN = Language("en", NOW)


def all_pairs() -> dict[str, tuple[str, str]]:
    pairs = dict(TEXTS)
    for name in ("STATES", "CONNECTION_STATES", "OUTCOMES", "RECEIPTS", "RUNS", "PAUSED_BY", "REASONS", "PREFIXES"):
        pairs |= {f"{name}.{key}": pair for key, pair in getattr(code_texts, name).items()}
    pairs |= {f"STATES_BY_CHANNEL.{key}": pair for key, pair in code_texts.STATES_BY_CHANNEL.items()}
    for kind, parts in code_texts.REPAIRS.items():
        pairs |= {f"REPAIRS.{kind}.{i}": pair for i, pair in enumerate(parts)}
    return pairs


@pytest.mark.parametrize(("key", "pair"), all_pairs().items())
def test_every_text_is_there_in_both_languages_with_the_same_gaps(key: str, pair: tuple[str, str]) -> None:
    vi, en = pair
    assert vi.strip() and en.strip()
    assert unicodedata.is_normalized("NFC", vi)
    assert "!" not in vi + en
    assert set(re.findall(r"{(\w+)}", vi)) == set(re.findall(r"{(\w+)}", en)), key


def keys_of_templates() -> tuple[set[str], set[str]]:
    """Keys that templates say, and the beginnings of those they put together."""
    whole, beginnings = set(), set()
    for path in sorted(WEB.glob("templates/*.html")):
        for call in Environment(autoescape=True).parse(path.read_text()).find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "say":
                argument = call.args[0]
                if isinstance(argument, nodes.Concat):
                    beginnings.add(argument.nodes[0].as_const())
                elif isinstance(argument, nodes.Const | nodes.CondExpr):
                    whole |= {
                        c.value for c in [argument, *argument.find_all(nodes.Const)] if isinstance(c, nodes.Const)
                    }
    return whole, beginnings


def test_templates_say_only_what_the_catalogue_knows_and_the_catalogue_holds_nothing_else() -> None:
    whole, beginnings = keys_of_templates()
    assert len(whole) > 50
    assert whole - set(TEXTS) == set()
    assert {b for b in beginnings if not any(key.startswith(b) for key in TEXTS)} == set()
    # keys that Python code or a template's list names, and those of distances, which are put together
    quoted = {m for p in WEB.rglob("*.*") if p.suffix in (".py", ".html") and p.name != "texts.py"
              for m in re.findall(r'"([a-z_]+\.[a-z_.]+)"', p.read_text())}  # fmt: skip
    distances = {f"{way}.{unit}" for way in ("ago", "in") for unit in ("now", "s", "m", "h", "d")}
    used = whole | quoted | distances | {"none"}
    assert {key for key in TEXTS if key not in used and not key.startswith(tuple(beginnings))} == set()


@pytest.mark.parametrize("prefix", ["connections.", "count.", "delivery.next.", "stopped.told."])
def test_keys_that_templates_put_together_all_exist(prefix: str) -> None:
    together = {
        "connections.": ("receives", "reads", "sends"),
        "count.": ("open", "accepted", "delivered", "unknown", "dead", "cancelled"),
        "delivery.next.": ("held", "paused", "breaker_open", "waiting_until"),
        "stopped.told.": ("changed", "busy"),
    }
    assert keys_of_templates()[1] == set(together)
    assert {prefix + end for end in together[prefix]} <= set(TEXTS)


def test_every_state_and_outcome_of_the_ledger_has_words() -> None:
    assert {s.value for s in State} <= set(code_texts.STATES)
    assert {"delivered", "accepted", "retry_later", "ambiguous", "refused", "unknown", "lost", "diverted"} == set(
        code_texts.OUTCOMES
    )


@pytest.mark.parametrize(
    ("code", "vi", "en"),
    [
        ("expired", "quá hạn", "expired"),
        ("http_503", "bên nhận trả lời HTTP 503", "the receiver answered HTTP 503"),
        ("tries_spent:http_500", "đã thử hết số lần, lần cuối: bên nhận trả lời HTTP 500", None),
        ("receipt:undeliverable", "theo báo nhận: không chuyển được tới máy", None),
        ("receipt:strange_code", "theo báo nhận: strange_code", "by its receipt: strange_code"),
        ("never_heard_of", "", ""),
    ],
)
def test_a_reason_is_said_in_words_and_an_unknown_one_is_left_to_its_code(code: str, vi: str, en: str | None) -> None:
    assert VI.reason(code) == vi
    assert en is None or EN.reason(code) == en


def test_numbers_and_instants_are_written_as_people_here_write_them() -> None:
    assert (VI.number(1234567), EN.number(1234567)) == ("1.234.567", "1,234,567")
    assert VI.instant(NOW) == "14:05:09 ngày 23/11/2026"
    assert EN.instant(NOW) == "14:05:09 on 23 Nov 2026"
    assert VI.instant(datetime(2026, 11, 23, 17, 0, tzinfo=UTC)) == "00:00:00 ngày 24/11/2026"


@pytest.mark.parametrize(
    ("away", "vi", "en"),
    [
        (timedelta(seconds=-1), "vừa xong", "just now"),
        (timedelta(seconds=-59), "59 giây trước", "59 s ago"),
        (timedelta(minutes=-3), "3 phút trước", "3 min ago"),
        (timedelta(hours=-5, minutes=-59), "5 giờ trước", "5 h ago"),
        (timedelta(days=-1200), "1.200 ngày trước", "1,200 d ago"),
        (timedelta(minutes=10), "sau 10 phút nữa", "in 10 min"),
    ],
)
def test_how_long_ago_is_said_in_the_largest_unit(away: timedelta, vi: str, en: str) -> None:
    assert (VI.distance(NOW + away), EN.distance(NOW + away)) == (vi, en)


def test_what_a_screen_would_hide_is_spelled_out() -> None:
    assert texts.visible("invoice\u202efdp.exe\u200b\x1b[31m") == "invoice[U+202E]fdp.exe[U+200B][U+001B][31m"
    assert texts.visible("Nguyễn Thị Hồng") == "Nguyễn Thị Hồng"


def test_failures_hang_below_the_line_of_a_sparkline() -> None:
    spark = console.sparkline([[0, 0]] * 22 + [[10, 0], [5, 1]])
    assert spark["good"] == "M110 23.5h4v-23.0h-4zM115 23.5h4v-11.5h-4z"
    assert spark["bad"] == "M115 24.5h4v7.0h-4z"
    assert (spark["good_count"], spark["bad_count"]) == (15, 1)
