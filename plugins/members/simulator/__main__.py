"""``python -m plugins.members.simulator --seed 7 --out FILE.xlsx --expected FILE.json``"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from plugins.members.simulator.lists import generate


def main() -> None:
    parser = argparse.ArgumentParser(description="Write an invented member list and the result expected of it.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="the list (.xlsx)")
    parser.add_argument("--expected", type=Path, help="the result a reader must arrive at (.json)")
    parser.add_argument("--shuffle", action="store_true", help="the same rows in another order")
    parser.add_argument("--edit", type=int, metavar="N", help="another phone in the N-th good row")
    given = parser.parse_args()
    result = generate(given.seed, given.out, shuffled=given.shuffle, edited=given.edit)
    if given.expected:
        given.expected.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: result[k] for k in ("seed", "rows", "created", "duplicates", "bad_rows")}))


if __name__ == "__main__":
    main()
