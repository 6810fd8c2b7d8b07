"""Three nodes on one PostgreSQL under load, each killed and stopped in turn, again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.torture.results import Progress
from tests.conftest import migrated
from tests.e2e import test_nodes as nodes
from tests.postgres import running_postgres

#: What must hold of the story, whatever its length.
PROMISES: tuple[Callable[[nodes.Story], None], ...] = (
    nodes.test_nothing_acknowledged_is_lost,
    nodes.test_what_is_sent_again_is_the_same_and_what_must_not_be_is_not,
    nodes.test_late_results_of_a_stopped_node_are_refused,
    nodes.test_the_order_of_every_key_is_kept,
    nodes.test_ten_a_second_are_ten_a_second_over_all_nodes,
    nodes.test_one_node_at_a_time_sends_over_a_session,
    nodes.test_the_lead_was_taken_over_each_time,
)


def run(kills: int, folder: Path, say: Progress) -> dict[str, Any]:
    """At least ``kills`` kills and as many stops, three of each in a story of its own."""
    broken: list[str] = []
    found: Counter[str] = Counter()
    with running_postgres() as server:
        template = server.template("migrated", migrated)
        for number in range(-(-kills // 3)):
            place = folder / str(number)
            place.mkdir()
            with nodes.told(server, place, template) as story:
                for promise in PROMISES:
                    try:
                        promise(story)
                    except AssertionError as error:
                        broken.append(f"{promise.__name__}: {str(error)[:300]}")
                found.update(kills=len(story.killed), stops=len(story.stops), acknowledged=len(story.kept()))
                found.update(sent=sum(len(story.partner_saw(name)) for name in ("safe", "unsafe", "paced", "line")))
            say(f"{found['kills']} of {kills} kills, {len(broken)} broken", {**found, "broken": broken})
    return {**found, "broken": broken}
