"""What `Plan.explain` prints: the steps of a plan with their cost, measured."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .graph import Array, Node, Shape
from .weights import Weights

if TYPE_CHECKING:
    from .plan import Plan

_SECONDS = 0.3  # of measuring, and at least _RUNS runs
_RUNS = 5


@dataclass(frozen=True)
class StepReport:
    """One step: what it does, what it costs by its shapes, what it took."""

    name: str
    algorithm: str
    fused: tuple[str, ...]
    output_shape: Shape
    macs: int
    bytes: int
    seconds: float
    share: float
    roofline: float


class StepReports(list[StepReport]):
    """Short where a prompt shows it below the table."""

    def __repr__(self) -> str:
        return f"<{len(self)} StepReports>"


def report(plan: Plan, peak_gflops: float | None, bandwidth_gbs: float | None) -> StepReports:
    peak = 1e9 * peak_gflops if peak_gflops else _measured_peak(plan.dtype)
    bandwidth = 1e9 * bandwidth_gbs if bandwidth_gbs else _measured_bandwidth(plan.dtype)
    seconds, whole = _measure(plan)
    rows, total = StepReports(), max(float(seconds.sum()), 1e-9)
    for first, end in _lines(plan.nodes):
        nodes, weights = plan.nodes[first:end], plan._weights[first:end]
        macs, spent = sum(node.macs for node in nodes), max(float(seconds[first:end].sum()), 1e-9)
        traffic = _bytes(nodes, weights, plan.dtype.itemsize)
        floor = max(2 * macs / peak, traffic / bandwidth)
        algorithms = map(_algorithm, nodes, weights, repeat(plan.dtype.itemsize))
        rows.append(
            StepReport(
                nodes[0].name or "model",
                " > ".join(algorithms),
                tuple(chain.from_iterable(map(_names, nodes)))[1:],
                nodes[-1].y.shape,
                macs,
                traffic,
                spent,
                spent / total,
                floor / spent,
            )
        )
    print(_table(plan, rows, whole, peak, bandwidth))
    return rows


def _measure(plan: Plan) -> tuple[Array, float]:
    """The least seconds of every step, and of a whole call."""
    x = np.random.default_rng(0).standard_normal(plan.input_shape).astype(plan.dtype)
    best, whole = np.full(len(plan.nodes), np.inf), np.inf
    seconds = np.zeros(len(plan.nodes))  # of a chain in its first step
    runs, begin = 0, time.perf_counter()
    while runs < _RUNS or time.perf_counter() - begin < _SECONDS:
        start = time.perf_counter()
        plan._run(x, seconds)
        whole = min(whole, time.perf_counter() - start)
        best = np.minimum(best, seconds)
        runs += 1
    return best, whole


def _lines(nodes: list[Node]) -> Iterator[tuple[int, int]]:
    """First and end of the steps of each line: one, or a chain."""
    position = 0
    while position < len(nodes):
        end = position + max(1, nodes[position].chain)
        yield position, end
        position = end


def _names(node: Node) -> list[str]:
    return [node.name, *node.fused]


def _bytes(nodes: list[Node], weights: list[Weights], itemsize: int) -> int:
    """What steps have to move at least: the operands of the first and the last and all weights."""
    values = [nodes[0].x, nodes[-1].y, *(node.other for node in nodes if node.other is not None)]
    elements = sum(math.prod(value.spread) for value in values)
    return elements * itemsize + sum(own.read_bytes for own in weights)


def _algorithm(node: Node, weights: Any, itemsize: int) -> str:
    if node.kind == "layer":
        return type(node.layer).__name__
    if node.kind != "conv":
        return node.kind
    if weights.shared is not None:
        return "linear"
    if weights.half is not None:
        return "linear f16"
    shapes = node.x.spread, weights.shape, node.y.spread
    return str(_core.conv2d_explain(itemsize, *shapes, node.geometry)[0])


def _measured_peak(dtype: np.dtype[Any]) -> float:
    """Operations a second of a direct 3x3 convolution of 64 channels."""
    from ..functional import conv2d

    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 56, 56, 64)).astype(dtype).transpose(0, 3, 1, 2)
    weight = rng.standard_normal((64, 64, 3, 3)).astype(dtype)
    operations = float(2 * 54 * 54 * 64 * weight[0].size)
    return operations / _least(lambda: conv2d(x, weight, algorithm="direct"))


def _measured_bandwidth(dtype: np.dtype[Any]) -> float:
    """Bytes a second, read and written, of a copy of 64 MiB."""
    x = np.ones((1, 64, 512, 2**19 // 512 * 4 // dtype.itemsize), dtype).transpose(0, 3, 1, 2)
    y = np.empty_like(x)
    return 2 * x.nbytes / _least(lambda: _core.copy(x, y))


def _least(call: Any) -> float:
    best, runs, begin = np.inf, 0, time.perf_counter()
    while runs < _RUNS or time.perf_counter() - begin < _SECONDS:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return float(best)


def _table(plan: Plan, rows: list[StepReport], whole: float, peak: float, bandwidth: float) -> str:
    head = ("step", "algorithm", "output", "MMACs", "KiB", "ms", "share", "roofline")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [_line(row, widths) for row in cells]
    rule = "-" * len(max(lines, key=len))
    macs, spent = sum(row.macs for row in rows), sum(row.seconds for row in rows)
    totals = [
        f"all steps  {spent * 1e3:.3f} ms, {2e-9 * macs / spent:.1f} GFLOP/s; "
        f"a call {whole * 1e3:.3f} ms",
        f"memory     {plan.weight_bytes / 2**20:.2f} MiB weights, "
        f"{plan.arena_bytes / 2**20:.2f} MiB activations",
        f"roofline   {peak / 1e9:.1f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s",
    ]
    return "\n".join([lines[0], rule, *lines[1:], rule, *totals])


def _cells(row: StepReport) -> tuple[str, ...]:
    size = f"{row.macs / 1e6:.3f}" if row.macs else ""
    return (
        "+".join([row.name, *(name.rpartition(".")[2] for name in row.fused)]),
        row.algorithm,
        "x".join(map(str, row.output_shape)),
        size,
        f"{row.bytes / 1024:.1f}",
        f"{row.seconds * 1e3:.4f}",
        f"{row.share:.1%}",
        f"{row.roofline:.2f}",
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    pairs = list(zip(cells, widths, strict=True))
    text = [cell.ljust(width) for cell, width in pairs[:3]]
    text += [cell.rjust(width) for cell, width in pairs[3:]]
    return "  ".join(text).rstrip()
