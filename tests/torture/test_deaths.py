"""What a tortured ledger calls poison is held against the deaths that were seen from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.torture import kills, partner
from benchmarks.torture.deaths import Deaths
from hub.store.ops.settle import POISON

ID, OTHER = b"i" * 16, b"o" * 16
CRASH = ("lost", "crashed")
#: Four crashes on record, a release without a try (lease 4) between them.
CRASHES = [(2, *CRASH), (3, *CRASH), (5, *CRASH), (6, *CRASH)]


def witness(*, company: int = 0, missed: int = 0, counted: tuple[int, ...] = (0, 1, 2, 3)) -> Deaths:
    """Saw the four deaths of ``CRASHES``; at death ``company`` another suspect died too, death ``missed`` had none."""
    seen = Deaths(Path(), "")
    for n, ((lease_no, *_), crashes) in enumerate(zip(CRASHES, counted, strict=True), 1):
        leased = [(ID, lease_no, crashes)] if n != missed else []
        seen._saw([*leased, (OTHER, n, int(n == company))])
    return seen


def test_four_deaths_of_which_three_were_alone_are_poison() -> None:
    assert witness().doubts(ID, POISON, 6, CRASHES) == ""
    assert witness(company=1).doubts(ID, POISON, 6, CRASHES) == "", "the first one may be in company"
    assert witness().doubts(ID, POISON, 6, [(1, "failed", "http_503"), *CRASHES]) == ""


@pytest.mark.parametrize(
    ("seen", "crashes", "lease_no", "attempts", "why"),
    [
        (witness(), 3, 6, CRASHES, "poison after 3 crashes"),
        (witness(), 4, 6, CRASHES[1:], "its last attempts: lost (crashed), lost (crashed), lost (crashed)"),
        (witness(), 4, 6, [], "its last attempts: none"),
        (witness(), 4, 6, [*CRASHES[:3], (6, "failed", "http_503")], "failed (http_503)"),
        (witness(), 4, 6, [*CRASHES[:3], (6, "lost", "crashed_while_sending")], "crashed_while_sending"),
        (witness(), 4, 7, CRASHES, "poison at lease 7, its last crash was at lease 6"),
        (witness(missed=3), 4, 6, CRASHES, "no kill met its leases [5]"),
        (witness(counted=(0, 2, 3, 3)), 4, 6, CRASHES, "it had crashed [0, 2, 3, 3] times"),
        (witness(company=3), 4, 6, CRASHES, "not the only suspect at deaths [3]"),
    ],
)
def test_a_count_that_no_death_explains_is_named(
    seen: Deaths, crashes: int, lease_no: int, attempts: list[tuple[int, str, str]], why: str
) -> None:
    assert why in seen.doubts(ID, crashes, lease_no, attempts)


def test_a_lease_belongs_to_the_first_death_after_it() -> None:
    """On PostgreSQL it stands until its time is over, which may be some lives later."""
    seen = Deaths(Path(), "")
    seen._saw([(ID, 2, 1)])
    seen._saw([(ID, 2, 1), (OTHER, 1, 1)])
    assert [seen.cut_off[key].death for key in ((ID, 2), (OTHER, 1))] == [1, 2]


async def test_who_is_killed_at_every_claim_is_taken_for_poison_only_where_its_deaths_were_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same kills, of which nobody looked at the later ones."""
    monkeypatch.setattr(partner, "CALLERS", 1)  # few suspects, soon each one's turn again
    phases = ["delivery.claimed"] * 16
    async with kills.fork_server() as lives:
        for name in ("seen", "unseen"):
            (tmp_path / name).mkdir()
        seen = await kills.installation(lives, tmp_path / "seen", "", phases, 11, passes=1)
        monkeypatch.setattr(Deaths, "_saw", _blind_from_the_third)
        unseen = await kills.installation(lives, tmp_path / "unseen", "", phases, 11, passes=1)
    assert seen.broken == [] and seen.poisoned
    assert any("poison, but no kill met its leases" in each for each in unseen.broken) and not unseen.poisoned


_saw = Deaths._saw


def _blind_from_the_third(self: Deaths, leased: list[tuple[bytes, int, int]]) -> None:
    _saw(self, leased if self._count < 2 else [])
