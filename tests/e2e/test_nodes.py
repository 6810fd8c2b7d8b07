"""Three nodes on one PostgreSQL database, each killed and each stopped in turn under load: one story, told once.

Nothing that was acknowledged is lost, what must not go out twice does not, a key's order and a partner's pace hold
over all nodes, and whatever one node does at a time is gone on with by another.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.command_line import Run, unionhub
from tests.e2e.child import PATIENCE_S, Process
from tests.e2e.installation import ROOT, Installation
from tests.e2e.installation import until as until_within
from tests.e2e.node import PAGES
from tests.ledger import OPEN
from tests.postgres import Server

__all__ = ["unionhub"]  # a fixture

pytestmark = pytest.mark.postgres

LEASE_S = 3.0
#: The story goes on until the partner has seen more than so many, however fast the machine is.
PACED, LINES = 120, 60


def until(condition: Callable[[], Any], every_s: float = 0.05) -> Any:
    """However much else the machine has to do."""
    return until_within(condition, PATIENCE_S, every_s)


#: How wrong the nodes' own clocks are.
CLOCKS_OFF_S = {"n1": 3 * 3600, "n2": 0, "n3": -2 * 3600}


class Node:
    """One node's process; what it says goes to files, since nobody listens all the time."""

    def __init__(self, name: str, to: Path, *arguments: object) -> None:
        self.name = name
        self._printed, self._log = to.with_suffix(".out"), to.with_suffix(".log")
        with self._printed.open("wb") as out, self._log.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.node", *map(str, arguments)], cwd=ROOT, stdout=out, stderr=err
            )

    def printed(self, word: str) -> list[list[str]]:
        """Whole lines that begin so, as words."""
        lines = self._printed.read_text().splitlines(keepends=True)
        return [line.split() for line in lines if line.startswith(word) and line.endswith("\n")]

    @property
    def boot(self) -> str:
        return str(until(lambda: self.printed("ready"))[0][1])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == event]


@dataclass
class Story:
    """What happened, from the outside: the processes' own words, the partner's log, the ledger."""

    server: Server
    database: str
    folder: Path
    ports: tuple[str, str] = ("", "")
    nodes: dict[str, Node] = field(default_factory=dict)
    all_nodes: list[Node] = field(default_factory=list)
    killed: list[Node] = field(default_factory=list)
    #: Per stop: the node, and the deliveries it had in hand.
    stops: list[tuple[Node, set[str]]] = field(default_factory=list)
    handed_over: list[str] = field(default_factory=list)

    def rows(self, sql: str) -> list[Any]:
        return self.server.execute(sql, database=self.database)

    def begin(self, name: str) -> None:
        folder = self.folder / name
        (folder / "var").mkdir(parents=True, exist_ok=True)
        (folder / "var" / "hub.key").write_bytes(bytes(range(32)))
        to = self.folder / f"{name}-{len(self.all_nodes)}.log"
        node = Node(
            name, to, folder, self.server.dsn(self.database), name, *self.ports, LEASE_S, CLOCKS_OFF_S[name]
        )  # fmt: skip
        self.nodes[name] = node
        self.all_nodes.append(node)

    def end_all(self) -> None:
        for node in self.all_nodes:
            node.end()

    def alive(self, node: Node) -> bool:
        return bool(self.rows(f"SELECT 1 FROM node WHERE boot = '\\x{node.boot}'"))

    def in_hand(self, node: Node) -> set[str]:
        rows = self.rows(
            f"SELECT id FROM queue WHERE lease_owner = '\\x{node.boot}' AND state IN ('leased', 'sending')"
        )
        return {row[0].hex() for row in rows}

    def owner_of(self, what: str) -> str:
        """The name of the node that has a lease, or the run."""
        sql = f"SELECT owner FROM lease WHERE name = '{what}'"
        if what == "run":
            sql = "SELECT lease_owner FROM run WHERE state = 'running'"
        [(owner,)] = until(lambda: self.rows(sql))
        return next((n.name for n in self.nodes.values() if n.boot == owner.hex()), "")

    def kill(self, node: Node) -> None:
        until(lambda: self.in_hand(node), every_s=0.01)
        node.end()
        self.killed.append(node)

    def stop(self, node: Node) -> None:
        """SIGSTOP while it has deliveries in hand: they stay in its hands now."""
        while True:
            node.process.send_signal(signal.SIGSTOP)
            if held := self.in_hand(node):
                self.stops.append((node, held))
                return
            node.process.send_signal(signal.SIGCONT)

    def lose(self, killed: str, stopped: str) -> None:
        """Two of three at once; the third goes on alone, then both come back."""
        dead, frozen = self.nodes[killed], self.nodes[stopped]
        self.stop(frozen)
        self.kill(dead)
        until(lambda: not self.alive(dead) and not self.alive(frozen))
        until(lambda: not self.in_hand(dead) and not self.in_hand(frozen))
        self.handed_over.append(self.owner_of("leader"))
        frozen.process.send_signal(signal.SIGCONT)
        self.begin(killed)
        until(lambda: self.alive(frozen) and self.alive(self.nodes[killed]))

    # -- afterwards --------------------------------------------------------------------------------

    def kept(self) -> dict[str, tuple[str, str, int]]:
        """Acknowledged events: kind, key, number."""
        words = (line for node in self.all_nodes for line in node.printed("kept"))
        return {event: (kind, key, int(n)) for _, event, kind, key, n in words}

    def partner_saw(self, kind: str) -> list[tuple[int, list[str]]]:
        lines = (line.split() for line in (self.folder / "partner.log").read_text().splitlines())
        return [(int(at), words) for at, *words in lines if words[0] == kind]

    def states(self, destination: str) -> dict[str, str]:
        both = (
            "SELECT destination, event_id, state FROM queue UNION ALL SELECT destination, event_id, state FROM delivery"
        )
        rows = self.rows(f"SELECT event_id, state FROM ({both}) both_of_them WHERE destination = '{destination}'")
        return {str(UUID(bytes=event)): state for event, state in rows}


@contextmanager
def told(server: Server, folder: Path, migrated: str) -> Iterator[Story]:
    """The whole story: each node is killed once and stopped once."""
    story = Story(server, server.create_database(migrated), folder)
    with ExitStack() as stack:
        stack.callback(server.drop_database, story.database)
        partner = Process("tests.e2e.node_partner", folder / "partner.log")
        stack.callback(partner.kill)
        partner.until(1)
        tcp, udp = partner.lines[0].split()
        story.ports = (tcp, udp)
        for name in CLOCKS_OFF_S:
            story.begin(name)
        stack.callback(story.end_all)
        for node in story.nodes.values():
            until(lambda: len(node.printed("kept")) >= 20)  # noqa: B023
        # Whoever has the run is killed in the middle of it; whoever leads is stopped, or else killed.
        reads, leads = story.owner_of("run"), story.owner_of("leader")
        stopped = leads if leads != reads else next(n for n in story.nodes if n != reads)
        third = next(n for n in story.nodes if n not in (reads, stopped))
        for killed, frozen in ((reads, stopped), (stopped, third), (third, reads)):
            story.lose(killed, frozen)
        until(lambda: len(story.partner_saw("paced")) > PACED and len(story.partner_saw("line")) > LINES, every_s=0.5)
        for node in story.nodes.values():
            node.process.send_signal(signal.SIGUSR1)
        under_way = ", ".join(f"'{state}'" for state in OPEN)
        until(lambda: story.rows(f"SELECT count(*) FROM queue WHERE state IN ({under_way})") == [(0,)])
        until(lambda: story.rows("SELECT count(*) FROM event WHERE position IS NULL") == [(0,)])
        until(lambda: story.rows("SELECT count(*) FROM run WHERE state <> 'done'") == [(0,)])
        for node in story.nodes.values():
            node.process.send_signal(signal.SIGTERM)
        assert [node.process.wait(PATIENCE_S) for node in story.nodes.values()] == [0, 0, 0]
        yield story


@pytest.fixture(scope="module")
def story(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    from tests.conftest import migrated

    with told(postgres_server, tmp_path_factory.mktemp("nodes"), postgres_server.template("migrated", migrated)) as it:
        yield it


def test_nothing_acknowledged_is_lost(story: Story) -> None:
    kept = story.kept()
    stored = {str(UUID(bytes=id)) for (id,) in story.rows("SELECT id FROM event")}
    assert len(story.stops) == len(story.killed) >= 3 and set(kept) <= stored
    things = {event for event, (kind, _, _) in kept.items() if "thing" in kind}
    calls = set(kept) - things
    for destination, owed in (("safe", things), ("unsafe", things), ("paced", calls), ("line", calls)):
        states = story.states(destination)
        assert owed <= set(states) <= stored
        allowed = {"delivered", "unknown"} if destination == "unsafe" else {"delivered"}
        assert set(states.values()) <= allowed, destination
    positions = [p for (p,) in story.rows("SELECT position FROM event ORDER BY position")]
    assert positions == list(range(1, len(stored) + 1))


def test_what_is_sent_again_is_the_same_and_what_must_not_be_is_not(story: Story) -> None:
    for name in ("safe", "unsafe"):
        tries: dict[str, list[list[str]]] = defaultdict(list)
        for _, words in story.partner_saw(name):
            tries[words[2]].append(words)
        states = story.states(name)
        for event, sent in tries.items():
            assert len({(words[3], words[4]) for words in sent}) == 1, "another id or other bytes"
            verdicts = [words[-1] for words in sent]
            if name == "safe":
                assert len(sent) <= 1 + len(story.killed) + len(story.stops)
            else:
                assert all(verdict == "503" for verdict in verdicts[:-1]), f"{event} was taken and sent again"
                assert states[event] == "unknown" or verdicts[-1] == "200"
        assert {event for event, state in states.items() if state == "delivered"} <= set(tries)


def test_late_results_of_a_stopped_node_are_refused(story: Story) -> None:
    lost = {id.hex() for (id,) in story.rows("SELECT delivery_id FROM attempt WHERE outcome = 'lost'")}
    for node, in_hand in story.stops:
        assert in_hand <= lost, "what it had in hand was taken over"
        late = {line["delivery"] for line in node.said("delivery.late")}
        assert late & in_hand, "what it said of it afterwards changed nothing"


def test_the_order_of_every_key_is_kept(story: Story) -> None:
    """By what came first of each: a try that was cut off may come once more, behind others."""
    first: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for _, words in story.partner_saw("safe"):
        _, _, event, _, _, key, n, _ = words
        if event not in seen:
            seen.add(event)
            first[key].append(int(n))
    assert len(first) >= 12
    for key, numbers in first.items():
        assert numbers == list(range(len(numbers))), key
    assert len({node for _, (_, node, *_) in story.partner_saw("safe")}) == 3, "every node has sent"


def test_ten_a_second_are_ten_a_second_over_all_nodes(story: Story) -> None:
    instants = sorted(at for at, _ in story.partner_saw("paced"))
    assert len(instants) > PACED and instants[-1] - instants[0] > 10_000_000
    for seconds, most in ((1, 11), (10, 100)):
        for start in instants:
            assert sum(1 for at in instants if start <= at < start + seconds * 1_000_000) <= most
    assert len({node for _, (_, node, _) in story.partner_saw("paced")}) == 3, "every node has sent"


def test_one_node_at_a_time_sends_over_a_session(story: Story) -> None:
    moments = sorted([*story.partner_saw("session"), *story.partner_saw("line")])
    up: str | None = None
    out_of_turn = 0
    for _, words in moments:
        if words[0] == "session":
            up = words[1] if words[-1] != "ended" else up
        elif words[1] != up:
            out_of_turn += 1
    # One may have been on its way when its node was stopped.
    assert out_of_turn <= len(story.stops) and len(story.partner_saw("line")) > LINES
    assert len({words[1] for _, words in story.partner_saw("session")}) > 1, "another node took it over"


def test_a_run_goes_on_from_its_cursor_whoever_dies(story: Story) -> None:
    assert story.rows("SELECT state, count(*) FROM run GROUP BY 1") == [("done", 1)], "one run per slot"
    pages = [(words[1], int(words[2])) for _, words in story.partner_saw("page")]
    numbers = [n for _, n in pages]
    assert list(dict.fromkeys(numbers)) == list(range(PAGES)), "each page after the one before it"
    assert len(numbers) <= PAGES + len(story.killed) + len(story.stops), "at most the page under way is read again"
    assert len({node for node, _ in pages}) > 1
    assert story.rows("SELECT count(*) FROM event WHERE type LIKE '%.page.read.v1'") == [(PAGES,)]


def test_the_lead_was_taken_over_each_time(story: Story) -> None:
    assert len(story.handed_over) == len(story.killed), "the one that was left led"
    assert set(story.handed_over) == set(CLOCKS_OFF_S)
    told = {line["boot"] for node in story.all_nodes for line in node.said("node.lost")}
    assert {node.boot for node in story.killed} | {node.boot for node, _ in story.stops} <= told


# -- as an operator adds and stops a node --------------------------------------------------------------


@pytest.fixture
def installations(
    tmp_path: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Installation]]:
    """Two folders with a plain configuration, for one empty database."""
    database = postgres_server.create_database()
    monkeypatch.setenv("UNIONHUB_DATABASE_URL", postgres_server.dsn(database))
    monkeypatch.setenv("UNIONHUB_WORKER__LEASE_S", "300")
    made = []
    for name in ("one", "two"):
        (tmp_path / name / "config" / "connections").mkdir(parents=True)
        for file in ("hub.toml", "subscriptions.toml"):
            (tmp_path / name / "config" / file).touch()
        made.append(Installation(tmp_path / name))
    yield made
    postgres_server.drop_database(database)


def test_a_node_joins_with_a_copy_of_the_key_and_takes_over_when_the_other_is_stopped(
    installations: list[Installation], unionhub: Run
) -> None:
    one, two = installations

    def nodes() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = unionhub("nodes", "--json", "--config", two.config).json["nodes"]
        return found

    with one.hub() as first:
        refused = unionhub("run", "--config", two.config)
        assert refused.code == 2 and "chép tệp khóa" in refused.err and "copy the key file" in refused.err
        assert not (two.folder / "var" / "hub.key").exists()
        (two.folder / "var").mkdir(exist_ok=True)
        shutil.copy(one.folder / "var" / "hub.key", two.folder / "var" / "hub.key")
        with two.hub() as second:
            before = nodes()
            assert [node["leads"] for node in before] == [True, False], "the oldest first"
            assert {node["state"] for node in before} == {"alive"}
            assert unionhub("nodes", "--config", two.config).out.count(str(before[1]["boot"])) == 1
            assert first.stop() == 0
            # It went in order: nobody waits for its lease, five minutes, to end.
            until_within(lambda: [node["leads"] for node in nodes()] == [True], 30)
            assert nodes()[0]["boot"] == before[1]["boot"]
            assert second.stop() == 0
