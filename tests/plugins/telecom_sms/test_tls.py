"""TLS to the carrier: the right name, the wrong name, roots nobody knows, and never a fall back to plain."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hub.contract import CheckStep
from plugins.telecom_sms.connector import open_connection

from .conftest import Carrier
from .support import Context, MemoryHub, settings


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for smsc.example and 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "smsc.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("smsc.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
async def tls_carrier(certificate: tuple[Path, Path]) -> AsyncIterator[Carrier]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    carrier = Carrier()
    carrier.port = await carrier.smsc.start(tls=context)
    yield carrier
    await carrier.smsc.stop()


async def steps(port: int, **changes: Any) -> list[CheckStep]:
    made = settings(port, tls=True, response_timeout_s=1.0, connect_timeout_s=2.0, **changes)
    check = open_connection(Context(MemoryHub()).value(), made).check
    assert check is not None
    return [step async for step in check()]


@pytest.mark.parametrize("server_name", [None, "smsc.example"])
async def test_a_known_certificate_with_the_right_name_is_good(
    tls_carrier: Carrier, certificate: tuple[Path, Path], server_name: str | None
) -> None:
    found = await steps(tls_carrier.port, tls_ca_file=certificate[0], tls_server_name=server_name)
    assert [(step.step, step.ok) for step in found] == [
        ("dns", True), ("tcp", True), ("tls", True), ("login", True),
    ]  # fmt: skip


async def test_another_name_is_refused(tls_carrier: Carrier, certificate: tuple[Path, Path]) -> None:
    found = await steps(tls_carrier.port, tls_ca_file=certificate[0], tls_server_name="other.example")
    assert [(step.step, step.ok) for step in found] == [("dns", True), ("tcp", True), ("tls", False)]
    assert "SSLCertVerificationError" in found[-1].detail
    assert tls_carrier.count("binds") == 0


async def test_roots_nobody_knows_are_refused(tls_carrier: Carrier) -> None:
    found = await steps(tls_carrier.port)
    assert [(step.step, step.ok) for step in found] == [("dns", True), ("tcp", True), ("tls", False)]


async def test_a_carrier_without_tls_gets_no_login_in_plain(carrier: Carrier) -> None:
    found = await steps(carrier.port)
    assert [(step.step, step.ok) for step in found] == [("dns", True), ("tcp", True), ("tls", False)]
    assert carrier.count("binds") == 0
