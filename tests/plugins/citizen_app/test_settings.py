"""Settings of the citizen app: what is refused, and that every key is described."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from plugins.citizen_app.settings import CitizenAppSettings

GIVEN = {"base_url": "https://app.example", "client_id": "hub", "client_secret": {"env": "X"}}


@pytest.mark.parametrize(
    "url", ["https://app.example/api/", "http://127.0.0.1:18082", "http://localhost", "http://[::1]:1"]
)
def test_an_address_is_taken_if_it_is_encrypted_or_on_this_machine(url: str) -> None:
    assert CitizenAppSettings.model_validate({**GIVEN, "base_url": url}).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example", "http://10.0.0.1", "ftp://app.example", "app.example", "", "https://", "https://u:p@x",
        "https://x/?a=1", "https://x/#a", "https://x:99999", "http://127.0.0.1.evil.example",
    ],
)  # fmt: skip
def test_an_address_is_refused_that_is_neither_or_carries_more(url: str) -> None:
    with pytest.raises(ValidationError, match=" / "):
        CitizenAppSettings.model_validate({**GIVEN, "base_url": url})


def test_every_setting_is_described_in_english_and_titled_in_vietnamese() -> None:
    for name, field in CitizenAppSettings.model_fields.items():
        assert field.title and field.description, name
