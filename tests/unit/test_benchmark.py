"""The benchmark's own parts: a yardstick that is wrong makes every number wrong."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from zlib import crc32

import orjson
import pytest

from benchmarks.__main__ import PEERS, SUITE, _median, chosen, one
from benchmarks.baseline import client, sockets
from benchmarks.deliver import bulk_rate, running_sink, tally
from benchmarks.workload import member_data, raw_requests, signed_requests

ROOT = Path(__file__).parents[2]


def logged(log: Path) -> list[tuple[str, str]]:
    return [(line.split()[0], line.split()[1]) for line in log.read_text().splitlines()]


def test_an_event_has_about_400_bytes() -> None:
    assert all(380 <= len(orjson.dumps(member_data(n))) <= 420 for n in range(0, 20_000, 999))


def test_bulk_leaves_out_the_slow_start_and_the_last_retries() -> None:
    steady = [10 + n / 1000 for n in range(8_000)]
    assert bulk_rate([n / 100 for n in range(1_000)] + steady + [100.0 + n for n in range(1_000)]) == pytest.approx(
        1_000, rel=0.01
    )


def test_lost_and_duplicated_come_from_the_answers_of_success_alone() -> None:
    assert tally(b"a 503 1\na 200 2\nb 200 3\nb 200 4\nd 503 5\n", ["a", "b", "c", "d"]) == (2, 1)


@pytest.mark.parametrize("yardstick", [client, sockets], ids=["client", "sockets"])
async def test_the_sink_refuses_the_first_attempt_of_the_chosen_ids_and_logs_every_id(
    tmp_path: Path, yardstick: Callable[[str, int], Awaitable[float]]
) -> None:
    log = tmp_path / "sink.log"
    async with running_sink(log) as url:
        assert await yardstick(url, 600) > 0
    seen = logged(log)
    assert len({each for each, _ in seen}) == 600
    assert {each for each, status in seen if status == "503"} == {i for i, _ in seen if crc32(i.encode()) % 100 < 5}


async def test_the_sink_takes_a_second_attempt_and_requests_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "sink.log"
    async with running_sink(log) as url:
        host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = next(r for r in raw_requests(url, 1_000) if crc32(r.split(b"webhook-id: ")[1][:36]) % 100 < 5)
        answers = []
        for part in (request[:70], request[70:-20], request[-20:] + request):
            writer.write(part)
            await writer.drain()
        for _ in range(2):
            answers.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()
        await writer.wait_closed()
    assert [answer.split()[1] for answer in answers] == [b"503", b"200"]
    assert Counter(status for _, status in logged(log)) == {"503": 1, "200": 1}


def test_ready_made_requests_are_the_signed_ones() -> None:
    headers, body = signed_requests(1)[0]
    raw = raw_requests("http://127.0.0.1:9/hook", 1)[0]
    assert raw.startswith(b"POST /hook HTTP/1.1\r\nHost: 127.0.0.1:9\r\n")
    assert all(name.encode() + b": " in raw for name in headers)
    assert len(raw.partition(b"\r\n\r\n")[2]) == len(body)


async def test_a_short_run_prints_one_object_and_loses_nothing() -> None:
    """With a short first pause, given as an operator would; the rates of so short a run mean nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.deliver", "--events", "300",
        cwd=ROOT, env=os.environ | {"UNIONHUB_RETRY__SCHEDULE_S": "[0.1]"}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    answer = json.loads(output)
    assert set(answer) == {
        "baseline_per_s", "sink_only_per_s", "enqueue_per_s", "bulk_per_s", "all_done_per_s", "ratio",
        "cpu_s_per_1000", "waited_for_core", "rss_peak_mb", "lost", "duplicated", "void",
    }  # fmt: skip
    assert answer["lost"] == 0
    assert answer["cpu_s_per_1000"] > 0
    assert answer["rss_peak_mb"] > 10


@pytest.mark.parametrize(
    "arguments",
    [
        ["accept", "--requests", "300"],
        ["fanout", "--recipients", "1000"],
        ["backlog", "--most", "2000", "--seconds", "0.1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_short_run_ends_with_a_ratio_to_its_yardstick(arguments: list[str]) -> None:
    said = one(arguments)
    assert "failed" not in said and said["ratio"] > 0 and said["baseline_per_s"] > 0


def test_the_suite_names_only_what_can_be_run() -> None:
    assert all((ROOT / "benchmarks" / f"{arguments[0]}.py").exists() for arguments, _ in {**SUITE, **PEERS}.values())
    assert chosen(["deliver", "idle"]) == ["deliver.sqlite", "deliver.postgres", "deliver.postgres_2p", "idle"]
    assert chosen(["nonsense"]) == [] and not set(chosen([])) & set(PEERS)
    assert chosen(["peer"], peers=True) == list(PEERS)


def test_the_middle_run_counts_and_a_failed_one_is_told() -> None:
    runs = [{"ratio": 0.5}, {"failed": 1}, {"ratio": 0.1}, {"ratio": 0.3}]
    assert _median(runs) == {"ratio": 0.3, "ratios": [0.1, 0.3, 0.5], "failed_runs": 1}
    assert _median([{"failed": 2}]) == {"failed": 2}
