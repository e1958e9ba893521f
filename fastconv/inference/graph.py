"""A model as a flat list of steps. Fusion happens here, while the list grows.

A value is what flows between two layers. In memory it is dense and channels-last, `spread` (N, C,
H, W); a 1-D signal has H = 1, and a flattened image keeps the spread of the image. A step may be
fused into the one that made its input as long as nothing else reads that input: in a tree of
`Sequential` and `Residual` a value has one reader, except the input of a `Residual`, which is
`pinned` while its branches are walked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from ..nn.module import Module

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Spread = tuple[int, int, int, int]
Geometry = tuple[int, int, int, int, int, int, int, int]

ONE_BY_ONE: Geometry = (1, 1, 1, 1, 0, 0, 1, 0)
LARGE = 2**24  # entries of a weight that is not copied more than it must be
LIMIT = 2**43  # elements of one value: sizes in bytes stay far below 2**63


@dataclass(eq=False)
class Buffer:
    """Memory that one value fills, or several one after the other in place."""

    elements: int
    place: int = _core.IN_ARENA
    first: int = 0  # positions of the first step that writes it and of the last that reads it
    last: int = 0
    offset: int = 0  # bytes, in the arena


@dataclass(eq=False)
class Value:
    shape: Shape  # as the layers see it
    spread: Spread
    buffer: Buffer
    maker: Node | None = None
    pins: int = 0

    @property
    def is_flat_image(self) -> bool:
        """Whether the order of the features in memory is not that of the shape."""
        return len(self.shape) == 2 and self.spread != plain_spread(self.shape)


@dataclass(eq=False)
class Node:
    """One step. Which fields are used depends on the kind, as in `fc_step`."""

    kind: str  # conv, max_pool, avg_pool, map, add, copy, layer
    name: str
    x: Value
    y: Value
    other: Value | None = None
    fused: list[str] = field(default_factory=list)  # names of the layers that are part of it
    weight: Array | None = None  # (K, C / groups, kH, kW)
    scale: Array | None = None  # float64, by output channel, still to be folded into the weight
    bias: Array | None = None  # float64
    geometry: Geometry = ONE_BY_ONE
    linear: bool = False  # of a Linear layer
    lower: float = -math.inf
    upper: float = math.inf
    axes: tuple[int, ...] = ()
    include_pad: bool = False
    divisor: int = 0
    function: int = 0
    alpha: float = 0.0
    channels: tuple[int, int] | None = None  # of y that are written; None: all
    layer: Module | None = None
    macs: int = 0
    chain: int = 0  # steps, this one and those after it, that run depth first, see chains.py

    @property
    def is_clamped(self) -> bool:
        return (self.lower, self.upper) != (-math.inf, math.inf)


def plain_spread(shape: Shape) -> Spread:
    """(N, C, H, W) of an array of any rank: rank 3 is (N, C, L), others than 3 and 4 are rows."""
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    if len(shape) == 3:
        return shape[0], shape[1], 1, shape[2]
    if len(shape) < 2:
        return 1, math.prod(shape), 1, 1
    return shape[0], math.prod(shape[1:]), 1, 1


class Graph:
    """The steps so far. Each method appends one, or fuses it into an earlier one."""

    def __init__(self, input_shape: Shape) -> None:
        self.nodes: list[Node] = []
        spread = plain_spread(input_shape)
        self.input = Value(input_shape, spread, Buffer(math.prod(spread), _core.IN_INPUT))

    def _value(self, shape: Shape, spread: Spread | None = None) -> Value:
        spread = plain_spread(shape) if spread is None else spread
        elements = math.prod(spread)
        if elements > LIMIT:
            raise MemoryError(f"compile: an activation of shape {shape} has {elements} elements")
        return Value(shape, spread, Buffer(elements))

    def _append(self, node: Node) -> Value:
        self.nodes.append(node)
        node.y.maker = node
        return node.y

    # --- steps -------------------------------------------------------------------------------

    def conv(
        self,
        name: str,
        x: Value,
        shape: Shape,
        weight: Array,
        bias: Array | None,
        geometry: Geometry,
        macs: int,
    ) -> Value:
        node = Node("conv", name, x, self._value(shape), weight=weight, geometry=geometry)
        node.bias = None if bias is None else bias.astype(np.float64)
        node.macs = macs
        return self._append(node)

    def affine(self, name: str, x: Value, scale: Array, shift: Array) -> Value:
        """y = x * scale[c] + shift[c], float64: into the weights of x's convolution, or as one."""
        node = _maker(x, "conv")
        if node is None or node.is_clamped or node.other is not None:
            x = self.in_order(name, x)
            weight = np.ones((len(scale), 1, 1, 1))
            geometry = (*ONE_BY_ONE[:6], len(scale), 0)
            x = self.conv(name, x, x.shape, weight, None, geometry, 0)
            node = self.nodes[-1]
        else:
            node.fused.append(name)
        node.scale = scale if node.scale is None else node.scale * scale
        node.bias = shift if node.bias is None else node.bias * scale + shift
        return x

    def clamp(self, name: str, x: Value, lower: float, upper: float) -> Value:
        """ReLU and ReLU6."""
        node = _maker(x, "conv", "add")
        if node is None:
            code = _core.RELU if upper == math.inf else _core.RELU6
            return self.map(name, x, code, 0.0)
        node.lower = min(max(node.lower, lower), upper)
        node.upper = max(min(node.upper, upper), lower)
        node.fused.append(name)
        return x

    def map(self, name: str, x: Value, function: int, alpha: float) -> Value:
        """Element by element, in place where x has no other reader."""
        x = self.in_arena(name, x)
        y = self._value(x.shape, x.spread)
        if not x.pins:
            y.buffer = x.buffer
        return self._append(Node("map", name, x, y, function=function, alpha=alpha))

    def pool(
        self,
        name: str,
        x: Value,
        shape: Shape,
        kind: str,
        axes: tuple[int, ...],
        include_pad: bool = False,
        divisor: int = 0,
    ) -> Value:
        node = Node(kind, name, x, self._value(shape), axes=axes)
        node.include_pad, node.divisor = include_pad, divisor
        return self._append(node)

    def subsample_and_pad(self, name: str, x: Value, shape: Shape, stride: int) -> Value:
        """Every stride-th pixel, then channels of zeros: a pool with 1x1 windows, and a copy."""
        y = self._value(shape)
        window = (1, stride, 1, 0, 0)
        node = Node("max_pool", name, x, y, axes=(*window, *window), channels=(0, x.shape[1]))
        self._append(node)
        if shape[1] > x.shape[1]:
            n, _, h, w = y.spread
            zeros = Buffer(1, _core.IN_CONSTANT)
            nothing = Value((), (n, shape[1] - x.shape[1], h, w), zeros)
            self._append(Node("copy", name, nothing, y, channels=(x.shape[1], shape[1])))
        y.maker = None
        return y

    def add(self, name: str, x: Value, other: Value) -> Value:
        """x + other: into the convolution that made x, which comes after the one of other."""
        node = _maker(x, "conv")
        if x.spread != other.spread:  # a flattened image and a vector
            x, other = self.in_order(name, x), self.in_order(name, other)
            node = None
        other = self.in_arena(name, other)
        made_before = other.maker is None or node is None or self._before(other.maker, node)
        if node is not None and node.other is None and not node.is_clamped and made_before:
            node.other = other
            node.fused.append(f"{name}.sum" if name else "sum")
            return x
        x = self.in_arena(name, x)
        return self._append(Node("add", name, x, self._value(x.shape, x.spread), other))

    def _before(self, node: Node, later: Node) -> bool:
        return self.nodes.index(node) < self.nodes.index(later)

    def layer(self, name: str, x: Value, module: Module) -> Value:
        """A layer of another kind: its own forward."""
        shape = tuple(module.output_shape(x.shape))
        return self._append(Node("layer", name, x, self._value(shape), layer=module))

    # --- memory ------------------------------------------------------------------------------

    def flatten(self, x: Value, shape: Shape) -> Value:
        """A view: the features stay in the order of the image in memory."""
        spread = x.spread
        if x.buffer.place == _core.IN_ARENA and (spread[1] == 1 or spread[2] * spread[3] == 1):
            spread = plain_spread(shape)
        return Value(shape, spread, x.buffer, pins=x.pins)

    def in_arena(self, name: str, x: Value) -> Value:
        """x, or a copy of the caller's array, which may lie in memory in any way."""
        if x.buffer.place == _core.IN_ARENA:
            return x
        if x.is_flat_image:
            return self.in_order(name, x)
        return self._append(Node("copy", name, x, self._value(x.shape, x.spread)))

    def in_order(self, name: str, x: Value) -> Value:
        """x with the features in memory in the order of its shape."""
        if not x.is_flat_image:
            return x
        y = self._value(x.shape, plain_spread(x.shape))
        return self._append(Node("copy", name, x, y))


def _maker(x: Value, *kinds: str) -> Node | None:
    """The step that made x, if it is of one of these kinds and something may be fused into it."""
    return x.maker if x.maker is not None and x.maker.kind in kinds and not x.pins else None
