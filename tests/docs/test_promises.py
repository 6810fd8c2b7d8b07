"""An event type keeps what it promised: every kind of change that would break somebody is found, additions are not."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from docs import generate, promises

KEPT = json.loads(promises.KEPT.read_text("utf-8"))
NAME = "vn.congdoan.thing.made.v1"
WAS: dict[str, Any] = {
    "thin": ["id"],
    "deprecated": False,
    "schema": {
        "type": "object",
        "required": ["id", "size"],
        "properties": {
            "id": {"type": "string", "maxLength": 20, "minLength": 2},
            "size": {"type": ["integer", "null"], "minimum": 1},
            "colour": {"enum": ["red", "blue"]},
            "free": {"type": "string"},
            "of": {"type": "object", "additionalProperties": False, "properties": {"a": {"type": "boolean"}}},
            "parts": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        },
    },
}
PROPERTIES = WAS["schema"]["properties"]


def changed(path: str, value: Any) -> dict[str, Any]:
    """The type with another value at a dotted path; None: without it."""
    now = deepcopy(WAS)
    at: Any = now
    *above, last = path.split(".")
    for name in above:
        at = at[name]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return now


def found(now: dict[str, Any]) -> list[str]:
    return promises.broken({NAME: WAS}, {NAME: now})


P = "schema.properties"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{P}.free", None),
        (f"{P}.of.properties.a", None),
        (f"{P}.parts.items.properties.n", None),
        ("schema.required", ["id", "size", "colour"]),
        ("schema.required", ["id"]),
        (f"{P}.id.type", "integer"),
        (f"{P}.size.type", "integer"),
        (f"{P}.size.type", ["integer", "null", "string"]),
        (f"{P}.parts.items.properties.n.type", "string"),
        (f"{P}.colour.enum", ["red"]),
        (f"{P}.colour", {"const": "red"}),
        (f"{P}.free.enum", ["x"]),
        (f"{P}.free.pattern", "^x"),
        (f"{P}.free.maxLength", 9),
        (f"{P}.id.maxLength", 10),
        (f"{P}.id.minLength", 3),
        (f"{P}.size.minimum", 2),
        (f"{P}.parts.minItems", 1),
        (f"{P}.free.anyOf", [{"minLength": 1}]),
        ("schema.additionalProperties", False),
        ("thin", ["free"]),
    ],
)  # fmt: skip
def test_a_change_that_breaks_whoever_sends_or_reads_is_found(path: str, value: Any) -> None:
    assert len(found(changed(path, value))) == 1, path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{P}.new", {"type": "string"}),
        (f"{P}.of.properties.b", {"type": "string"}),
        (f"{P}.colour.enum", ["red", "blue", "green"]),
        (f"{P}.colour", {"type": "string"}),
        (f"{P}.id.maxLength", 40),
        (f"{P}.id.minLength", None),
        (f"{P}.of.additionalProperties", True),
        ("thin", ["id", "free"]),
        ("deprecated", True),
    ],
)
def test_what_is_added_or_made_wider_is_no_break(path: str, value: Any) -> None:
    assert found(changed(path, value)) == []


def test_a_type_goes_only_after_it_was_deprecated() -> None:
    assert len(promises.broken({NAME: WAS}, {})) == 1
    assert promises.broken({NAME: changed("deprecated", True)}, {}) == []


def test_every_shipped_event_type_keeps_its_promises() -> None:
    now = json.loads(generate.event_schemas())
    assert promises.broken(KEPT, now) == [], promises.DO
    assert now == KEPT, "python -m docs.generate"


def test_a_break_of_a_shipped_type_is_not_written_down_as_the_new_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "vn.congdoan.member.updated.v1"
    more = deepcopy(KEPT)
    more[name]["schema"]["properties"]["member_name"] = {"type": "string"}
    kept = tmp_path / promises.KEPT.name
    kept.write_text(json.dumps(more))
    monkeypatch.setattr(promises, "KEPT", kept)
    assert generate.main([]) == 1
    assert f"{name}: data.member_name is gone" in capsys.readouterr().err
    assert json.loads(kept.read_text()) == more
