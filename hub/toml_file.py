"""Reading one configuration file so that every problem can name its line, in Vietnamese and English.

Values from a file are never repeated in a problem: what stands in the wrong place may be a secret.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Loc = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""\s*(?:"[^"]*"|'[^']*'|[^."']+)""")
_SYNTAX = re.compile(r"\(at line (\d+)")
#: Error types of pydantic-core and what the reader must write instead.
_EXPECTED = {
    "int": ("phải là số nguyên, không có dấu nháy", "must be a whole number without quotes"),
    "float": ("phải là số, không có dấu nháy", "must be a number without quotes"),
    "bool": ("phải là true hoặc false, không có dấu nháy", "must be true or false without quotes"),
    "string": ("phải là chữ trong dấu nháy", "must be text in quotes"),
    "tuple": ("phải là danh sách [ ... ]", "must be a list [ ... ]"),
    "list": ("phải là danh sách [ ... ]", "must be a list [ ... ]"),
    "dict": ("phải là bảng [ tên ] hoặc { ... }", "must be a table [ name ] or { ... }"),
    "model": ("phải là bảng [ tên ] hoặc { ... }", "must be a table [ name ] or { ... }"),
    "missing": ("thiếu khóa này, bắt buộc phải có", "this key is required and missing"),
}
_LIMITS = {
    "greater_than": ("phải lớn hơn", "must be more than", "gt"),
    "greater_than_equal": ("phải từ", "must be at least", "ge"),
    "less_than": ("phải nhỏ hơn", "must be less than", "lt"),
    "less_than_equal": ("phải không quá", "must be at most", "le"),
    "too_short": ("số phần tử ít nhất là", "needs at least this many items:", "min_length"),
    "string_too_short": ("số ký tự ít nhất là", "needs at least this many characters:", "min_length"),
    "string_too_long": ("số ký tự nhiều nhất là", "takes at most this many characters:", "max_length"),
    "string_pattern_mismatch": ("phải đúng mẫu", "must match", "pattern"),
}


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in the configuration: ``where`` is file:line or the name of a variable."""

    where: str
    key: str
    vi: str
    en: str

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        return f"{place}: {self.vi} / {self.en}"


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A parsed file and the line of every key and table header in it."""

    shown: str
    data: dict[str, Any]
    lines: Mapping[Loc, int]

    def problem(self, loc: Loc, vi: str, en: str) -> Problem:
        """A problem at ``loc``, or at the nearest thing around it that has a line."""
        line = next((self.lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in self.lines), 1)
        return Problem(f"{self.shown}:{line}", dotted(loc), vi, en)

    def validate(self, model: type[M], data: Any, at: Loc, problems: list[Problem]) -> M | None:
        """``data`` as ``model``, strictly typed; None after appending what is wrong with it.

        Strict JSON rules are used, because they take lists for tuples and text for enums and paths but
        neither "8080" for a number nor 1 for true.
        """
        try:
            return model.model_validate_json(orjson.dumps(data), strict=True)
        except ValidationError as error:
            for loc, vi, en in explained(error, model):
                problems.append(self.problem(at + loc, vi, en))
        return None


def read(path: Path, shown: str, problems: list[Problem]) -> TomlFile | None:
    """The file at ``path``; None after appending why it cannot be read. ``shown`` is its name in problems."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return TomlFile(shown, tomllib.loads(text), _lines(text))
    except FileNotFoundError:
        problems.append(Problem(shown, "", "không có tệp này", "this file is missing"))
    except UnicodeDecodeError:
        problems.append(Problem(shown, "", "tệp phải ghi bằng mã UTF-8", "the file must be UTF-8"))
    except OSError as error:
        why = error.strerror or type(error).__name__
        problems.append(Problem(shown, "", f"không đọc được tệp ({why})", f"cannot be read ({why})"))
    except tomllib.TOMLDecodeError as error:
        # The parser's text may quote a value; its line number is all that is kept of it.
        at = _SYNTAX.search(str(error))
        line = at[1] if at else str(text.count("\n") + 1)
        vi = "không đúng cú pháp TOML (thiếu dấu nháy, thiếu dấu ngoặc hoặc ghi một khóa hai lần?)"
        en = "not valid TOML (a missing quote or bracket, or a key written twice?)"
        problems.append(Problem(f"{shown}:{line}", "", vi, en))
    return None


def explained(error: ValidationError, model: type[BaseModel]) -> list[tuple[Loc, str, str]]:
    """Each pydantic error as its place, a Vietnamese and an English sentence, without the value found."""
    details = error.errors(include_url=False, include_input=False)
    # A list whose items are wrong is counted as too short besides: only the items are worth a line.
    inner = {detail["loc"][:-1] for detail in details}
    kept = (d for d in details if not (d["type"] == "too_short" and d["loc"] in inner))
    return [(detail["loc"], *_explain(detail, model)) for detail in kept]


def _explain(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    kind, ctx, loc = detail["type"], detail.get("ctx", {}), detail["loc"]
    if kind == "extra_forbidden":
        inner = _model_at(model, loc[:-1])
        return unknown(str(loc[-1]), list(inner.model_fields) if inner else [])
    if ctx.get("class_name") == "SecretRef":
        return (
            'không ghi bí mật vào tệp TOML; ghi { file = "secrets/TÊN" } hoặc { env = "TÊN_BIẾN" }',
            'a secret is never written into TOML; write { file = "secrets/NAME" } or { env = "NAME" }',
        )
    if kind == "literal_error":
        return f"chỉ nhận {ctx['expected']}", f"takes only {ctx['expected']}"
    if kind == "value_error":
        return bilingual(str(ctx["error"]))
    if kind in _LIMITS:
        vi, en, name = _LIMITS[kind]
        return f"{vi} {ctx.get(name)}", f"{en} {ctx.get(name)}"
    family = "missing" if kind == "missing" else kind.split("_", 1)[0]
    return _EXPECTED.get(family, ("giá trị không hợp lệ", f"not valid ({kind})"))


def bilingual(text: str) -> tuple[str, str]:
    """A validator's own sentence, "Vietnamese / English", in its two parts."""
    vi, _, en = text.partition(" / ")
    return (vi, en) if en else ("giá trị không hợp lệ", text)


def unknown(name: str, allowed: Collection[str]) -> tuple[str, str]:
    """ "No such name", with the nearest ones, or all of them when none is near."""
    near = difflib.get_close_matches(name, allowed, n=3, cutoff=0.5) or sorted(allowed)
    names = ", ".join(near) or "-"
    return f"không có tên này; các tên gần nhất được dùng: {names}", f"unknown; the nearest allowed: {names}"


def dotted(loc: Sequence[str | int]) -> str:
    """``("subscription", 2, "types")`` as ``subscription[3].types``: people count from one."""
    text = ""
    for part in loc:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _model_at(model: type[BaseModel] | None, loc: Loc) -> type[BaseModel] | None:
    for part in loc:
        if model is None:
            return None
        if isinstance(part, str):
            found = model.model_fields.get(part)
            model = _model_in(found.annotation) if found else None
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_model_in, get_args(annotation)) if m), None)


def _lines(text: str) -> dict[Loc, int]:
    """The first line of every key. A line inside a multi-line string may be taken for a key: only an aim."""
    lines: dict[Loc, int] = {}
    counts: dict[str, int] = {}
    table: Loc = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            name, *rest = _parts(header[2])
            if header[1] == "[[" and not rest:
                counts[name] = counts.get(name, -1) + 1
            table = (name, counts[name], *rest) if name in counts else (name, *rest)
            here = table
        elif key := _KEY.match(line):
            here = (*table, *_parts(key[1]))
        else:
            continue
        for n in range(len(here), 0, -1):
            lines.setdefault(here[:n], number)
    return lines


def _parts(name: str) -> list[str]:
    return [part.strip().strip("\"'") for part in _PART.findall(name)]
