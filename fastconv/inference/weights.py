"""The weights of a plan's steps: folded, cast, and laid out as the kernels read them."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..nn.module import Module
from .arena import Pages
from .graph import LARGE, ONE_BY_ONE, Array, Node, Shape, Spread, Value

FEW_ROWS = 4
HALF_PANEL = 32  # outputs that lie side by side in a HalfWeight


class HalfWeight(NamedTuple):
    """A matrix (K, C) in float16, each row times a power of two; float32 `scale` takes it back."""

    packed: Array  # uint16 (ceil(K / 32), C, 32)
    scale: Array  # (K,)


class Weights:
    """The weights of one step, folded and prepared; nothing for steps without."""

    def __init__(self, node: Node, dtype: np.dtype[Any], pages: Pages, half_linear: bool) -> None:
        self.node, self.dtype, self._pages = node, dtype, pages
        self.bias = None if node.bias is None else node.bias.astype(dtype)
        self.shared: Array | None = None  # with the model, unless it had to be folded
        self.half: HalfWeight | None = None
        self.raw: Array | None = None
        self.prepared: Array | None = None
        if node.weight is None:
            return
        given = weight = node.weight
        node.weight = None
        if node.scale is not None:
            weight = weight * node.scale[:, np.newaxis, np.newaxis, np.newaxis]
        weight = np.ascontiguousarray(weight, dtype)
        self.shape = weight.shape
        if self._is_few_rows():
            half = half_linear and node.linear
            self.half = half_weight(weight[:, :, 0, 0], pages) if half else None
            if self.half is None and weight.size >= LARGE:
                self.shared = weight
            if self.half is not None or self.shared is not None:
                return
        if has_one_layout(node.x) and has_one_layout(node.y):
            spreads = node.x.spread, node.y.spread
            operands = [(_core.IN_ARENA, 0, spread, strides(spread, True)) for spread in spreads]
            self.prepared = self._prepare(weight, *operands)
        if self.prepared is None:  # a copy: the model's own arrays may change
            self.raw = weight.copy() if np.may_share_memory(weight, given) else weight

    def _is_few_rows(self) -> bool:
        """Whether the step is a matrix times so few rows that reading the matrix takes the time."""
        x, y = self.node.x, self.node.y
        pixels = x.spread[2] * x.spread[3] * y.spread[2] * y.spread[3]
        pointwise = self.node.geometry == ONE_BY_ONE and pixels == 1 and self.node.other is None
        return pointwise and x.spread[0] <= FEW_ROWS

    @property
    def nbytes(self) -> int:
        arrays = (self.shared, *(self.half or ()), self.raw, self.prepared, self.bias)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def read_bytes(self) -> int:
        """What a call reads of them."""
        raw = self.raw if self.prepared is None else None
        arrays = (self.shared, *(self.half or ()), raw, self.prepared, self.bias)
        return sum(array.nbytes for array in arrays if array is not None)

    def _prepare(self, weight: Array, x: Any, y: Any) -> Array | None:
        geometry = self.node.geometry
        size = _core.prepared_bytes(self.dtype.itemsize, x, weight, y, geometry)
        if size == 0:
            return None
        prepared = self._pages.take(size)
        try:
            _core.prepare(self.dtype.itemsize, x, weight, y, geometry, prepared)
        except ValueError:  # NaN or infinity in the weight: the call needs the weight itself
            self._pages.give_back(prepared)
            return None
        return prepared

    def for_operands(self, x: Any, y: Any) -> tuple[Shape, Array | None, Array | None]:
        """Shape, weight, and prepared weight for these layouts of x and y.

        One of the two is None.
        """
        prepared = self.prepared
        if prepared is None and self.raw is not None:
            prepared = self._prepare(self.raw, x, y)
        return self.shape, self.raw if prepared is None else None, prepared


def half_weight(weight: Array, pages: Pages) -> HalfWeight | None:
    """`weight` (K, C) as float16, its rows scaled to at most 1; None if not all is finite."""
    outputs, inputs = weight.shape
    largest = np.maximum(weight.max(1), -weight.min(1))
    if not np.isfinite(largest).all():
        return None
    scale = np.ldexp(np.float32(1), np.clip(np.frexp(largest)[1], -126, 127))
    panels = -(-outputs // HALF_PANEL)
    packed = pages.take(panels * inputs * HALF_PANEL * 2).view(np.float16)
    packed = packed.reshape(panels, inputs, HALF_PANEL)
    packed[-1] = 0
    with np.errstate(under="ignore"):
        for panel, k in zip(packed, range(0, outputs, HALF_PANEL), strict=True):
            rows = slice(k, k + HALF_PANEL)
            panel.T[: outputs - k] = weight[rows] / scale[rows, np.newaxis]
    return HalfWeight(packed.view(np.uint16), scale)


def has_one_layout(value: Value) -> bool:
    """Whether it lies in memory the same way for every memory format of the caller's arrays."""
    return value.buffer.place == _core.IN_ARENA or value.spread[2:] == (1, 1)


def strides(spread: Spread, channels_last: bool) -> Spread:
    """Strides in elements of a dense array (N, C, H, W)."""
    _, c, h, w = spread
    return (c * h * w, 1, c * w, c) if channels_last else (c * h * w, h * w, w, 1)


def frozen(layer: Module, dtype: np.dtype[Any]) -> Module:
    """A copy of a layer in eval mode, its floats cast to dtype."""
    twin = copy.deepcopy(layer).eval()
    for module in twin.modules():
        for key in module._buffers:
            value = getattr(module, key)
            if value is not None and value.dtype.kind == "f":
                setattr(module, key, value.astype(dtype))
    for parameter in twin.parameters():
        parameter.data, parameter.grad = parameter.data.astype(dtype), None
    return twin
