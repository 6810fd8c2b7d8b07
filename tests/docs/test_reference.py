"""The documentation says what the code says: generated parts are current, nothing is missing, links lead somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs import generate
from hub import hookspecs, metrics, model, settings_model
from hub.contract import EventType
from hub.errors import HubError
from hub.ingest import QUARANTINED
from hub.log import LOG_EVENTS
from hub.plugins import load_plugins
from hub.settings import known_variables
from hub.testing import registry_of, running_hub
from hub.web import server
from hub.web.problems import PROBLEMS
from tests.docs.pages import DOCS, ROOT, anchors, documents, file_block, links

REFERENCE = DOCS / "reference"
MADE = generate.parts()
REGISTRY = load_plugins()
STALE = "out of date: run  python -m docs.generate"


def said(page: str) -> str:
    return (REFERENCE / f"{page}.md").read_text("utf-8")


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.stem)
def test_the_generated_parts_of_a_page_are_current(page: Path) -> None:
    text = page.read_text("utf-8")
    assert generate.rendered(text, MADE) == text, STALE


def test_every_generated_part_has_its_place() -> None:
    text = "\n".join(page.read_text("utf-8") for page in generate.pages())
    markers = re.findall(r"<!-- generated: (.*?) -->", text)
    assert set(markers) == set(MADE)
    assert len(markers) == len(generate.MARKED.findall(text)), "a marker without its end"


def test_a_change_of_the_code_makes_a_page_stale() -> None:
    text = said("states")
    changed = {**MADE, "transitions": MADE["transitions"].replace("claimed by a worker", "picked up")}
    assert generate.rendered(text, changed) != text


@pytest.mark.parametrize("name", [n for n, _ in inspect.getmembers(hookspecs, inspect.isfunction) if n[:4] == "hub_"])
def test_a_hook_is_documented_with_its_exact_arguments(name: str) -> None:
    arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
    assert f"`{name}({arguments})`" in said("plugin-api")


def test_every_key_of_the_configuration_is_documented() -> None:
    page = said("settings")
    own = known_variables()
    for variable, loc in own.items():
        if len(loc) == 1 and loc[0] in settings_model.HubFile.model_fields and f"`[{loc[0]}]`" in page:
            continue  # a whole section
        if loc[-1] in ("file", "env"):
            continue  # inside a secret reference
        assert f"`{variable}`" in page, variable
    for of in (settings_model.ConnectionFile, settings_model.SubscriptionSettings):
        for key in of.model_fields:
            assert f"| `{key}` |" in page, key


@pytest.mark.parametrize("name", sorted(REGISTRY.connector_types))
def test_every_setting_of_a_connector_type_is_documented(name: str) -> None:
    _, _, section = said("settings").partition(f"### `{name}`")
    section = section.partition("\n### ")[0]
    for key in REGISTRY.connector_types[name].settings.model_fields:
        assert f"| `{key}` |" in section, key


def test_every_state_and_legal_change_is_documented() -> None:
    page = said("states")
    for state in model.State:
        assert f"| `{state.value}` |" in page
    for change in model.TRANSITIONS:
        assert f"| `{change.source}` | `{change.target}` | {change.cause} |" in page


@pytest.mark.parametrize("kind", [*REGISTRY.event_types.values(), QUARANTINED], ids=lambda kind: kind.name)
def test_every_field_of_an_event_type_is_documented(kind: EventType) -> None:
    _, _, section = said("events").partition(f"### `{kind.name}`\n")
    section = section.partition("\n### ")[0]
    for name, _, _ in generate.schema_rows(kind.schema):
        assert f"| `{name}` |" in section, name


def subclasses(of: type[HubError]) -> set[type[HubError]]:
    return {of} | {each for child in of.__subclasses__() for each in subclasses(child)}


def test_every_error_code_is_documented() -> None:
    page = said("errors")
    for kind in subclasses(HubError):
        assert f"| `{kind.code}` |" in page, kind.__qualname__


@pytest.mark.parametrize("slug", sorted(PROBLEMS))
def test_every_problem_is_documented(slug: str) -> None:
    assert f"`/problems/{slug}`" in said("errors")


@pytest.mark.parametrize("name", sorted({**LOG_EVENTS, **REGISTRY.log_events}))
def test_every_log_event_is_documented(name: str) -> None:
    assert f"| `{name}` |" in said("log-events")


def test_every_repair_of_the_core_is_documented() -> None:
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "hub").rglob("*.py"))
    kinds = re.findall(r'open_repair\(\s*(?:tx, )?"([a-z_]+)"', code)
    assert len(kinds) >= 4
    for kind in (*kinds, "destination_paused", "connection_paused"):
        assert f"`{kind}`" in said("states"), kind


def test_every_reason_of_the_core_is_documented() -> None:
    core = [path for path in (ROOT / "hub").rglob("*.py") if not {"web", "demo", "testing"} & set(path.parts)]
    code = "\n".join(path.read_text("utf-8") for path in core)
    given = r'(?:RetryLater|Refused|Unknown)\(reason="([a-z_]+)"|_put_back\(job, "([a-z_]+)"|State\.[A-Z]+, "([a-z_]+)"'
    found = {name for each in re.findall(given, code) for name in each if name}
    assert {"expired", "deadline", "lease_lost"} <= found
    for reason in found:
        assert f"`{reason}`" in said("states"), reason


def test_every_command_is_documented() -> None:
    page = said("cli")
    for name, command in generate.commands():
        assert re.search(rf"^### `unionhub {re.escape(name)}[ `]", page, re.MULTILINE), name
        for option in (o for p in command.params for o in p.opts if o.startswith("--")):
            assert option in page.partition(f"### `unionhub {name}")[2].partition("\n### ")[0], f"{name} {option}"


def test_every_metric_is_documented() -> None:
    for family in metrics.registry.collect():
        assert f"`{family.name}" in said("http"), family.name


async def test_every_route_of_the_server_is_documented(tmp_path: Path) -> None:
    page = said("http")
    async with running_hub(tmp_path, registry_of(), connections={}, start=False) as hub:
        app = server.build(hub)
        for route in app.router.routes():
            assert route.resource is not None
            if route.method != "HEAD":
                assert f"`{route.method} {route.resource.canonical}`" in page, route.resource.canonical


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor and target.suffix == ".md":
            assert unquote(anchor) in anchors(target), f"{link}: there are {sorted(anchors(target))}"


def test_every_page_is_linked_from_the_readme_or_a_page_it_links_to() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        todo += [(page.parent / unquote(link.partition("#")[0])).resolve() for link in links(page) if "://" not in link]
    assert set(documents()) <= reached, sorted(map(str, set(documents()) - reached))


def test_the_readme_begins_with_the_two_commands_and_the_contributing_page_is_one_page() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert [line.split("#")[0].split() for line in lines[3:5]] == [["make", "demo"], ["make", "test"]]
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 60


@pytest.mark.parametrize("page", sorted((DOCS / "adr").glob("0*.md")), ids=lambda page: page.stem)
def test_a_decision_is_a_page_with_context_options_decision_consequences_and_doubt(page: Path) -> None:
    text = page.read_text("utf-8")
    parts = ["**Context.**", "**Options", "**Decision.**", "**Consequences.**", "**What would change our mind.**"]
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)
    assert len(text.splitlines()) <= 60
    options = text[places[1] : places[2]]
    assert all(re.search(r"\d", row) for row in re.findall(r"^\|.*\|$", options, re.MULTILINE) if not skipped(row))
    assert page.stem.split("-")[0] in (DOCS / "adr" / "README.md").read_text("utf-8")


def skipped(row: str) -> bool:
    """A table's head or its ruler."""
    return bool(re.fullmatch(r"[|\-: ]+", row)) or row.startswith(("| option", "| --- "))


def test_the_plugin_on_the_page_stays_short() -> None:
    code = file_block(DOCS / "how-to" / "write-a-plugin.md", "notices.py").splitlines()
    assert len([line for line in code if line.strip()]) <= 75
