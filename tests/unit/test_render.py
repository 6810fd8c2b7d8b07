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


def test_no_cell_is_cut_however_many_columns_there_are() -> None:
    row = {"id": ID, **{f"column_{n}": f"value-{n}-is-said" for n in range(9)}, "detail": "the last word " * 9 + "END"}
    printed = table_of({"things": [row]}, "en")
    assert ID in printed and all(f"value-{n}-is-said" in printed for n in range(9)) and "END" in printed
