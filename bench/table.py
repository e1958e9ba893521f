"""The ratio table: torch's time over fastconv's, layer by layer. Above 1 fastconv is faster.

    python bench/table.py                          # 1 and 2 threads, everything
    python bench/table.py --threads 1 --filter 3x3 --budget 0.3

One process per thread count. In it the candidates (torch in both memory formats, fastconv) take
turns, A B C A B C, and the minimum of all samples counts; torch's better format is compared. Every
result is compared with torch's before anything is timed: `FAIL` marks a wrong one. Both sides
allocate their results. Rows below 1 are repeated at the end, with how busy other processes kept
the machine: two threads on two CPUs wait for each other, so those numbers need an idle machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cases import (
    CONVS,
    NORMS,
    POOLS,
    Conv,
    ConvArrays,
    Layout,
    Norm,
    Pool,
    formatted,
    normal,
    pool_output_shape,
)

OPERATIONS = ("forward", "grad_input", "grad_weight")
Row = dict[str, Any]
Calls = dict[str, Callable[[], Any]]


# --- the worker: one process, one thread count ---------------------------------------------------


def candidates(
    case: Conv | Pool | Norm, layout: Layout
) -> tuple[Callable[[], Calls], dict[str, Calls]]:
    """A function that makes fastconv's calls, and torch's calls in both formats."""
    import fastconv_calls as ours
    import torch_calls as theirs

    formats: tuple[Layout, ...] = ("channels_first", "channels_last")
    if isinstance(case, Conv):
        arrays = ConvArrays(case, layout)
        return lambda: ours.conv_calls(arrays), {f: theirs.conv_calls(arrays, f) for f in formats}
    x = formatted(normal(case.shape, "float32", 1), layout)
    if isinstance(case, Pool):
        g = formatted(normal(pool_output_shape(case), "float32", 3), layout)
        return lambda: ours.pool_calls(case, x, g), {
            f: theirs.pool_calls(case, x, g, f) for f in formats
        }
    g = formatted(normal(case.shape, "float32", 3), layout)
    parameters = ours.norm_parameters(case)
    return (
        lambda: ours.norm_calls(case, x, g, parameters),
        {f: theirs.norm_calls(case, x, g, parameters, f) for f in formats},
    )


def measure(
    case: Conv | Pool | Norm, layout: Layout, operations: list[str], budget: float, threads: int
) -> Iterator[Row]:
    """One row per operation of `case`."""
    import torch_calls
    from harness import relative_error, tolerance
    from timing import interleaved

    make_ours, torch_by_format = candidates(case, layout)
    ours = make_ours()
    for operation in operations:
        if operation not in torch_by_format["channels_first"]:
            continue
        row: Row = {"case": case.name, "layout": layout, "operation": operation, "threads": threads}
        calls = {f"torch {f}": c[operation] for f, c in torch_by_format.items()}
        result = ours[operation]()
        expected = torch_calls.to_numpy(calls["torch channels_first"](), result.shape)
        terms = case.terms(operation) if isinstance(case, Conv) else 2000
        row["error"] = relative_error(result, expected)
        row["correct"] = row["error"] <= tolerance(terms, expected.dtype)
        calls["fastconv"] = ours[operation]
        del result, expected
        best = interleaved(calls, budget, settle=threads > 1)
        row["seconds"] = best
        row["torch"] = min(seconds for name, seconds in best.items() if name.startswith("torch"))
        row["ratio"] = row["torch"] / best["fastconv"]
        if isinstance(case, Conv):
            row["flops"] = case.flops
        yield row


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used; 0 where that cannot be read."""
    try:
        ticks = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    except OSError:
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # without idle, iowait


def work(options: argparse.Namespace, cases: Iterable[tuple[Conv | Pool | Norm, Layout]]) -> None:
    """Measure every case and write each row to standard output as one line of JSON."""
    import torch

    import fastconv

    torch.set_num_threads(options.worker)
    fastconv.set_num_threads(options.worker)
    if options.isa:
        fastconv.use_isa(options.isa)
    versions = {"torch": torch.__version__, **fastconv.config()}
    print(json.dumps({"about": versions}), flush=True)
    busy, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    with torch.inference_mode():
        for case, layout in cases:
            settings = (layout, options.operations, options.budget, options.worker)
            try:
                for row in measure(case, *settings):
                    print(json.dumps(row), flush=True)
            except (AttributeError, ValueError, TypeError) as problem:
                print(json.dumps({"trouble": f"{case.name}: {problem}"}), flush=True)
    others = (busy_seconds() - busy) - (time.process_time() - own)
    print(json.dumps({"others": others / (time.perf_counter() - start)}), flush=True)


# --- the parent: chooses, collects, prints -------------------------------------------------------


def selected(options: argparse.Namespace) -> Iterator[tuple[Conv | Pool | Norm, Layout]]:
    """Convolutions in one format, pools and norms in both."""
    pattern = re.compile(options.filter)
    for case in CONVS:
        if pattern.search(case.name):
            yield case, "channels_first" if options.channels_first else "channels_last"
    for case in (*POOLS, *NORMS):
        if pattern.search(case.name):
            yield case, "channels_last"
            yield case, "channels_first"


def rows_of(script: str, arguments: list[str], threads: int) -> Iterator[Row]:
    """Run a worker, which is `script` with the same arguments, and read its rows as they come."""
    command = [sys.executable, script, *arguments, "--worker", str(threads)]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit(
            f"table: the process with {threads} threads failed with status {process.returncode}"
        )


class Printer:
    """One line per case: milliseconds of torch, of fastconv, and their ratio, per operation."""

    def __init__(self, markdown: bool, operations: list[str]) -> None:
        self.markdown, self.operations = markdown, operations
        self.pending: tuple[str, str, int] | None = None
        self.cells: dict[str, str] = {}

    def header(self, about: Row, threads: int) -> None:
        title = (
            f"{threads} thread{'s' * (threads > 1)}: "
            f"fastconv {about['version']} ({about['isa']}), torch {about['torch']}; "
            f"ms torch, ms fastconv, ratio torch/fastconv"
        )
        columns = [f"{operation:>25}" for operation in self.operations]
        print(f"\n{title}\n")
        self.line(f"{'layer':52}", columns)
        if self.markdown:
            print("|:--|" + "--:|" * len(columns))

    def line(self, name: str, cells: list[str]) -> None:
        separator = " | " if self.markdown else " "
        edge = "|" if self.markdown else ""
        print(f"{edge}{edge and ' '}{separator.join([name, *cells])}{edge and ' |'}", flush=True)

    def add(self, row: Row) -> None:
        key = (row["case"], row["layout"], row["threads"])
        if key != self.pending:
            self.flush()
            self.pending = key
        ours = row["seconds"]["fastconv"]
        mark = "" if row.get("correct") else " FAIL"
        cell = f"{row['torch'] * 1e3:.3f} {ours * 1e3:9.3f} {row['ratio']:6.2f}{mark}"
        self.cells[row["operation"]] = f"{cell:>25}"

    def flush(self) -> None:
        if self.pending:
            name = self.pending[0] + (
                " (channels-first)" if self.pending[1] == "channels_first" else ""
            )
            self.line(
                f"{name:52}", [self.cells.get(operation, " " * 25) for operation in self.operations]
            )
        self.pending, self.cells = None, {}


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def summarise(rows: list[Row], threads: int, operations: list[str]) -> None:
    """Geometric means, how many are below 1, and those, worst first."""
    rows = [row for row in rows if row["threads"] == threads]
    for title, chosen in (("all", operations), *((name, [name]) for name in operations)):
        ratios = [row["ratio"] for row in rows if row["operation"] in chosen]
        if ratios:
            print(
                f"{threads} thread{'s' * (threads > 1)}, {title}: geometric mean "
                f"{geometric_mean(ratios):.2f} of {len(ratios)}, smallest {min(ratios):.2f}, "
                f"{sum(ratio < 1 for ratio in ratios)} below 1.0"
            )
    for row in sorted(rows, key=lambda row: row["ratio"]):
        name = f"{row['case']} {row['operation']} ({row['layout'].replace('_', '-')})"
        if not row["correct"]:
            print(f"    FAIL  {name}: error {row['error']:.2e} of the rms")
        elif row["ratio"] < 1:
            print(
                f"    {row['ratio']:5.2f}  {name}: torch {row['torch'] * 1e3:.3f} ms, "
                f"fastconv {row['seconds']['fastconv'] * 1e3:.3f} ms"
            )


def parser(text: str, budget: float) -> argparse.ArgumentParser:
    """The options that every table has; `text` is the docstring of its script."""
    result = argparse.ArgumentParser(description=text.splitlines()[0])
    add = result.add_argument
    add("--threads", default="1,2", help="comma-separated (default 1,2)")
    add("--filter", default="", metavar="REGEX", help="only layers whose name matches")
    add("--operations", default=",".join(OPERATIONS), help="default: all three")
    add("--budget", type=float, default=budget, metavar="SECONDS", help="per row and operation")
    add("--isa", default="", metavar="NAME", help="instruction set of fastconv, e.g. avx2")
    add("--channels-first", action="store_true", help="give fastconv channels-first arrays")
    add("--markdown", action="store_true", help="print Markdown tables")
    add("--worker", type=int, default=0, help=argparse.SUPPRESS)
    return result


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    options = parser.parse_args(arguments)
    options.operations = options.operations.split(",")
    unknown = set(options.operations) - set(OPERATIONS)
    if unknown:
        parser.error(f"--operations: unknown {sorted(unknown)}, choose from {OPERATIONS}")
    return options


def collect(
    script: str, arguments: list[str], options: argparse.Namespace
) -> tuple[list[Row], list[str]]:
    """All rows of a run, printed as they come, and what could not be measured."""
    rows: list[Row] = []
    troubles: list[str] = []
    for threads in map(int, options.threads.split(",")):
        printer = Printer(options.markdown, options.operations)
        for row in rows_of(script, arguments, threads):
            if "about" in row:
                printer.header(row["about"], threads)
            elif "others" in row:
                printer.flush()
                others = max(row["others"], 0.0)
                print(f"\nother processes kept {others:.1f} CPUs busy meanwhile", end="")
                print(
                    "" if others < 0.1 else ": with as many threads as CPUs, barriers wait for them"
                )
            elif "trouble" in row:
                troubles.append(row["trouble"])
            else:
                rows.append(row)
                printer.add(row)
    for trouble in sorted(set(troubles)):
        print(f"not measured: {trouble}")
    return rows, troubles


def has_torch(script: str) -> bool:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        print(f"{Path(script).stem}: torch is not installed for {sys.executable}", file=sys.stderr)
        return False
    return True


def main(arguments: list[str]) -> int:
    options_of = parser(__doc__ or "", budget=0.5)
    options_of.add_argument("--json", metavar="FILE", help="also write every row to FILE")
    options = parse(options_of, arguments)
    if options.worker:
        work(options, selected(options))
        return 0
    if not has_torch(__file__):
        return 2
    rows, troubles = collect(__file__, arguments, options)
    for threads in map(int, options.threads.split(",")):
        summarise(rows, threads, options.operations)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if troubles or not all(row["correct"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
