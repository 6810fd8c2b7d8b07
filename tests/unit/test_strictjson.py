"""The strict reader: what it takes it reads as everybody does; what it refuses it names."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from hub.errors import InputError
from hub.strictjson import loads


def problem(raw: bytes, **limits: int) -> str:
    with pytest.raises(InputError) as raised:
        loads(raw, **limits)
    error = raised.value
    assert error.http_status == 400
    # The parser's own exception holds the whole document: it must not hang on ours.
    assert error.__cause__ is None
    assert error.__context__ is None
    return error.problem


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"ten":"C\xc3\xb4ng","so":[1,2.5,-3,true,null]}', {"ten": "Công", "so": [1, 2.5, -3, True, None]}),
        (b" \t\r\n[] ", []),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\\\u0000"', "\\u0000"),
        (b'"\\\\\\\\u0000"', "\\\\u0000"),
        (b'"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["', "[" * 36),
        (b'"\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["', '"' + "[" * 36),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"1.7976931348623157e308", 1.7976931348623157e308),
        (b"1e-400", 0.0),
        (b"0", 0),
    ],
)  # fmt: skip
def test_good_json_is_read(raw: bytes, value: Any) -> None:
    assert loads(raw) == value


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"[" * 33 + b"]" * 33, "json-too-deep"),
        (b"[" * 100_000, "json-too-deep"),
        (b'{"a":' * 100_000, "json-too-deep"),
        (b'{"a":1,"a":1}', "json-duplicate-key"),
        (b'{"a":1,"\\u0061":2}', "json-duplicate-key"),
        (b'[{"x":{"k":1,"b":2,"k":3}}]', "json-duplicate-key"),
        (b"NaN", "json-number-range"),
        (b"[Infinity]", "json-number-range"),
        (b'{"a":-Infinity}', "json-number-range"),
        (b"1e400", "json-number-range"),
        (b"-1e400", "json-number-range"),
        (b"9223372036854775808", "json-number-range"),
        (b"-9223372036854775809", "json-number-range"),
        (b"1" * 5_000, "json-number-range"),
        (b"0." + b"1" * 5_000, "json-number-range"),
        (b'"a\0b"', "json-nul"),
        (b'"a\\u0000b"', "json-nul"),
        (b'{"a\\u0000":1}', "json-nul"),
        (b'"\\\\\\u0000"', "json-nul"),
        ('{"a":1}'.encode("utf-16-le"), "json-nul"),
        (b'\xef\xbb\xbf{"a":1}', "json-invalid"),
        ("[1]".encode("utf-16"), "json-nul"),
        (b"\xff\xfe", "json-invalid"),
        (b'"\xed\xa0\x80"', "json-invalid"),
        (b'"\xc0\xaf"', "json-invalid"),
        (b'"\\ud800"', "json-invalid"),
        (b'"\\udc00\\ud800"', "json-invalid"),
        (b'{"\\ud800":1}', "json-invalid"),
        (b"", "json-invalid"),
        (b"  ", "json-invalid"),
        (b"{", "json-invalid"),
        (b"]", "json-invalid"),
        (b"[}", "json-invalid"),
        (b"[1,]", "json-invalid"),
        (b'{"a":1,}', "json-invalid"),
        (b"{'a':1}", "json-invalid"),
        (b"[1] [2]", "json-invalid"),
        (b"01", "json-invalid"),
        (b"+1", "json-invalid"),
        (b".5", "json-invalid"),
        (b"0x10", "json-invalid"),
        (b"1_000", "json-invalid"),
        ("[١]".encode(), "json-invalid"),
        (b'"a\nb"', "json-invalid"),
        (b'"\\x41"', "json-invalid"),
        (b'"\\', "json-invalid"),
        (b"// a comment\n1", "json-invalid"),
        (b"\xc2\xa0[1]", "json-invalid"),
        (b"[" + b"0," * 10_000 + b"0]", "json-too-many-items"),
        (b"[" + b"{}," * 10_000 + b"{}]", "json-too-many-items"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(100_000)) + b"}", "json-too-many-items"),
    ],
)
def test_what_could_be_read_in_two_ways_or_hurts_is_refused_by_name(raw: bytes, name: str) -> None:
    assert problem(raw) == name


def test_the_limits_are_reached_before_they_are_broken() -> None:
    assert loads(b"[" * 32 + b"]" * 32)
    assert len(loads(b"[" + b"0," * 9_998 + b"0]")) == 9_999
    assert problem(b"[[[1]]]", max_depth=2) == "json-too-deep"
    assert problem(b"[1,2,3]", max_items=2) == "json-too-many-items"


def test_a_refusal_does_not_repeat_the_input() -> None:
    with pytest.raises(InputError) as raised:
        loads(b'{"phone":"0912555123",}')
    assert "0912" not in str(raised.value)


def test_a_megabyte_of_quotes_and_backslashes_is_measured_in_one_pass() -> None:
    # Quadratic, this would take minutes: every escaped quote would open a string up to the end again.
    assert problem(b'"' + b'\\"' * 500_000) == "json-invalid"
    assert problem(b'"' + b"\\" * 1_000_001) == "json-invalid"
    assert loads(b'"' + b"\\\\" * 500_000 + b'"') == "\\" * 500_000


TEXT = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(VALUE, st.booleans())
def test_every_value_of_json_comes_back_as_it_was(value: Any, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary() | st.text(alphabet='[]{}",:\\u0dD8cCeE+-.19 \ntfn', max_size=60).map(str.encode))
@example(b'{"":0,"":0}')
def test_any_bytes_are_read_as_a_strict_reader_does_or_refused(raw: bytes) -> None:
    try:
        value = loads(raw)
    except InputError as refusal:
        event(refusal.problem)
        return
    # orjson reads an integer beyond 64 bits as a float and keeps the last of two keys; nothing else differs.
    assert orjson.loads(raw) == value
    assert not isinstance(value, float) or math.isfinite(value)
