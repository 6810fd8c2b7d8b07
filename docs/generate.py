"""Writes the tables of the documentation from the code: ``python -m docs.generate`` (``--check`` writes nothing).

A page holds a marker pair per table, ``<!-- generated: NAME -->`` and ``<!-- end -->``; what stands between
them is replaced. ``tests/docs`` fails while a page differs from what the code says.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import click
from pydantic import BaseModel

from docs import promises
from hub import cli, contract, hookspecs, metrics, model, plugins, retry, settings_model
from hub.errors import HubError
from hub.ingest import QUARANTINED
from hub.log import LOG_EVENTS
from hub.plugins import Registry, load_plugins
from hub.routing import project
from hub.web import api, code_texts, problems
from plugins.members.codes import REFUSALS, ROW_NOTES, ROW_REASONS
from plugins.partners.schema import cloud_event

DOCS = Path(__file__).parent
MARKED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


# -- writing Markdown ------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), "| " + " | ".join("---" for _ in head) + " |", *map(line, rows)])


def code(value: object) -> str:
    return f"`{value}`"


def codes(values: Iterable[object]) -> str:
    return ", ".join(map(code, values)) or "–"


def first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def plain(text: str) -> str:
    """A docstring's double backticks are Markdown's single ones."""
    return text.replace("``", "`")


# -- settings --------------------------------------------------------------------------------------

_LIMITS = {
    "minimum": "≥ {}", "maximum": "≤ {}", "exclusiveMinimum": "> {}", "exclusiveMaximum": "< {}",
    "minItems": "at least {} of them", "maxItems": "at most {} of them",
}  # fmt: skip


def kind_of(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """What may be written for a setting, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return "secret reference" if name == "SecretRef" else kind_of(defs[name], defs)
    if "anyOf" in schema:
        return " or ".join(kind_of(s, defs) for s in schema["anyOf"] if s.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " or ".join(code(json.dumps(v)) for v in schema.get("enum", [schema.get("const")]))
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    low, high = schema.get("minLength"), schema.get("maxLength")
    if high is not None:
        limits.append(f"{low or 0} to {high} characters")
    match schema.get("type"):
        case "array":
            word = f"list of {kind_of(schema['items'], defs)}"
        case "object":
            word = "table"
        case "string":
            word = "text"
        case "integer":
            word = "whole number"
        case "boolean":
            word = "`true` or `false`"
        case other:
            word = str(other)
    return f"{word}, {', '.join(limits)}" if limits else word


def default_of(field: Any) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, Path):
        value = str(value)
    return code(json.dumps(value, ensure_ascii=False))


def connection_file() -> str:
    inbound = settings_model.InboundSettings
    keys = settings_table(settings_model.ConnectionFile)
    of_inbound = f"| `inbound` | table | none | Yêu cầu gửi đến. {first_line(inbound)} |"
    return f"{keys}\n{of_inbound}\n\n### `[inbound]`\n\n{settings_table(inbound)}"


def settings_table(of: type[BaseModel], prefix: str | None = None) -> str:
    """One row per key; ``prefix``: of the environment variables that replace them."""
    schema = of.model_json_schema()
    rows = []
    for name, field in of.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, settings_model.Section):
            continue
        means = f"{field.title}. {field.description}"
        row = [code(name), kind_of(schema["properties"][name], schema.get("$defs", {})), default_of(field), means]
        if prefix is not None:
            row.insert(1, code(prefix + name.upper()))
        rows.append(row)
    head = ["key", "value", "default", "meaning"]
    if prefix is not None:
        head.insert(1, "variable")
    return table(head, rows)


def hub_settings() -> str:
    parts = ["### Top of the file\n", settings_table(settings_model.HubFile, settings_model.PREFIX)]
    for name, field in settings_model.HubFile.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, settings_model.Section):
            prefix = f"{settings_model.PREFIX}{name.upper()}{settings_model.DELIMITER}"
            parts += [f"\n### `[{name}]`: {field.title}\n", f"{first_line(section)}\n", settings_table(section, prefix)]
    return "\n".join(parts)


def connector_types(registry: Registry) -> str:
    parts = []
    for name, kind in sorted(registry.connector_types.items()):
        simulated = f"; simulator `{kind.simulator.module}`" if kind.simulator else ""
        channel = f"; addresses of channel `{kind.channel}`" if kind.channel else ""
        parts += [
            f"### `{name}`: {kind.title_vi} / {kind.title_en}\n",
            f"{first_line(kind.settings)} Keys of `[settings]`{channel}{simulated}.\n",
            settings_table(kind.settings) + "\n",
        ]
    return "\n".join(parts).rstrip("\n")


# -- states ----------------------------------------------------------------------------------------


def states() -> str:
    rows = []
    for state in model.State:
        vi, en = code_texts.STATES[state.value]
        rows.append(
            [
                code(state.value), vi, en, "no" if state not in model.UNSETTLED else "yes",
                "yes" if state in model.HOLDS_KEY else "no",
            ]
        )  # fmt: skip
    return table(["state", "Tiếng Việt", "English", "something still comes", "holds its ordering key"], rows)


def transitions() -> str:
    return table(["from", "to", "because"], [[code(t.source), code(t.target), t.cause] for t in model.TRANSITIONS])


def outcomes() -> str:
    rows = []
    for kind in get_args(contract.Outcome):
        names = [f.name for f in fields(kind) if f.name != "exchange"]
        rows.append([code(kind.__name__), codes(names), plain(first_line(kind))])
    return table(["outcome", "fields", "meaning"], rows)


def attempt_outcomes() -> str:
    return table(["outcome", "Tiếng Việt", "English"], [[code(k), *pair] for k, pair in code_texts.OUTCOMES.items()])


def reasons() -> str:
    rows = [[code(k), *pair] for k, pair in sorted(code_texts.REASONS.items())]
    rows += [[code(f"{k}:…"), *pair] for k, pair in sorted(code_texts.PREFIXES.items())]
    rows.append([code("http_NNN"), *(text.replace("{status}", "NNN") for text in code_texts.HTTP_STATUS)])
    return table(["reason", "Tiếng Việt", "English"], rows)


def repairs() -> str:
    rows = []
    for kind, (what, _, do) in sorted(code_texts.REPAIRS.items()):
        rows.append([code(kind), f"{what[0]} {do[0]}", f"{what[1]} {do[1]}"])
    return table(["kind", "Tiếng Việt", "English"], rows)


# -- events ----------------------------------------------------------------------------------------


def schema_rows(schema: Mapping[str, Any], prefix: str = "", needed: bool = True) -> Iterator[tuple[str, str, bool]]:
    """Dotted field, what it holds, whether it is always there."""
    required = set(schema.get("required", ()))
    for name, prop in schema.get("properties", {}).items():
        path, always = prefix + name, needed and name in required
        if prop.get("properties"):
            yield from schema_rows(prop, path + ".", always)
            continue
        items = prop.get("items", {})
        if items.get("properties"):
            yield from schema_rows(items, path + "[].", always)
            continue
        kind = kind_of(prop, {}) if set(prop) & {"type", "enum", "const", "anyOf"} else "anything"
        said = prop.get("description")
        yield path, f"{kind}. {said}" if said else kind, always


def event_types(registry: Registry) -> str:
    parts = []
    for kind in sorted([*registry.event_types.values(), QUARANTINED], key=lambda k: k.name):
        rows = []
        for name, holds, always in schema_rows(kind.schema):
            leaves = any(name == t or name.startswith((t + ".", t + "[].")) for t in kind.thin)
            rows.append([code(name), holds, "always" if always else "sometimes", "yes" if leaves else "when named"])
        sealed = "Personal: sealed under its subject's key." if kind.personal else "Not personal."
        old = f" **Deprecated**{f': take {code(kind.successor)}' if kind.successor else ''}." if kind.deprecated else ""
        parts += [
            f"### `{kind.name}`\n",
            f"{kind.title_vi} / {kind.title_en}.{old} {sealed} Thin: {codes(kind.thin)}.\n",
            table(["field", "holds", "there", "leaves the hub"], rows),
            f"\n```json\n{json.dumps(kind.example, ensure_ascii=False, indent=2)}\n```\n",
        ]
    return "\n".join(parts).rstrip("\n")


def cloud_event_example(registry: Registry) -> str:
    """What a partner gets for a changed member when its subscription names no field."""
    kind = registry.event_types["vn.congdoan.member.updated.v1"]
    event = model.Event(
        id=UUID("01a2086b-a92f-7464-8986-3e303b258df3"),
        type=kind.name,
        source="//ldld.thainguyen.example/members",
        subject=kind.example["member_id"],
        occurred_at=datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC),
        data=project(dict(kind.example), kind.thin),
        scope="",
        correlation_id=UUID("01a2086b-a92f-7464-8986-3e303b258df3"),
    )
    return f"```json\n{json.dumps(json.loads(cloud_event(event)), ensure_ascii=False, indent=2)}\n```"


# -- errors and logs -------------------------------------------------------------------------------


def errors() -> str:
    found = [HubError]
    for kind in found:
        found += [c for c in kind.__subclasses__() if c.__module__.startswith("hub.errors")]
    rows = [
        [code(k.code), str(k.status), k.who_must_act, "yes" if k.may_retry else "no", first_line(k)]
        for k in sorted(found, key=lambda k: k.code)
    ]
    return table(["code", "HTTP", "who must act", "may be tried again", "meaning"], rows)


def problem_types() -> str:
    rows = [[code(f"/problems/{slug}"), vi, en] for slug, (vi, en) in sorted(problems.PROBLEMS.items())]
    return table(["type", "Tiếng Việt", "English"], rows)


def plugin_reasons() -> str:
    rows = [[code(name), vi, en] for name, (vi, en) in plugins._REASONS.items()]
    return table(["code", "Tiếng Việt", "English"], rows)


def list_reasons() -> str:
    rows = []
    for title, words in (("file refused", REFUSALS), ("row not taken", ROW_REASONS), ("row taken, noted", ROW_NOTES)):
        rows += [[code(name), title, w.vi, w.en] for name, w in words.items()]
    return table(["code", "what", "Tiếng Việt", "English"], rows)


def log_events(registry: Registry) -> str:
    catalogue = {**LOG_EVENTS, **registry.log_events}
    rows = [[code(name), e.level, e.says, codes(e.fields)] for name, e in sorted(catalogue.items())]
    return table(["event", "level", "says", "fields"], rows)


# -- what is called: command line, HTTP, hooks -----------------------------------------------------


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by what is typed after ``unionhub``."""

    def walk(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
        for name, command in sorted(group.commands.items()):
            here = f"{path} {name}".strip()
            if isinstance(command, click.Group):
                yield from walk(command, here)
            else:
                yield here, command

    yield from walk(cli.build(), "")


def command_line() -> str:
    parts = []
    for name, command in commands():
        arguments = [p for p in command.params if isinstance(p, click.Argument)]
        usage = " ".join(
            ["unionhub", name, *(str(a.name).upper() if a.required else f"[{str(a.name).upper()}]" for a in arguments)]
        )
        parts += [f"### `{usage}`\n", f"{(command.help or '').strip()}\n"]
        rows = []
        for p in command.params:
            if not isinstance(p, click.Option):
                continue
            value = "" if p.is_flag else f" {_metavar(p)}"
            shown = p.default if isinstance(p.default, str | int | Path) and not isinstance(p.default, bool) else None
            said = p.help or ("Configuration folder." if p.name in ("folder", "_folder") else "")
            parts_of_help = [said, f"Default `{shown}`." if shown is not None else "", "Needed." if p.required else ""]
            rows.append([code(", ".join(p.opts) + value), " ".join(x for x in parts_of_help if x)])
        if rows:
            parts.append(table(["option", "meaning"], rows) + "\n")
    return "\n".join(parts).rstrip("\n")


def _metavar(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return option.type.name.upper()


def routes() -> str:
    rows = []
    for each in api.table(load_plugins()):
        rows.append([code(f"{each.method} {api.BASE}{each.path}"), code(each.scope), each.summary, codes(each.names())])
    return table(["route", "scope", "answers", "parameters or fields"], rows)


def metric_names() -> str:
    rows = []
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        # A family made at a scrape knows its labels itself, another one by its collector.
        collector = metrics.registry._names_to_collectors.get(family.name)
        labels = getattr(family, "_labelnames", None) or getattr(collector, "_labelnames", ())
        rows.append([code(name), family.type, codes(labels or ()), family.documentation])
    return table(["metric", "type", "labels", "counts"], rows)


def hooks() -> str:
    rows = []
    for name, hook in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("hub_"):
            rows.append([code(f"{name}({_arguments(hook)})"), _answer(hook), first_line(hook)])
    return table(["hook", "answers", "is"], rows)


def _answer(hook: Callable[..., Any]) -> str:
    return code(str(inspect.signature(hook).return_annotation))


def roles() -> str:
    rows = []
    for role in (contract.Receiver, contract.Source, contract.Sink, contract.Directory):
        for name, method in vars(role).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                said = plain((inspect.getdoc(method) or "").replace("\n", " "))
                call = f"{'await ' if inspect.iscoroutinefunction(method) else ''}{name}({_arguments(method)})"
                rows.append([role.__name__, code(call), said])
    return table(["role", "method", "does"], rows)


def _arguments(method: Callable[..., Any]) -> str:
    return ", ".join(p for p in inspect.signature(method).parameters if p != "self")


def values() -> str:
    """The records a plugin makes or is handed, with their fields."""
    made = [
        contract.UnitOfWork, contract.Guard, contract.Sealed, model.Draft, model.Audience, model.Receipt, model.Event,
        contract.Shipment, contract.Page, contract.Connection, contract.ConnectionContext, contract.ConnectorType,
        contract.EventType, contract.Handler, contract.Schema, contract.Command, contract.Rest, contract.Principal,
        contract.RawRequest, contract.Inbound, contract.Simulator,
        contract.DestinationSpec,
    ]  # fmt: skip
    rows = []
    for kind in made:
        assert is_dataclass(kind)
        rows.append([code(kind.__name__), codes(f.name for f in fields(kind)), plain(first_line(kind))])
    return table(["record", "fields", "is"], rows)


def retry_constants() -> str:
    policy = retry.Policy.__dataclass_fields__["pause_s"].default
    default = settings_model.RetrySettings().schedule_s
    hours = sum(default) / 3600
    return (
        f"With the shipped settings a delivery is tried {len(default) + 1} times over about {hours:.0f} hours. A"
        f" destination that asks for a pause without saying how long is left alone for {policy:.0f} seconds."
    )


# -- measurements ----------------------------------------------------------------------------------


def measurements() -> str:
    """What ``make bench`` wrote last, a row per benchmark."""
    file = DOCS.parent / "benchmarks" / "results" / "latest.json"
    results = json.loads(file.read_text("utf-8"))["results"] if file.exists() else {}
    rows = []
    for name, result in results.items():
        about = result["about"]
        more = {k: v for k, v in result.items() if k not in ("ratio", "ratios", "about") and not isinstance(v, dict)}
        rows.append(
            (
                code(name),
                f"**{result['ratio']}**" if "ratio" in result else "–",
                ", ".join(f"{key} {value}" for key, value in more.items()),
                f"{about['date']}, {about['machine']}, load {about['load_before']}, Python {about['python']}",
            )
        )
    return table(("benchmark", "ratio", "measured", "when and where"), rows)


# -- pages -----------------------------------------------------------------------------------------


def parts() -> dict[str, str]:
    """Every generated part by name."""
    registry = load_plugins()
    return {
        "hub-settings": hub_settings(),
        "connection-file": connection_file(),
        "subscription": settings_table(settings_model.SubscriptionSettings),
        "connector-types": connector_types(registry),
        "states": states(),
        "transitions": transitions(),
        "outcomes": outcomes(),
        "attempt-outcomes": attempt_outcomes(),
        "retry": retry_constants(),
        "reasons": reasons(),
        "repairs": repairs(),
        "event-types": event_types(registry),
        "cloud-event": cloud_event_example(registry),
        "errors": errors(),
        "problems": problem_types(),
        "plugin-reasons": plugin_reasons(),
        "list-reasons": list_reasons(),
        "log-events": log_events(registry),
        "commands": command_line(),
        "routes": routes(),
        "metrics": metric_names(),
        "hooks": hooks(),
        "roles": roles(),
        "values": values(),
        "measurements": measurements(),
    }


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def rendered(text: str, made: Mapping[str, str]) -> str:
    """``text`` with every marked part replaced; KeyError for a marker nobody fills."""
    return MARKED.sub(lambda m: f"{m[1]}{made[m[2]]}\n{m[4]}", text)


def event_schemas() -> str:
    """``event-schemas.json``: what was promised of each type, for ``docs.promises`` to hold us to it."""
    kinds = {kind.name: promises.promise(kind) for kind in load_plugins().event_types.values()}
    return json.dumps(kinds, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def main(arguments: Sequence[str]) -> int:
    if broken := load_plugins().broken:
        print("\n".join(f"{each.name}: {each.why}" for each in broken), file=sys.stderr)
        return 1  # what it describes would look as if it were gone
    made = parts()
    stale = []
    schemas = event_schemas()
    if promises.KEPT.read_text("utf-8") != schemas:
        if broken := promises.broken(json.loads(promises.KEPT.read_text("utf-8")), json.loads(schemas)):
            print("\n".join([*broken, f"{promises.KEPT.name} was left as it is: {promises.DO}"]), file=sys.stderr)
            return 1
        stale.append(promises.KEPT)
        if "--check" not in arguments:
            promises.KEPT.write_text(schemas, "utf-8")
    for page in pages():
        old = page.read_text("utf-8")
        new = rendered(old, made)
        if new != old:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(new, "utf-8")
    for page in stale:
        print(page.relative_to(DOCS.parent))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
