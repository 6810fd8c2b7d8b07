"""What an event type once promised, it keeps: changes that would break whoever sends or reads it, by rule.

``reference/event-schemas.json`` holds what was promised last. Additions are written into it by ``python -m
docs.generate``; a change that breaks is refused there and by ``tests/docs``, and needs a type of a new version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hub.contract import EventType

KEPT = Path(__file__).parent / "reference" / "event-schemas.json"
DO = "make a type of the next version (.v2), and mark this one deprecated with its successor"

_Schema = Mapping[str, Any]
#: Limits that may only become wider, and in which direction that is.
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
#: What cannot be compared: once said it may be dropped, never changed or added.
_WHOLE = ("pattern", "format", "multipleOf", "uniqueItems", "contentEncoding")
#: What cannot be judged at all: it stays as it is.
_CLOSED = ("anyOf", "oneOf", "allOf", "not", "if", "then", "else", "$ref", "patternProperties", "prefixItems")
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "array"}


def promise(kind: EventType) -> dict[str, Any]:
    """What is kept of a type: its schema without words, what leaves by default, and whether it is on its way out."""
    return {"schema": _wordless(kind.schema), "thin": sorted(kind.thin), "deprecated": kind.deprecated}


def broken(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Every promise of ``old`` that ``new`` does not keep, each as one line; both by name of the type."""
    found = []
    for name, was in old.items():
        now = new.get(name)
        if now is None:
            if not was["deprecated"]:
                found.append(f"{name}: gone, and it was not deprecated before")
            continue
        found += [f"{name}: {field} no longer leaves by default" for field in was["thin"] if field not in now["thin"]]
        found += [f"{name}: {what}" for what in _schema(was["schema"], now["schema"], "data")]
    return found


def _wordless(schema: Any) -> Any:
    """Without what only people read; a property may be called like that."""
    if isinstance(schema, list | tuple):
        return [_wordless(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {k: v for k, v in schema.items() if k not in ("description", "title", "$schema", "$comment", "examples")}
    fields = kept.get("properties")
    return {k: _wordless(v) for k, v in kept.items() if k != "properties"} | (
        {"properties": {name: _wordless(each) for name, each in fields.items()}} if fields is not None else {}
    )


def _schema(was: _Schema, now: _Schema, at: str) -> Iterator[str]:
    if _types(was) != _types(now):
        yield f"{at} was {_types(was)}, is {_types(now)}"
        return
    yield from _values(was, now, at)
    yield from _limits(was, now, at)
    yield from _fields(was, now, at)
    if "items" in was or "items" in now:
        yield from _schema(was.get("items", {}), now.get("items", {}), at + "[]")


def _types(schema: _Schema) -> list[str]:
    """What kinds of value it takes, also where only the values are named."""
    said = schema.get("type")
    if said is not None:
        return sorted([said] if isinstance(said, str) else said)
    values = _named(schema)
    return [] if values is None else sorted({_JSON_TYPES.get(type(value), "object") for value in values})


def _named(schema: _Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _values(was: _Schema, now: _Schema, at: str) -> Iterator[str]:
    before, after = _named(was), _named(now)
    if after is None:
        return
    if before is None:
        yield f"{at} took any value, takes {after} alone"
    elif gone := [value for value in before if value not in after]:
        yield f"{at} no longer takes {gone}"


def _limits(was: _Schema, now: _Schema, at: str) -> Iterator[str]:
    for name in (*_UPPER, *_LOWER):
        if name not in now:
            continue
        narrower = name not in was or (now[name] < was[name] if name in _UPPER else now[name] > was[name])
        if narrower:
            yield f"{at}: {name} was {was.get(name, 'not limited')}, is {now[name]}"
    for name in _WHOLE:
        if now.get(name, False) is not False and now[name] != was.get(name):
            yield f"{at}: {name} was {was.get(name, 'not said')}, is {now[name]}"
    for name in _CLOSED:
        if was.get(name) != now.get(name):
            yield f"{at}: {name} is another"


def _fields(was: _Schema, now: _Schema, at: str) -> Iterator[str]:
    before, after = was.get("properties", {}), now.get("properties", {})
    yield from (f"{at}.{name} is gone" for name in before if name not in after)
    needed, needed_now = set(was.get("required", ())), set(now.get("required", ()))
    yield from (f"{at}.{name} is required now" for name in sorted(needed_now - needed))
    yield from (f"{at}.{name} is no longer always there" for name in sorted(needed - needed_now))
    for name in before.keys() & after.keys():
        yield from _schema(before[name], after[name], f"{at}.{name}")
    more, more_now = was.get("additionalProperties", True), now.get("additionalProperties", True)
    if isinstance(more, Mapping) and isinstance(more_now, Mapping):
        yield from _schema(more, more_now, at + ".*")
    elif more_now is not True and more is not False and more != more_now:
        yield f"{at} no longer takes other fields"
