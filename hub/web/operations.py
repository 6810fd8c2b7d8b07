"""What the API can do, as one table: its routes, its document and the scopes of keys are all made from it.

An operation is a read of the core (``hub.web.api``) or a command with ``rest`` (``hub.contract.Command``).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError

from hub import strictjson
from hub.app import HubApp
from hub.contract import Command, Report
from hub.errors import InputError
from hub.log import log
from hub.model import Json
from hub.web.parameters import shown, wrong

_PATH = re.compile(r"(/([a-z0-9_.:-]+|\{[a-z][a-z0-9_]*\}))+", re.ASCII)
_BRACES = re.compile(r"\{([a-z0-9_]+)\}", re.ASCII)
_INSTANT = {"format": "date-time"}
#: What no name or text in an address holds; the document says so too.
_UNSEEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path below ``/api/v1``."""

    method: str
    path: str
    id: str
    summary: str
    scope: str
    params: type[BaseModel]
    run: Callable[[HubApp, Any], Awaitable[Json]]
    answer: Json
    status: int = 200
    writes: bool = False
    takes_test_keys: bool = False
    narrows: bool = True
    #: Names in braces in the path.
    in_path: tuple[str, ...] = field(init=False)
    #: JSON Schema of the body, where there is one: what the document says is what is checked.
    body: Json = field(init=False)
    #: Names of instants in the address: a model takes a bare number for one.
    instants: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "instants", _instants(self.params))
        object.__setattr__(self, "in_path", tuple(_BRACES.findall(self.path)))
        object.__setattr__(self, "body", _body_schema(self.params, self.in_path) if self.has_body else {})

    @property
    def has_body(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH")

    def names(self) -> list[str]:
        """As they are written on the wire."""
        return [info.alias or name for name, info in self.params.model_fields.items()]


def _body_schema(params: type[BaseModel], in_path: tuple[str, ...]) -> Json:
    schema = params.model_json_schema()
    properties = {name: each for name, each in schema.get("properties", {}).items() if name not in in_path}
    found: Json = {
        "type": "object",
        "properties": properties,
        "required": [name for name in schema.get("required", ()) if name in properties],
        "additionalProperties": False,
    }
    return found | ({"$defs": schema["$defs"]} if "$defs" in schema else {})


def _instants(params: type[BaseModel]) -> frozenset[str]:
    properties = params.model_json_schema().get("properties", {}).items()
    return frozenset(n for n, p in properties if any(o.get("format") == "date-time" for o in p.get("anyOf", [p])))


def of_commands(commands: Mapping[str, Command]) -> Iterator[Operation]:
    """Those of the commands that answer over HTTP; one that says so wrongly is named and left out."""
    taken: set[tuple[str, str]] = set()
    for name, command in commands.items():
        rest = command.rest
        if rest is None:
            continue
        where = (rest.method, _BRACES.sub("{}", rest.path))
        operation = Operation(
            method=rest.method,
            path=rest.path,
            id=re.sub(r"[^a-z0-9]+", "_", name),
            summary=f"{command.help_vi} / {command.help_en}",
            scope=rest.scope,
            params=command.params,
            run=_runner(command),
            answer=command.answer,
            status=rest.status,
            writes=command.writes,
            takes_test_keys=rest.takes_test_keys,
            narrows=rest.narrows,
        )
        if where in taken or not _PATH.fullmatch(rest.path) or set(operation.in_path) - set(operation.names()):
            log("plugin.raised", plugin=name, error="rest_path")
            continue
        taken.add(where)
        yield operation


def _runner(command: Command) -> Callable[[HubApp, Any], Awaitable[Json]]:
    async def run(hub: HubApp, params: Any) -> Json:
        try:
            return await command.run(hub, params, _unseen)
        except InputError as error:
            if error.problem != "id-invalid":
                raise
            # Said for a terminal, which may repeat what was typed.
            raise InputError("not an id", problem="id-invalid", status=error.http_status, at="id") from None

    return run


_unseen: Report = lambda progress: None  # noqa: E731 - a value of that type


# -- reading a request -----------------------------------------------------------------------------


def parameters(operation: Operation, request: web.Request, body: bytes) -> tuple[BaseModel, bytes]:
    """The operation's params, and what was asked in one canonical form.

    Raises: InputError 400 for what stands in the address, 422 for what stands in the body, each naming the place.
    """
    known = operation.names()
    path = {name: request.match_info[name] for name in operation.in_path}
    query = _query(request)
    allowed = [] if operation.has_body else [name for name in known if name not in path]
    for name in query:
        if name not in allowed:
            raise wrong(name, "unknown; known are " + (", ".join(allowed) or "none"))
    for name, value in (*path.items(), *query.items()):
        if _UNSEEN.search(value):
            raise wrong(name, "control characters, or bytes that are not UTF-8")
        if name in operation.instants and strictjson.misfit(_INSTANT, value):
            raise wrong(name, "not an instant as RFC 3339 writes it")
    given: Json = query
    if operation.has_body:
        given = _body(request, body)
        for name in given:
            if name not in operation.body["properties"]:
                raise _unfit([name], "unknown; known are " + (", ".join(operation.body["properties"]) or "none"))
        # As the document says, so strictly: the model alone would take a text for a number. What is missing it names.
        found = strictjson.misfit(operation.body, given)
        if found is not None and not found[1].startswith("required"):
            raise InputError(f"does not fit {found[1]}", problem="input-invalid", status=422, at="#" + found[0])
    asked = orjson.dumps([given, path], option=orjson.OPT_SORT_KEYS)
    return _validated(operation, {**given, **path}, path), asked


def _query(request: web.Request) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise wrong(name, "given twice")
        given[name] = value
    return given


def _body(request: web.Request, body: bytes) -> Json:
    if not body:
        return {}
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise InputError(problem="media-type-unsupported", status=415)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise InputError(problem="content-encoding-unsupported", status=415)
    given = strictjson.loads(body)
    if not isinstance(given, dict):
        raise InputError("a JSON object", problem="input-invalid", status=422, at="#")
    return given


def _validated(operation: Operation, given: Json, path: Mapping[str, str]) -> BaseModel:
    try:
        return operation.params.model_validate(given, context={"rest": True})
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        where = [str(part) for part in first["loc"]]
        # pydantic quotes a character of the input here
        what = "not an id" if first["type"].startswith("uuid") else first["msg"].removeprefix("Value error, ")
        if operation.has_body and not (where and where[0] in path):
            raise _unfit(where, what) from None
        raise wrong(where[0] if where else "", what) from None


def _unfit(where: list[str], what: str) -> InputError:
    """A pointer names only what may be shown: keys are input too."""
    pointer = "#" + "".join(f"/{part}" if shown(part) else "/*" for part in where)
    return InputError(what, problem="input-invalid", status=422, at=pointer)
