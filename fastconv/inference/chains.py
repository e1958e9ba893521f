"""Which convolutions run depth first: expansion, depthwise convolution, projection."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from .. import _core
from .graph import Geometry, Node, Shape, Value
from .weights import Weights

LENGTH = 3


def link(nodes: list[Node], weights: list[Weights], itemsize: int) -> None:
    """Mark the first step of every chain. Values too large for the cache leave the arena."""
    uses = Counter(id(value.buffer) for node in nodes for value in _values(node))
    position = 0
    while position <= len(nodes) - LENGTH:
        steps = nodes[position : position + LENGTH]
        between = [step.y for step in steps[:-1]]
        alone = _is_line(steps) and all(uses[id(value.buffer)] == 2 for value in between)
        fit = alone and all(map(_is_fit, steps, weights[position:]))
        serves = _serves(steps, weights[position:], itemsize) if fit else 0
        if serves == 0:
            position += 1
            continue
        steps[0].chain = LENGTH
        for value in between if serves == 2 else ():
            value.buffer.place = _core.NOWHERE
        position += LENGTH


def _values(node: Node) -> list[Value]:
    return [value for value in (node.x, node.y, node.other) if value is not None]


def _is_fit(step: Node, weights: Weights) -> bool:
    """A convolution whose weight is prepared, or going to be."""
    if step.kind != "conv" or weights.shared is not None or weights.half is not None:
        return False
    return weights.raw is None or bool(np.isfinite(weights.raw).all())


def _is_line(steps: list[Node]) -> bool:
    """Each reads what the one before writes, and nothing else."""
    first, *_, last = steps
    return (
        all(step.other is None for step in steps[:-1])
        and all(a.y is b.x for a, b in pairwise(steps))
        and all(step.y.buffer.place == _core.IN_ARENA for step in steps[:-1])
        and last.y.spread[2] > 1
        and not first.x.is_flat_image
    )


def _serves(steps: list[Node], weights: list[Weights], itemsize: int) -> int:
    shapes: list[tuple[Shape, Shape, Shape, Geometry]] = [
        (step.x.spread, own.shape, step.y.spread, step.geometry)
        for step, own in zip(steps, weights, strict=False)
    ]
    return _core.chain_serves(itemsize, shapes)
