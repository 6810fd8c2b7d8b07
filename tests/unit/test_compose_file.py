"""deploy/compose.yaml, read as YAML: what it exposes, keeps and gives the hub."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from hub.settings import known_variables
from tests.e2e.machine import ROOT, instructions

FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
HUBS = ("hub", "hub2", "hub3")


def test_there_are_three_hubs_and_one_database() -> None:
    assert set(SERVICES) == {*HUBS, "postgres"}
    assert [SERVICES[name].get("profiles", []) for name in HUBS] == [[], ["nodes"], ["nodes"]]
    assert set(COMPOSE["volumes"]) == {"ledger", "var"}


def test_nothing_is_reached_from_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == len(HUBS) == len(set(ports))
    assert all(re.fullmatch(r"127\.0\.0\.1:80\d\d:8080", port) for port in ports), ports
    assert "ports" not in SERVICES["postgres"]


@pytest.mark.parametrize("name", HUBS)
def test_a_hub_waits_for_its_database_keeps_its_key_and_has_no_more_rights_than_it_needs(name: str) -> None:
    hub = SERVICES[name]
    assert hub["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert hub["pull_policy"] == "never"
    assert (hub["read_only"], hub["cap_drop"], hub["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    folder = dict(instructions())["WORKDIR"]
    assert f"var:{folder}/var" in hub["volumes"] and f"./config:{folder}/config" in hub["volumes"]
    assert {v for v in hub["environment"] if v.startswith("UNIONHUB_")} <= set(known_variables())


def test_each_hub_has_a_folder_of_its_own() -> None:
    folders = [SERVICES[name]["environment"].get("UNIONHUB_VAR_DIR", "var") for name in HUBS]
    assert folders == ["var", "var/2", "var/3"]


def test_no_password_stands_in_the_file() -> None:
    assert "@postgres:5432/unionhub" in SERVICES["hub"]["environment"]["UNIONHUB_DATABASE_URL"]
    assert not re.search(r"://[^\s@/]+:[^\s@/]+@", FILE.read_text("utf-8"))
    assert "POSTGRES_PASSWORD" not in SERVICES["postgres"]["environment"]
    assert SERVICES["postgres"]["secrets"] == ["postgres"]
    assert "pg_isready" in SERVICES["postgres"]["healthcheck"]["test"]
    assert SERVICES["postgres"]["volumes"] == ["ledger:/var/lib/postgresql/data"]
