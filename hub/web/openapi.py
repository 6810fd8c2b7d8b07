"""The OpenAPI 3.1 document, from the table the routes are made from and the catalogue of event types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hub import __version__
from hub.api_commands import SCOPES
from hub.contract import EventType
from hub.model import Json
from hub.web.operations import Operation

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PROBLEMS = {
    400: "The request is not well formed, or a parameter is wrong; it is named.",
    401: "No key, or one that is not valid any more.",
    403: "The key does not have the scope.",
    404: "No such thing, or not for this key.",
    408: "The body came too slowly.",
    409: "It cannot be done as things stand, or the first request with this Idempotency-Key still runs.",
    413: "The body is too large.",
    415: "Only uncompressed application/json in UTF-8 is read.",
    422: "A field is wrong: `errors` points at it; or the Idempotency-Key was used for another request.",
    429: "Too many requests: wait for Retry-After.",
    503: "The ledger is busy: nothing was stored, wait for Retry-After.",
}
_READING, _WRITING = (400, 401, 403, 404, 429, 503), tuple(sorted(_PROBLEMS))
_NO_NUL = "^[^\\x00]*$"
_INTEGER = {"schema": {"type": "integer"}}
_HEADERS: Json = {
    "RateLimit": {"description": "What is left of the key's requests: r; and when all are back, in seconds: t.",
                  "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "How many requests the key may make (q) in how many seconds (w).",
                         "schema": {"type": "string"}},
}  # fmt: skip


def document(base: str, table: Iterable[Operation], event_types: Iterable[EventType]) -> Json:
    """The whole document."""
    schemas: Json = {"Problem": _problem_schema()}
    paths: dict[str, Json] = {}
    table, event_types = list(table), list(event_types)
    for operation in table:
        paths.setdefault(base + operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    known = {
        "scopes": sorted(SCOPES.keys() | {operation.scope for operation in table}),
        "event_types": sorted(kind.name for kind in event_types),
    }
    described: Json = _listed(_described(paths, schemas, event_types), known)
    return described


def _described(paths: Json, schemas: Json, event_types: Iterable[EventType]) -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Union Hub",
            "version": __version__,
            "description": "What the ledger holds and what may be asked of it. Errors are RFC 9457 problem documents.",
        },
        "paths": paths,
        "webhooks": {kind.name: {"post": _webhook(kind)} for kind in event_types},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "hub_live_... or hub_test_..."}
            },
        },
        # On loopback the hub may answer without: whoever is on the machine is its operator.
        "security": [{}, {"key": []}],
    }


def _listed(schema: Any, known: Mapping[str, list[str]]) -> Any:
    """A text that says ``one_of`` is one of what this installation knows."""
    if isinstance(schema, list):
        return [_listed(each, known) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if (of := schema.get("one_of")) in known and isinstance(of, str):
        kept = {k: v for k, v in schema.items() if k not in ("one_of", "maxLength", "pattern")}
        return {**kept, "enum": known[of]}
    return {key: _listed(value, known) for key, value in schema.items()}


def _operation(operation: Operation, schemas: Json) -> Json:
    schema = _own(operation, schemas)
    found: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": f"Scope `{operation.scope}`.",
        "parameters": _parameters(operation, schema),
        "responses": {
            str(operation.status): {
                "description": "The answer.",
                "headers": _HEADERS,
                "content": {"application/json": {"schema": operation.answer}},
            },
            **{
                str(status): {"description": _PROBLEMS[status], "content": _PROBLEM}
                | ({"headers": {"Retry-After": _INTEGER}} if status in (429, 503) else {})
                for status in (_WRITING if operation.has_body else _READING)
            },
        },
    }
    if operation.has_body:
        properties = {n: _shown(p) for n, p in schema.get("properties", {}).items() if n not in operation.in_path}
        required = [name for name in schema.get("required", ()) if name in properties]
        taken = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            taken["required"] = required
        found["requestBody"] = {"required": bool(required), "content": {"application/json": {"schema": taken}}}
    return found


def _own(operation: Operation, schemas: Json) -> Json:
    """The params' schema; what it refers to becomes a component named after the operation."""
    template = f"#/components/schemas/{operation.id}.{{model}}"
    schema = operation.params.model_json_schema(ref_template=template)
    for name, definition in schema.pop("$defs", {}).items():
        schemas[f"{operation.id}.{name}"] = _shown(definition)
    return schema


def _parameters(operation: Operation, schema: Json) -> list[Json]:
    properties: Json = schema.get("properties", {})
    required = schema.get("required", ())
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": _plain(properties[name])} for name in operation.in_path
    ]
    if operation.has_body:
        if operation.method == "POST":
            found.append(
                {
                    "name": "Idempotency-Key", "in": "header", "required": False,
                    "description": "The same request again within 24 hours gets the same answer.",
                    "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
                }
            )  # fmt: skip
        return found
    return found + [
        {
            "name": name, "in": "query", "required": name in required, "description": prop.get("description", ""),
            "schema": _plain(prop),
        }
        for name, prop in properties.items()
        if name not in operation.in_path
    ]  # fmt: skip


def _shown(schema: Any) -> Any:
    """Without what only the command line needs; texts in JSON hold no NUL (``hub.strictjson``)."""
    if isinstance(schema, list):
        return [_shown(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    shown = {k: _shown(v) for k, v in schema.items() if k != "argument" and not (k == "title" and isinstance(v, str))}
    if shown.get("type") == "string" and not {"pattern", "enum", "const", "format"} & shown.keys():
        shown["pattern"] = _NO_NUL
    return shown


def _plain(prop: Json) -> Json:
    """A parameter's schema; an absent parameter is the null of an optional one."""
    options = [o for o in prop.get("anyOf", [prop]) if o.get("type") != "null"]
    plain = {k: v for k, v in _shown(options[0]).items() if k not in ("description", "default")}
    if (
        plain.get("type") == "string"
        and plain.get("pattern", _NO_NUL) == _NO_NUL
        and not {"enum", "format"} & plain.keys()
    ):
        plain["pattern"] = "^[^\\x00-\\x1f\\x7f]*$"
    if prop.get("default") is not None:
        plain["default"] = prop["default"]
    return plain


def _webhook(kind: EventType) -> Json:
    event = {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "time", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string"},
            "source": {"type": "string", "format": "uri-reference"},
            "type": {"const": kind.name},
            "time": {"type": "string", "format": "date-time"},
            "subject": {"type": "string"},
            "data": _part_of(kind.schema),
        },
    }
    return {
        "operationId": "webhook_" + kind.name.replace(".", "_").replace("-", "_"),
        "summary": f"{kind.title_vi} / {kind.title_en}",
        **({"deprecated": True} if kind.deprecated else {}),
        "description": (f"Deprecated: take {kind.successor}. " if kind.successor else "")
        + "A CloudEvents 1.0 event in structured mode, signed as Standard Webhooks 1.0 says. Of `data`"
        " only the fields that were granted are there.",
        "requestBody": {"required": True, "content": {"application/cloudevents+json": {"schema": event}}},
        "responses": {"2XX": {"description": "Taken. Any other answer is tried again."}},
    }


def _part_of(schema: Any) -> Json:
    """What is granted of an object may lack any of its fields."""
    return {key: value for key, value in schema.items() if key not in ("required", "$schema", "$id")}


def _problem_schema() -> Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["detail"],
                    "properties": {"pointer": text, "parameter": text, "detail": text},
                },
            },
        },
    }
