"""What JSON Schema cannot say of our requests, done as the document's words say: loaded by schemathesis."""

from __future__ import annotations

from itertools import count
from typing import Any

import schemathesis

KEY = "Idempotency-Key"
_number = count(1)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Each request is one of its own, and none waits.

    A key belongs to one request, and another request with it is answered 422: the generator would send the same key
    with every body. A long poll takes as long as it was asked to: what waiting does, tests/flow/test_api_keys.py says.
    """
    sent = (case.headers or {}).get(KEY)
    if isinstance(sent, str) and 0 < len(sent) <= 200 and all("!" <= c <= "~" for c in sent):
        case.headers[KEY] = f"{next(_number)}-{sent}"[:200]
    if case.method == "GET" and case.path == "/api/v1/events" and str((case.query or {}).get("wait", "")).isdigit():
        case.query["wait"] = 0
