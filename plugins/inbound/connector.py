"""The ``inbound`` connector: one receiver made of the hub's verifiers and the configured mapping."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hub.contract import Connection, ConnectionContext, RawRequest, UnitOfWork, Verified
from hub.errors import NotUnderstood
from hub.model import Draft
from hub.signing import (
    RECIPES,
    ApiKeyVerifier,
    BasicVerifier,
    HmacVerifier,
    IpVerifier,
    MtlsVerifier,
    networks,
    parse_secret,
    verify,
)
from hub.strictjson import misfit
from plugins.inbound.schema import data_of, text_at
from plugins.inbound.settings import InboundSourceSettings

_ID = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)


class SourceReceiver:
    """Genuine by the configured rule; a message becomes one event."""

    def __init__(self, context: ConnectionContext, settings: InboundSourceSettings) -> None:
        self._hub = context.hub
        self._name = context.name
        self._settings = settings
        self._genuine = _rule(context, settings)
        own = networks(settings.networks)
        self._from = IpVerifier(own, networks(settings.proxies)) if own else None

    def verify(self, request: RawRequest) -> Verified:
        if self._from is not None:
            self._from(request)
        own_id = self._genuine(request)
        header = self._settings.dedupe_header
        given = request.headers.get(header, "") if header else own_id or ""
        # Without an id of its own, equal bodies are one message.
        return Verified(given if _ID.fullmatch(given) else "body:" + hashlib.sha256(request.body).hexdigest())

    def understand(self, request: RawRequest, verified: Verified, body: Any) -> UnitOfWork:
        settings = self._settings
        data = data_of(body, settings.fields, settings.event_type, self._name)
        kind = self._hub.event_types.get(settings.event_type)
        if kind is not None and misfit(kind.schema, data) is not None:
            raise NotUnderstood
        key = verified.dedupe_key
        if settings.dedupe_path:
            key = "id:" + text_at(body, settings.dedupe_path)
        subject = None
        if settings.subject_path:
            # Keyed, so that the readable envelope tells nothing even where it is a phone.
            about = text_at(body, settings.subject_path)
            subject = "inbound-" + self._hub.keyed_hash("inbound", f"{self._name}:{about}").hex()
        draft = Draft(
            type=settings.event_type,
            source=f"/connections/{self._name}",
            dedupe_key=key,
            data=data,
            subject=subject,
            ordering_key=subject,
        )
        return UnitOfWork(drafts=[draft])


def _rule(context: ConnectionContext, settings: InboundSourceSettings) -> Callable[[RawRequest], str | None]:
    """Raises ``Unauthenticated``; answers the sender's own id of the message where the rule knows one."""
    secrets = [context.secret(ref) for ref in settings.secrets]
    header = settings.header
    if settings.verify == "standard_webhooks":
        keys = [parse_secret(secret) for secret in secrets]
        return lambda request: verify(keys, request.headers, request.body, request.received_at)
    checks: Callable[[RawRequest], None]
    if settings.verify == "hmac":
        recipe = RECIPES[settings.recipe]
        checks = HmacVerifier(replace(recipe, header=header or recipe.header), [s.encode() for s in secrets])
    elif settings.verify == "basic":
        checks = BasicVerifier(settings.user, secrets)
    elif settings.verify == "api_key":
        checks = ApiKeyVerifier(header or "", secrets)
    elif settings.verify == "mtls":
        made = MtlsVerifier(networks(settings.proxies), settings.subjects)
        checks = replace(made, header=header) if header else made
    else:
        checks = _anybody  # the list of addresses has decided

    def check(request: RawRequest) -> None:
        checks(request)

    return check


def _anybody(request: RawRequest) -> None:
    """``networks`` are needed with ``verify = "ip"``."""


def open_connection(context: ConnectionContext, settings: InboundSourceSettings) -> Connection:
    return Connection(receiver=SourceReceiver(context, settings))
