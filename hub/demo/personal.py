"""Searches what a run left behind for what nobody may read there: people's data and the connections' secrets."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator

from hub.demo.stage import Books

#: As a list or a person writes them; digits of ids and durations are longer or shorter.
_PHONE = re.compile(r"(?<![0-9a-zA-Z])(?:\+?84|0)([0-9]{9})(?![0-9a-zA-Z])")
_CITIZEN = re.compile(r"(?<![0-9a-fA-F])[0-9]{12}(?![0-9a-fA-F])")
#: A secret shorter than this would be found in ordinary words.
_SECRET_LENGTH = 6


def readable(books: Books) -> list[str]:
    """One fault per file or table and kind of value; the values themselves are not repeated."""
    told = json.loads((books.folder / "list.json").read_text())
    planted: dict[str, str] = told["canaries"]
    phones = {m["phone"][-9:] for m in told["members"] if m["phone"]}
    numbers = {m["citizen_number"] for m in told["members"] if m["citizen_number"]}
    secrets = list(_secrets(books))
    faults = []
    for name, text in _texts(books):
        text = unicodedata.normalize("NFC", text)
        found = {kind for kind, pattern in _patterns(planted).items() if pattern.search(text)}
        found |= {"phone" for match in _PHONE.finditer(text) if match[1] in phones}
        found |= {"citizen_number" for match in _CITIZEN.finditer(text) if match[0] in numbers}
        found |= {"secret" for secret in secrets if secret in text}
        faults += [f"{name}: a {kind} is readable" for kind in sorted(found)]
    for name, raw in _raw(books):
        faults += [
            f"{name}: the planted {kind} is readable"
            for kind, value in sorted(planted.items())
            if value.removeprefix("+84").encode() in raw
        ]
    return faults


def _texts(books: Books) -> Iterator[tuple[str, str]]:
    """Logs of both sides; pages, metrics and problem documents as they were seen; what a table says in clear."""
    for path in (books.hub_log, *books.logs.values(), *sorted(books.seen.glob("*"))):
        yield path.name, path.read_text(errors="replace")
    if books.database_url:
        for table, rows in books.ledger.tables():
            yield f"table {table}", "\n".join(str(v) for row in rows for v in row if not isinstance(v, bytes))


def _raw(books: Books) -> Iterator[tuple[str, bytes]]:
    """The database's files, or the sealed and hashed columns of every table."""
    for path in sorted(books.config.database.parent.glob(books.config.database.name + "*")):
        yield path.name, path.read_bytes()
    if books.database_url:
        for table, rows in books.ledger.tables():
            yield f"table {table}", b"\n".join(v for row in rows for v in row if isinstance(v, bytes))


def _patterns(planted: dict[str, str]) -> dict[str, re.Pattern[str]]:
    """The planted values however they are grouped, cased or escaped."""
    name = planted["name"]
    spellings = (name, json.dumps(name)[1:-1], unicodedata.normalize("NFD", name).encode("ascii", "ignore").decode())
    patterns = {"name": re.compile("|".join(map(re.escape, spellings)), re.IGNORECASE)}
    for kind in ("phone", "citizen_number"):
        patterns[kind] = re.compile(r"[ .-]?".join(planted[kind].removeprefix("+84")))
    return patterns


def _secrets(books: Books) -> Iterator[str]:
    for path in (books.config.folder / "secrets").iterdir():
        secret = path.read_text().strip().removeprefix("whsec_")
        if len(secret) >= _SECRET_LENGTH:
            yield secret
