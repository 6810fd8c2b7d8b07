"""The list maker: seeded, independent of what it tests, and as messy as promised."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from plugins.members import simulator
from plugins.members.codes import ROW_REASONS
from plugins.members.simulator.lists import generate

from .conftest import Maker

OWN = "plugins.members.simulator"


def test_it_imports_nothing_of_the_hub_the_plugin_or_the_reader() -> None:
    for file in Path(simulator.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in {"hub", "python_calamine", "phonenumbers"}, file
                assert not name.startswith("plugins") or name.startswith(OWN), file


def test_one_seed_gives_one_file_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (tmp_path / n for n in ("a.xlsx", "b.xlsx", "c.xlsx"))
    assert generate(7, first) == generate(7, again)
    generate(8, other)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


def test_the_list_is_as_long_and_as_messy_as_promised(made: Maker) -> None:
    expected = made(7).expected
    assert 1_100 <= expected["created"] <= 1_300
    assert len(expected["units"]) == 12
    assert expected["duplicates"] >= 10
    assert expected["bad_rows"] >= 30
    assert 0.4 < expected["members_with_app"] / expected["created"] < 0.6
    # One SMS per phone needs people who share one.
    assert expected["distinct_phones"] < expected["members_with_phone"] < expected["created"]
    assert len(expected["error_codes"]) >= 15
    assert expected["error_codes"].keys() <= ROW_REASONS.keys()


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    out, expected = tmp_path / "DS.xlsx", tmp_path / "DS.json"
    arguments = ["--seed", "7", "--out", str(out), "--expected", str(expected), "--shuffle", "--edit", "3"]
    run = subprocess.run([sys.executable, "-m", OWN, *arguments], capture_output=True, text=True, check=True)
    told = json.loads(run.stdout)
    assert out.stat().st_size > 50_000
    assert json.loads(expected.read_text())["created"] == told["created"]


def test_phones_are_of_the_block_for_invented_people(made: Maker) -> None:
    phones = [m["phone"] for m in made(7).expected["members"] if m["phone"]]
    assert all(p[6:9] == "555" for p in phones)


def test_one_person_with_phone_and_citizen_number_is_planted_to_be_searched_for(made: Maker) -> None:
    for seed in (1, 7, 8):
        expected = made(seed).expected
        canaries = expected["canaries"]
        (found,) = [m for m in expected["members"] if m["full_name"] == canaries["name"]]
        assert (found["phone"], found["citizen_number"]) == (canaries["phone"], canaries["citizen_number"])
        assert not found["has_app"] and found["status"] == "active" and len(found["citizen_number"]) == 12
        assert sum(m["phone"] == found["phone"] for m in expected["members"]) == 1
