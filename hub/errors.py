"""Every error the hub raises on purpose: one root, a stable code, who must act and whether to try again.

Partner failures are not here: they are outcomes (see ``hub.contract``). A class's docstring is its
default message. Messages carry ids only, never a name, a phone, a token or a payload.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Actor = Literal["operator", "caller", "developer", "machine"]


class HubError(Exception):
    """The hub could not do what was asked."""

    code: ClassVar[str] = "hub_error"
    status: ClassVar[int] = 500
    who_must_act: ClassVar[Actor] = "developer"
    may_retry: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class ConfigError(HubError):
    """The configuration is wrong; nothing was started or changed."""

    code = "config_invalid"
    status = 422
    who_must_act = "operator"


class Conflict(HubError):
    """Somebody else changed the same thing first; read again and try again."""

    code = "conflict"
    status = 409
    who_must_act = "machine"
    may_retry = True

    def __init__(self, message: str | None = None, *, otherwise: str = "conflict") -> None:
        super().__init__(message)
        self.otherwise = otherwise


class IdempotencyConflict(HubError):
    """This key was already used with another content; send the same content or a new key."""

    code = "idempotency_conflict"
    status = 409
    who_must_act = "caller"


class NotFound(HubError):
    """There is no such thing here, or it is not yours to see."""

    code = "not_found"
    status = 404
    who_must_act = "caller"


class InputError(HubError):
    """The input cannot be accepted; nothing was stored."""

    code = "input_invalid"
    status = 400
    who_must_act = "caller"

    def __init__(
        self, message: str | None = None, *, problem: str = "input-invalid", status: int = 400, at: str = ""
    ) -> None:
        """``at``: what is wrong: a JSON pointer into the body (``#/data/n``), or the name of a parameter."""
        super().__init__(message)
        self.problem = problem
        self.http_status = status
        self.at = at


class Unauthenticated(HubError):
    """The request is not signed as agreed."""

    code = "unauthenticated"
    status = 401
    who_must_act = "caller"


class NotUnderstood(HubError):
    """The sender is genuine but our mapping cannot read the body; it is kept for a person."""

    code = "not_understood"
    status = 202
    who_must_act = "operator"


class Busy(HubError):
    """The ledger is busy or out of space; nothing was stored, try again after a pause."""

    code = "busy"
    status = 503
    who_must_act = "machine"
    may_retry = True
    retry_after_s: ClassVar[int] = 5


class AlreadyRunning(HubError):
    """Another process is writing this ledger."""

    code = "already_running"
    status = 409
    who_must_act = "operator"


class PluginError(HubError):
    """A plugin broke its contract; it was named and left out."""

    code = "plugin_error"
    who_must_act = "developer"


class MoveFailed(HubError):
    """A ledger did not move whole; the old one is as it was, and the move can be started again."""

    code = "move_failed"
    status = 503
    who_must_act = "operator"
    may_retry = True
