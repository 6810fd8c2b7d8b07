"""Query parameters as pydantic models: what is unknown, repeated or wrong is refused by name, never echoed."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hub.errors import InputError

#: Names of destinations and codes of reasons: nothing that a database or a page could stumble over.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./:@-]{1,200}$")]
_SHOWABLE = re.compile(r"[A-Za-z0-9_.-]{1,40}", re.ASCII)


class Parameters(BaseModel):
    """The query of one route."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Parameters)


def read(model: type[P], request: web.Request, *, empty_is_absent: bool = False) -> P:
    """The request's query. Raises ``InputError`` naming the parameter.

    ``empty_is_absent``: a form sends every field, also those left empty.
    """
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise wrong(name, "given twice")
        if value or not empty_is_absent:
            given[name] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            raise wrong(name, "unknown; known are " + (", ".join(model.model_fields) or "none")) from None
        # pydantic quotes a character of the input here
        what = "not an id" if first["type"].startswith("uuid") else first["msg"]
        raise wrong(name, what) from None


def shown(name: str) -> bool:
    """Whether a name that came in may be repeated."""
    return _SHOWABLE.fullmatch(name) is not None


def wrong(name: str, what: str) -> InputError:
    """What is wrong with a parameter of the address."""
    known = shown(name)
    said = f"'{name}'" if known else "a parameter"
    return InputError(f"{said}: {what}", problem="input-invalid", status=400, at=name if known else "")
