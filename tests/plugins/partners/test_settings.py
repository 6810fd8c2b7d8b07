"""What a partner connection may be configured as."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from plugins.partners.settings import PartnerSettings

SECRET = {"env": "PARTNER_SECRET"}


def settings(**more: Any) -> PartnerSettings:
    return PartnerSettings.model_validate({"url": "https://nhan.example.vn/hook", "secret": SECRET, **more})


@pytest.mark.parametrize("url", ["https://nhan.example.vn/hook?a=1", "https://sởnộivụ.vn/", "https://8.8.8.8:8443/"])
def test_https_to_a_public_address_is_taken(url: str) -> None:
    assert settings(url=url).url == url


@pytest.mark.parametrize(
    "url",
    ["https://10.1.2.3:8443/", "http://127.0.0.1:9001/hook/so-noi-vu", "http://[::1]/x", "http://localhost:9001/hook"],
)
def test_an_inside_address_is_taken_once_its_network_is_allowed(url: str) -> None:
    assert settings(url=url, allow_networks=["10.1.0.0/16", "127.0.0.0/8", "::1/128"]).url == url
    with pytest.raises(ValidationError, match="allow_networks"):
        settings(url=url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://nhan.example.vn/hook", "https is required"),
        ("http://127.0.0.1.example.vn/", "https is required"),
        ("http://localhost.example.vn/", "https is required"),
        ("ftp://nhan.example.vn/", "https://host/path"),
        ("nhan.example.vn/hook", "https://host/path"),
        ("https:///hook", "https://host/path"),
        ("", "https://host/path"),
        ("https://tai_khoan:mat_khau_abc@nhan.example.vn/", "signed instead"),
        ("https://nhan.example.vn/#x", "fragment"),
        ("https://nhan.example.vn:99999/", "https://host/path"),
        ("https://[::1/", "port"),
    ],
)
def test_another_address_is_refused_and_the_reason_said(url: str, says: str) -> None:
    with pytest.raises(ValidationError) as raised:
        settings(url=url)
    message = raised.value.errors()[0]["msg"]
    assert says in message
    assert "mat_khau_abc" not in message


def test_http_beyond_loopback_has_to_be_allowed() -> None:
    assert settings(url="http://nhan.example.vn/hook", allow_http=True).allow_http


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_s": 0}, {"timeout_s": 61}, {"concurrency": 0}, {"rate_per_s": 0}, {"content_mode": "xml"},
     {"colour": 1}, {"secret": "whsec_in_the_file_itself"}, {"secret": None}, {"filter": "a ||"}, {"filter": "a" * 201},
     {"allow_networks": ["10.0.0.1/8"]}, {"allow_networks": ["0.0.0.0/0"]}, {"contact": "a b@c"},
     {"grants": [{"types": ["a.b.v1"], "fields": [], "purpose": "x", "legal_basis": "y"}]}],
)  # fmt: skip
def test_values_out_of_range_and_unknown_keys_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_every_setting_is_described_in_both_languages() -> None:
    for name, field in PartnerSettings.model_fields.items():
        assert field.title, name
        assert field.description, name
