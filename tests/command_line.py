"""``unionhub ...`` inside the test's own process: a tenth of the time a process takes."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from hub import cli
from hub import log as hub_log


@dataclass
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


#: A ``run`` that is not refused would go on for ever.
_LONGEST_S = 20


def _too_long(*_: object) -> None:
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        raise TimeoutError(f"a command took more than {_LONGEST_S} s")
    os.kill(os.getpid(), signal.SIGTERM)  # a hub runs and knows how to stop


@pytest.fixture
def unionhub(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Arguments as typed, environment variables by keyword; the log's stream is restored afterwards."""
    before, handlers, level = vars(hub_log._state).copy(), logging.root.handlers[:], logging.root.level

    def run(*arguments: object, **environ: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["unionhub", *map(str, arguments)])
            for name, value in environ.items():
                patch.setenv(name, value)
            capsys.readouterr()
            signal.alarm(_LONGEST_S)
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            finally:
                signal.alarm(0)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Done(code, said.out, said.err)

    alarmed = signal.signal(signal.SIGALRM, _too_long)
    yield run
    signal.signal(signal.SIGALRM, alarmed)
    vars(hub_log._state).update(before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
