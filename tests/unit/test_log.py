"""Log lines: one line of JSON each, and nothing in it that tells a person or a secret."""

from __future__ import annotations

import ast
import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import log as hub_log
from hub.contract import SecretRef
from hub.errors import NotFound
from hub.log import LOG_EVENTS, SENSITIVE_KEYS, bind, configure, log, mask, register_secret
from hub.secret_files import resolve_secret

ROOT = Path(__file__).parents[2]
PHONE = "0912555123"
CCCD = "019201555123"
NAME = "Nguyễn Thị Mẫu"
TOKEN = "tok-5f2c1d0b9a8e"


@pytest.fixture
def stream() -> Iterator[io.BytesIO]:
    """Where lines go during a test; the process's own stream and secrets come back afterwards."""
    before, handlers, level = vars(hub_log._state).copy(), logging.root.handlers[:], logging.root.level
    lines = io.BytesIO()
    configure(lines)
    yield lines
    vars(hub_log._state).update(before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def only(stream: io.BytesIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = orjson.loads(line)
    return found


def test_a_line_is_one_json_object_with_time_level_and_name_first(stream: io.BytesIO) -> None:
    log("run.finished", connection="partner-a", total_ms=12.34567, status=200, delivery=UUID(int=1))

    line = only(stream)
    assert list(line)[:3] == ["at", "level", "event"]
    assert datetime.fromisoformat(line["at"]).utcoffset() == timedelta()
    assert (line["level"], line["event"], line["connection"]) == ("info", "run.finished", "partner-a")
    assert (line["total_ms"], line["status"]) == (12.3457, 200)
    assert line["delivery"] == str(UUID(int=1))


def test_the_level_comes_from_the_catalogue(stream: io.BytesIO) -> None:
    log("plugin.left_out", plugin="x", code="import_failed")

    assert only(stream)["level"] == "error"


def test_bound_fields_are_in_every_line_and_may_be_replaced(stream: io.BytesIO) -> None:
    bound = bind(connection="a", mode="trx")
    bound("session.bound", window=10)
    bound("session.lost", mode="rx")

    first, second = map(orjson.loads, stream.getvalue().splitlines())
    assert (first["connection"], first["mode"], first["window"]) == ("a", "trx", 10)
    assert (second["connection"], second["mode"]) == ("a", "rx")


def test_an_uncatalogued_name_is_written_unless_names_are_checked(stream: io.BytesIO) -> None:
    log("stranger.spoke")
    assert only(stream)["event"] == "stranger.spoke"

    configure(stream, strict=True)
    with pytest.raises(ValueError, match=r"stranger\.spoke"):
        log("stranger.spoke")


# -- what must not be read -------------------------------------------------------------------------

PERSONAL = [
    PHONE, f"+84{PHONE[1:]}", f"84{PHONE[1:]}", "0912 555 123", "0912.555.123", "+84 912 555 123", "+84 91 255 5123",
    CCCD, f"({PHONE})", f"phone={PHONE}", f"{PHONE},{PHONE}", f"tel:{PHONE};x", f"CCCD:{CCCD}.",
]  # fmt: skip


@pytest.mark.parametrize("text", PERSONAL)
def test_phones_and_citizen_numbers_are_masked_wherever_they_stand(stream: io.BytesIO, text: str) -> None:
    log("x.happened", reason=text, nested={"list": [text, {"deep": text}]}, more=(text,))

    line = stream.getvalue().decode()
    for digits in (PHONE[1:], CCCD, "912 555", "912.555", "255 5123"):
        assert digits not in line
    assert "***" in only(stream)["reason"]


@pytest.mark.parametrize("number", [int(CCCD[1:]) + 10**11, 84912555123, float(84912555123), -(10**11)])
def test_a_personal_number_kept_as_a_number_is_masked_and_the_line_stays_json(
    stream: io.BytesIO, number: float
) -> None:
    log("x.happened", a=number, b=[number], c={"d": number})

    line = only(stream)
    assert (line["a"], line["b"], line["c"]) == ("***", ["***"], {"d": "***"})


def test_a_measure_may_have_as_many_digits_as_a_citizen_number(stream: io.BytesIO) -> None:
    log("x.happened", age_us=100_000_000_000, body_bytes=84_912_555_123, said='{"phone":84912555123}')

    line = only(stream)
    assert (line["age_us"], line["body_bytes"]) == (100_000_000_000, 84_912_555_123)
    assert line["said"] == '{"phone":***}'


HARMLESS = [
    "01932f5a-7c3e-7def-8123-079201001234", "vn.congdoan.member.updated.v1", "2026-11-23T07:05:09.123456+07:00",
    "a0912555123", "0912555123a", "127.0.0.1:18081", "12345678901234567890", "0.079201001234", "file-20261123",
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_ids_times_and_addresses_of_machines_stay_readable(stream: io.BytesIO, text: str) -> None:
    log("x.happened", what=text)

    assert only(stream)["what"] == text


@pytest.mark.parametrize("key", sorted(SENSITIVE_KEYS))
@pytest.mark.parametrize("form", ["{}", "full_{}", "X-{}", "{}".upper()])
def test_a_value_is_masked_by_the_name_of_its_key(stream: io.BytesIO, key: str, form: str) -> None:
    log("x.happened", **{form.format(key): NAME}, inner={"list": [{form.format(key): NAME}]})

    assert NAME not in stream.getvalue().decode()
    assert only(stream)["inner"] == {"list": [{form.format(key): "***"}]}


def test_a_count_beside_a_sensitive_word_stays(stream: io.BytesIO) -> None:
    log("x.happened", body_bytes=12, text_parts=3)

    assert (only(stream)["body_bytes"], only(stream)["text_parts"]) == (12, 3)


def test_registered_secrets_are_masked_by_value_even_escaped_or_inside_others(stream: io.BytesIO) -> None:
    for secret in (TOKEN, f"{TOKEN}-and-more", 'quo"te\\slash', "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"):
        register_secret(secret)
    log(
        "x.happened",
        url=f"http://x/?t={TOKEN}-and-more",
        said='bad quo"te\\slash!',
        key="MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )

    line = only(stream)
    assert (line["url"], line["said"], line["key"]) == ("http://x/?t=***", "bad ***!", "***")


def test_a_secret_read_for_a_connection_is_masked_from_then_on(stream: io.BytesIO, tmp_path: Path) -> None:
    (tmp_path / "k").write_text(TOKEN, "utf-8")
    (tmp_path / "k").chmod(0o600)
    resolve_secret(SecretRef(file="k"), tmp_path, {})
    log("x.happened", said=TOKEN)

    assert TOKEN not in stream.getvalue().decode()


def test_an_answer_can_be_masked_before_it_is_stored() -> None:
    assert mask(f"no user {PHONE} / {CCCD}".encode()) == b"no user *** / ***"
    assert mask(b'{"phone":84912555123}') == b'{"phone":***}'


def test_an_exception_shows_kinds_and_places_but_no_values(stream: io.BytesIO) -> None:
    def inner(phone: str) -> None:
        local_name = NAME
        try:
            raise KeyError(phone + local_name)
        except KeyError as error:
            raise ValueError(f"bad {local_name} {TOKEN}") from error

    try:
        inner(PHONE)
    except ValueError as error:
        log("x.broke", error=error)

    text = stream.getvalue().decode()
    line = only(stream)
    assert line["error"] == "ValueError"
    assert [each["type"] for each in line["trace"]] == ["ValueError", "KeyError"]
    assert line["trace"][0]["frames"][-1].endswith(" inner")
    assert not any(canary in text for canary in (PHONE, NAME, TOKEN, "local_name"))


def test_our_own_errors_and_the_systems_say_what_they_say(stream: io.BytesIO) -> None:
    log("x.broke", error=NotFound("delivery 17"))
    log("x.broke", error=FileNotFoundError(2, "No such file", f"/srv/{NAME}"))

    ours, systems = map(orjson.loads, stream.getvalue().splitlines())
    assert (ours["said"], systems["said"]) == ("delivery 17", "No such file")
    assert NAME not in stream.getvalue().decode()


@pytest.mark.parametrize("char", "\x00\x1b\r\n\x7f\x85\x9b\u061c\u200b\u200e\u202e\u2028\u2029\u2066\ufeff")
def test_a_line_cannot_be_broken_or_turned_by_what_it_quotes(stream: io.BytesIO, char: str) -> None:
    log("x.happened", said=f"a{char}b", inner={f"k{char}": 1})

    raw = stream.getvalue().decode()
    assert char not in raw.rstrip("\n")
    assert only(stream)["said"] == f"a{char}b"


@given(
    st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists))
)
def test_whatever_is_logged_is_one_line_of_json(fields: dict[str, Any]) -> None:
    before, lines = vars(hub_log._state).copy(), io.BytesIO()
    configure(lines)
    try:
        log("x.happened", fields=fields)
    finally:
        vars(hub_log._state).update(before)

    assert only(lines)["event"] in ("x.happened", "line.unwritable")


class Colour(StrEnum):
    RED = "red"


class Opaque:
    def __repr__(self) -> str:
        return NAME


def test_values_json_has_no_word_for_show_their_kind_alone(stream: io.BytesIO) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    log("x.happened", raw=NAME.encode(), thing=Opaque(), colour=Colour.RED, at_time=at, keyed={1: "x"})

    line = only(stream)
    assert (line["raw"], line["thing"]) == (f"<{len(NAME.encode())} bytes>", "<Opaque>")
    assert (line["colour"], line["at_time"], line["keyed"]) == ("red", "2026-11-23T00:00:00Z", {"1": "x"})


def test_what_cannot_be_rendered_leaves_a_line_that_says_so(stream: io.BytesIO) -> None:
    log("x.happened", said="\ud800")

    line = only(stream)
    assert (line["event"], line["of"]) == ("line.unwritable", "x.happened")


def test_libraries_are_heard_from_warning_on_without_their_arguments(stream: io.BytesIO) -> None:
    logger = logging.getLogger("some.library")
    logger.info("quiet")
    logger.warning("cannot reach %s", PHONE)
    try:
        raise RuntimeError(NAME)
    except RuntimeError:
        logger.exception("failed")

    first, second = map(orjson.loads, stream.getvalue().splitlines())
    assert (first["event"], first["logger"], first["said"]) == ("library.warned", "some.library", "cannot reach %s")
    assert second["error"] == "RuntimeError"
    assert NAME not in stream.getvalue().decode()


class FullDisk(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_under_the_log_disturbs_nobody(stream: io.BytesIO) -> None:
    configure(FullDisk())
    log("x.happened")


def names_in_the_code() -> dict[str, str]:
    """Every literal first argument of a call to something named ``log``, and where it stands."""
    found = {}
    for path in sorted((ROOT / "hub").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "log" and isinstance(node.args[0].value, str):
                found[node.args[0].value] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def test_every_line_the_hub_writes_is_in_the_catalogue_and_no_other() -> None:
    found = names_in_the_code()

    assert {name: place for name, place in found.items() if name not in LOG_EVENTS} == {}
    # Rendered by hand, since it tells that rendering failed.
    assert set(LOG_EVENTS) - set(found) == {"line.unwritable"}


def test_the_catalogue_names_events_as_noun_and_past_tense() -> None:
    for name, entry in LOG_EVENTS.items():
        noun, _, verb = name.partition(".")
        assert noun.isidentifier() and verb.isidentifier(), name
        assert entry.says.endswith("."), name
