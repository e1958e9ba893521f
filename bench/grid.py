"""No cliffs: some hundred shapes that nobody tuned for, against torch's better memory format.

    python bench/grid.py                                     # 1 and 2 threads, some minutes each
    python bench/grid.py --threads 1 --part 1/20             # every twentieth shape
    python bench/grid.py --threads 2 --filter "grouped|1x7"
    python bench/grid.py --json grid.json --docs docs/benchmarks.md

The shapes are those of `grid_cases.py`; how a cell is checked and timed is told in `table.py`. Rows
are added to those in the JSON file, so that a run may be cut into parts (`--part 2/6`). At the end
every cell below 1.0 is listed, by family, where one of the libraries needs more than 0.2 ms: below
that a call is overhead.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cases import Conv, Layout, Pool
from grid_cases import CONVS, POOLS, family
from networks import between_marks
from table import OPERATIONS, Row, collect, geometric_mean, has_torch, parse, parser, work

WORK = 0.2e-3  # seconds: cells in which both libraries need less are overhead
MARKS = "<!-- lists of bench/grid.py -->", "<!-- end of the lists -->"


def selected(options: argparse.Namespace) -> Iterator[tuple[Conv | Pool, Layout]]:
    pattern = re.compile(options.filter)
    part, parts = map(int, options.part.split("/"))
    chosen = [case for case in (*CONVS, *POOLS) if pattern.search(case.name)]
    for case in chosen[part - 1 :: parts]:
        yield case, "channels_first" if options.channels_first else "channels_last"


def algorithm(case: Conv) -> str:
    """What `explain_conv2d` says of the forward pass; nothing of a transposed convolution."""
    import fastconv

    if case.transposed:
        return ""

    def planar(sizes: tuple[int, ...], filler: int) -> tuple[int, ...]:
        return (filler,) * (2 - case.axes) + sizes

    x, w = ((*s[:2], *planar(s[2:], 1)) for s in (case.input_shape, case.weight_shape))
    geometry = planar(case.stride, 1), planar(case.padding, 0), planar(case.dilation, 1)
    return fastconv.explain_conv2d(x, w, *geometry, case.groups, dtype=case.dtype).algorithm


# --- the lists -----------------------------------------------------------------------------------


def counts(row: Row) -> bool:
    return max(row["torch"], row["seconds"]["fastconv"]) > WORK


def losses(rows: Iterable[Row]) -> list[Row]:
    """Wrong results, and cells below 1.0 that count: worst first."""
    bad = (row for row in rows if not row["correct"] or (row["ratio"] < 1 and counts(row)))
    return sorted(bad, key=lambda row: (row["correct"], row["ratio"]))


def by_family(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(family(row["case"]), []).append(row)
    return groups


def print_losses(rows: list[Row]) -> None:
    cases = {case.name: case for case in CONVS}
    for threads in sorted({row["threads"] for row in rows}):
        groups = by_family(row for row in rows if row["threads"] == threads)
        lost = {name: losses(group) for name, group in groups.items()}
        print(f"\n{threads} thread{'s' * (threads > 1)}: below 1.0 where the work is over 0.2 ms")
        for name in sorted(lost, key=lambda name: (geometric_mean_of(groups[name]), name)):
            counted = [row for row in groups[name] if counts(row)]
            print(
                f"\n{name}: geometric mean {geometric_mean_of(groups[name]):.2f}, "
                f"{len(lost[name])} of {len(counted)} below 1.0"
            )
            for row in lost[name]:
                case = cases.get(row["case"])
                print(
                    f"    {row['ratio']:5.2f}  {row['operation']:11} {row['case']}: "
                    f"torch {row['torch'] * 1e3:.3f} ms, "
                    f"fastconv {row['seconds']['fastconv'] * 1e3:.3f} ms"
                    f"{'' if case is None else '  ' + algorithm(case)}"
                    f"{'' if row['correct'] else '  FAIL'}"
                )


def geometric_mean_of(rows: Iterable[Row]) -> float:
    ratios = [row["ratio"] for row in rows if counts(row)]
    return geometric_mean(ratios) if ratios else math.nan


def joined(rows: list[Row], threads: list[int], cell: object) -> str:
    """`cell` of the rows of each thread count."""
    assert callable(cell)
    return " / ".join(cell([row for row in rows if row["threads"] == t]) for t in threads)


def _mean(rows: list[Row]) -> str:
    mean = geometric_mean_of(rows)
    return "" if math.isnan(mean) else f"{mean:.2f}"


def _below(rows: list[Row]) -> str:
    return f"{len(losses(rows))} of {sum(map(counts, rows))}"


def tables(rows: list[Row]) -> str:
    """One Markdown table of the families and one of the cells below 1.0."""
    threads = sorted({row["threads"] for row in rows})
    lines = [
        f"| family | shapes | {' | '.join(OPERATIONS)} | below 1.0 |",
        "|:--|--:|" + "--:|" * 4,
    ]
    for name, group in (*by_family(rows).items(), ("all", rows)):
        means = (
            joined([r for r in group if r["operation"] == o], threads, _mean) for o in OPERATIONS
        )
        shapes = len({row["case"] for row in group})
        below = joined(group, threads, _below)
        lines.append(f"| {name} | {shapes} | {' | '.join(means)} | {below} |")
    lines += ["", "| below 1.0 | operation | ratio |", "|:--|:--|--:|"]
    for group in by_family(rows).values():
        worst = dict.fromkeys((row["case"], row["operation"]) for row in losses(group))
        for case, operation in worst:
            cell = [r for r in group if (r["case"], r["operation"]) == (case, operation)]
            text = joined(cell, threads, lambda rs: "".join(f"{r['ratio']:.2f}" for r in rs))
            lines.append(f"| {case} | {operation} | {text} |")
    return "\n".join(lines)


def merged(known: list[Row], rows: list[Row]) -> list[Row]:
    """Newer rows replace older ones; in the order of the cases."""
    keys = ("case", "layout", "operation", "threads")
    unique = {tuple(row[key] for key in keys): row for row in (*known, *rows)}
    order = {case.name: i for i, case in enumerate((*CONVS, *POOLS))}
    return sorted(
        (row for row in unique.values() if row["case"] in order),
        key=lambda row: (row["threads"], order[row["case"]], OPERATIONS.index(row["operation"])),
    )


def main(arguments: list[str]) -> int:
    options_of = parser(__doc__ or "", budget=0.06)
    add = options_of.add_argument
    add("--part", default="1/1", metavar="I/N", help="every Nth shape, from the Ith on")
    add("--json", type=Path, help="results are added to those in this file")
    add("--docs", type=Path, help="the tables replace those between the marks")
    options = parse(options_of, arguments)
    if options.worker:
        work(options, selected(options))
        return 0
    if not has_torch(__file__):
        return 2
    rows, troubles = collect(__file__, arguments, options)
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    rows = merged(known, rows)
    print_losses(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.docs:
        page = options.docs.read_text()
        options.docs.write_text(between_marks(page, tables(rows), MARKS))
    return 1 if troubles or not all(row["correct"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
