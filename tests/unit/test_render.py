"""What the command line prints as a table."""

from __future__ import annotations

import pytest

from hub.render import table_of

ID = "01a20994-26cf-70be-a8df-e4fdf00f2988"


@pytest.mark.parametrize("column", ["id", "boot"])
def test_what_is_copied_into_the_next_command_stays_on_one_line(column: str) -> None:
    row = {"name": "a-host-with-a-name-much-longer-than-its-column." * 2, column: ID, "detail": "many words " * 20}
    printed = table_of({"nodes": [row, row]}, "en")
    assert printed.count(ID) == 2
