"""Receives events from a union hub: verifies, remembers, hands on. One file, standard library only, Python 3.9+.

    receiver = Receiver(["whsec_..."], Ids("ids.txt"))
    verdict, event_id = receiver.check(headers, body)      # body: the raw bytes, before any JSON parser
    if verdict == "new":
        ...                                                # store the event, then:
        receiver.remember(event_id)
    # "new" and "repeat": answer 200; "refused": answer 401

A try-out server: ``python unionhub_receiver.py --port 8090 --keys keys.txt --ids ids.txt`` (one key a line). Keys are
``whsec_...`` (shared secret, v1) or ``whpk_...`` (the hub's public key, v1a; needs the package ``cryptography``).
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOLERANCE_S = 300
KEEP_IDS_S = 30 * 86400
BODY_BYTES = 2 * 1024 * 1024
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class Ids:
    """Ids that were done, in a file, so that a restart forgets none. Only one process may use the file."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}
        if os.path.exists(path):
            with open(path, encoding="ascii", errors="replace") as lines:
                for line in lines:
                    at, _, message_id = line.strip().partition(" ")
                    if _TIMESTAMP.fullmatch(at) and int(at) > time.time() - KEEP_IDS_S:  # noqa: TID251
                        self._known[message_id] = int(at)
        self._file = open(path, "w", encoding="ascii")  # noqa: SIM115 - open for life
        for message_id, known_at in self._known.items():
            self._file.write(f"{known_at} {message_id}\n")
        self._file.flush()

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._known

    def add(self, message_id: str) -> None:
        with self._lock:
            now = int(time.time())  # noqa: TID251
            self._known[message_id] = now
            self._file.write(f"{now} {message_id}\n")
            self._file.flush()
            os.fsync(self._file.fileno())


class Receiver:
    """Checks requests against any of ``keys``; keep the old key beside the new one while keys are changed."""

    def __init__(self, keys: Sequence[str], ids: Ids) -> None:
        self._secrets = [_decoded(key, "whsec_") for key in keys if key.startswith("whsec_")]
        self._public = [_public(_decoded(key, "whpk_")) for key in keys if key.startswith("whpk_")]
        if not self._secrets and not self._public:
            raise ValueError("no key: give whsec_... or whpk_...")
        self._ids = ids

    def check(self, headers: Mapping[str, str], body: bytes, now: float | None = None) -> tuple[str, str]:
        """("new" | "repeat" | "refused", webhook-id). Never raises for what a request holds."""
        named = {name.lower(): value for name, value in headers.items()}
        message_id, timestamp = named.get("webhook-id", ""), named.get("webhook-timestamp", "")
        if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(timestamp):
            return "refused", ""
        moment = time.time() if now is None else now  # noqa: TID251
        if abs(moment - int(timestamp)) > TOLERANCE_S:
            return "refused", ""
        signed = f"{message_id}.{timestamp}.".encode() + body
        if not self._is_signed(named.get("webhook-signature", ""), signed):
            return "refused", ""
        return ("repeat" if message_id in self._ids else "new"), message_id

    def remember(self, message_id: str) -> None:
        """Call it once the event is stored: what was not remembered comes as new again."""
        self._ids.add(message_id)

    def _is_signed(self, value: str, signed: bytes) -> bool:
        expected = [hmac.new(secret, signed, hashlib.sha256).digest() for secret in self._secrets]
        for entry in value.split(" ", 8)[:8]:
            version, _, text = entry.partition(",")
            try:
                given = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                continue
            # The kind of our key says the algorithm; compare_digest takes as long for any answer.
            if version == "v1" and any(hmac.compare_digest(given, each) for each in expected):
                return True
            if version == "v1a" and any(_fits(key, given, signed) for key in self._public):
                return True
        return False


def _decoded(key: str, prefix: str) -> bytes:
    raw = base64.b64decode(key.strip()[len(prefix) :], validate=True)
    if len(raw) < 24:
        raise ValueError("the key is too short")
    return raw


def _public(raw: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # Python has no Ed25519 of its own

    return Ed25519PublicKey.from_public_bytes(raw)


def _fits(key: Any, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


# -- the try-out server ------------------------------------------------------------------------------


def serve(port: int, receiver: Receiver) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not _TIMESTAMP.fullmatch(length) or int(length) > BODY_BYTES:
                self.close_connection = True
                return self._answer(413, "too large")
            body = self.rfile.read(int(length))
            verdict, message_id = receiver.check(dict(self.headers.items()), body)
            if verdict == "new":
                print(f"event {message_id} {len(body)} bytes", flush=True)
                receiver.remember(message_id)
            self._answer(401 if verdict == "refused" else 200, verdict)

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"listening {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Receives events from a union hub and prints their ids.")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--keys", required=True, help="file with one key a line: whsec_... or whpk_...")
    parser.add_argument("--ids", default="ids.txt", help="file that remembers what was done")
    given = parser.parse_args()
    with open(given.keys, encoding="ascii") as file:
        keys = [line.strip() for line in file if line.strip()]
    serve(given.port, Receiver(keys, Ids(given.ids)))
