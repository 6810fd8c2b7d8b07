"""The API's own commands, typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Run, unionhub

__all__ = ["unionhub"]  # a fixture

TYPE = "vn.congdoan.inbound.received.v1"


@pytest.fixture
def config(tmp_path: Path, unionhub: Run) -> Path:
    folder = tmp_path / "config"
    assert unionhub("init", folder).code == 0
    return folder


def test_a_key_is_made_listed_and_revoked(unionhub: Run, config: Path) -> None:
    made = unionhub("keys", "add", "cổng dịch vụ công", "--scopes", "events:read,events:publish", "-c", config)
    assert made.code == 0 and "hub_live_" in made.out and "chỉ hiện một lần" in made.out
    (key,) = unionhub("keys", "list", "-c", config, "--json").json["keys"]
    assert key["name"] == "cổng dịch vụ công" and key["scopes"] == ["events:publish", "events:read"]
    assert unionhub("keys", "revoke", key["id"], "-c", config).code == 0
    assert unionhub("keys", "list", "-c", config, "--json").json["keys"][0]["state"] == "revoked"
    assert unionhub("keys", "revoke", "00000000", "-c", config).code == 1
    assert "no such scope" in unionhub("keys", "add", "x", "--scopes", "no:such", "-c", config).err
    assert unionhub("keys", "add", "x", "--scopes", ",", "-c", config).code == 2


def test_an_event_is_published_or_told_what_is_wrong(unionhub: Run, config: Path) -> None:
    done = unionhub("events", "publish", "--type", TYPE, "--data", '{"connection": "x"}', "-c", config, "--json")
    assert (done.code, done.json["status"]) == (0, "accepted")
    for data, said in (("{}", "không đúng lược đồ"), ("nothing", "không phải JSON")):
        refused = unionhub("events", "publish", "--type", TYPE, "--data", data, "-c", config)
        assert refused.code in (1, 2) and said in refused.err, refused
    assert len(unionhub("events", "list", "-c", config, "--json").json["events"]) == 1
