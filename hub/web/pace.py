"""Token buckets: how many requests a minute somebody may make. Counted in this process, so per node."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hub.clock import steady


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left after a request; ``retry_after_s`` 0: it may pass."""

    per_min: int
    left: int
    full_in_s: int
    retry_after_s: int

    def headers(self) -> dict[str, str]:
        """Source: draft-ietf-httpapi-ratelimit-headers-10."""
        return {
            "RateLimit-Policy": f'"minute";q={self.per_min};w=60',
            "RateLimit": f'"minute";r={self.left};t={self.full_in_s}',
        }


class Buckets:
    """One bucket a name: it holds a minute's worth and fills evenly."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, per_min: int) -> Allowance:
        """Takes one token where there is one."""
        now = steady()
        tokens, at = self._buckets.get(name, (float(per_min), now))
        tokens = min(per_min, tokens + (now - at) * per_min / 60)
        wait_s = 0 if tokens >= 1 else math.ceil((1 - tokens) * 60 / per_min)
        if not wait_s:
            tokens -= 1
        self._buckets[name] = (tokens, now)
        return Allowance(per_min, int(tokens), math.ceil((per_min - tokens) * 60 / per_min), wait_s)
