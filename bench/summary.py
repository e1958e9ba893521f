"""Ratios of a run of bench/table.py as one Markdown table, one and two threads side by side.

python bench/table.py --json table.json
python bench/summary.py table.json                      # every layer
python bench/summary.py table.json --filter "3x3 64|stem"
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OPERATIONS = ("forward", "grad_input", "grad_weight")


def name_of(row: dict[str, Any]) -> str:
    first = row["layout"] != "channels_last"
    return row["case"] + (" (channels-first)" if first else "")


def cell(rows: Iterable[dict[str, Any]]) -> str:
    """torch / fastconv for each thread count, ascending."""
    return " / ".join(f"{r['ratio']:.2f}" for r in sorted(rows, key=lambda r: r["threads"]))


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def scaling(rows: list[dict[str, Any]]) -> str:
    """How much two threads gain over one where work is long enough to share out."""
    key = operator.itemgetter("case", "layout", "operation")
    ones, twos = ({key(r): r for r in rows if r["threads"] == n} for n in (1, 2))
    long = [
        k for k, r in ones.items() if k in twos and "flops" in r and r["seconds"]["fastconv"] > 1e-3
    ]
    if not long:
        return ""
    ours = [ones[k]["seconds"]["fastconv"] / twos[k]["seconds"]["fastconv"] for k in long]
    theirs = [ones[k]["torch"] / twos[k]["torch"] for k in long]
    return (
        f"\nTwo threads over one, {len(long)} cells of convolutions of more than 1 ms: median "
        f"{statistics.median(ours):.2f} (torch {statistics.median(theirs):.2f}), "
        f"{sum(x >= 1.85 for x in ours)} at 1.85 or more (torch "
        f"{sum(x >= 1.85 for x in theirs)})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--filter", default="", metavar="REGEX")
    options = parser.parse_args()
    rows = [
        r for r in json.loads(options.file.read_text()) if re.search(options.filter, name_of(r))
    ]
    print("| layer | forward | grad_input | grad_weight |\n|:--|--:|--:|--:|")
    for name in dict.fromkeys(map(name_of, rows)):
        cells = (
            cell(r for r in rows if name_of(r) == name and r["operation"] == operation)
            for operation in OPERATIONS
        )
        print(f"| {name} | {' | '.join(cells)} |")
    for threads in sorted({r["threads"] for r in rows}):
        ratios = [r["ratio"] for r in rows if r["threads"] == threads]
        below = sum(ratio < 1 for ratio in ratios)
        print(
            f"\n{threads} thread{'s' * (threads > 1)}: geometric mean {geometric_mean(ratios):.2f} "
            f"of {len(ratios)}, {below} below 1."
        )
    print(scaling(rows))


if __name__ == "__main__":
    main()
