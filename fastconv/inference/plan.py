"""`compile` and `Plan`: steps with their weights, on one arena."""

from __future__ import annotations

import math
import time
from collections import deque
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._messages import shown, typed
from ..functional import _checks as check
from ..functional._arrays import shape as shape_argument
from ..functional._checks import flag, float_dtype
from ..nn.module import Module, unfit
from .arena import Pages, aligned, place
from .chains import link
from .graph import LARGE, Array, Buffer, Graph, Node, Shape, Spread, Value
from .report import StepReport, report
from .rules import walk
from .weights import Weights, frozen, strides

KEPT_ARENAS = 8  # of a plan, while nobody runs it: the ninth thread at once allocates its own


def compile(
    model: Module,
    input_shape: tuple[int, ...],
    *,
    dtype: npt.DTypeLike | None = None,
    release: bool = False,
    depth_first: bool = True,
    half_linear: bool = False,
) -> Plan:
    """Prepare `model` for inference on arrays of one shape.

    The plan computes what `model.eval()(x)` does, up to rounding, with batch norms folded into
    convolutions, activations and residual sums made part of them, weights transformed once, and
    every activation in one block of memory. Layers that are not of `fastconv.nn` or
    `fastconv.models` run their own forward. NaN and infinities in an input reach what they reach
    in the model, and in layers that run by Winograd's method the rest of their tiles too.

    The plan has copies of the weights, so that later changes of the model do not show, with one
    exception: a weight of 2**24 entries or more that meets at most 4 rows, and needs no cast, is
    read where it is, in the model's own memory. The model may be deleted.

    Parameters
    ----------
    model : Module
        Its training mode does not matter and is not changed.
    input_shape : tuple of int
        Shape of the arrays to come, the batch axis included: `(1, 3, 224, 224)`.
    dtype : float32 or float64, optional
        Of input and output; the weights are cast to it. Default: that of the model's parameters
        (`model.double()`: float64), float32 where it has none.
    release : bool
        Take the parameters away from the model, each as soon as the plan has what it needs of it,
        so that no two copies of all weights exist at any time. The model cannot run any more.
    depth_first : bool
        Let an expansion, its depthwise convolution and the projection after it (MobileNet's blocks)
        run rows by rows, so that what lies between them stays in the cache and needs no memory of
        the plan. The results are the same to the bit; False is for comparisons.
    half_linear : bool
        Keep the weights of Linear layers on at most 4 rows, `(N, features)`, as float16, but where
        the sum of a `Residual` is part of the step: such a layer takes as long as its weights take
        to come from memory, half of which take half as long. A weight changes by at most 2**-11 of
        itself or 2**-24 of the largest for its output; sums are float32, of weights scaled to at
        most 1 for each output, so that inputs near the largest float may overflow. Weights with NaN
        or infinities stay float32. While the plan is made a weight and its float16 copy exist side
        by side.

    Returns
    -------
    Plan
        Called with an array, it returns the model's output.

    Raises
    ------
    TypeError
        `model` is not a Module, or a flag not a bool; `dtype` is another.
    ValueError
        The shape does not fit the model, or has an axis of size 0; `half_linear` with float64; no
        `dtype` for a model with parameters of both.
    MemoryError
        An activation is too large to exist.
    """
    if not isinstance(model, Module):
        raise TypeError(f"compile: model must be a Module, got {typed(model)}")
    shape = shape_argument("compile", "input_shape", input_shape)
    if 0 in shape:
        raise ValueError(f"compile: input_shape must have no axis of size 0, got {shown(shape)}")
    flags = flag("compile", "release", release), flag("compile", "depth_first", depth_first)
    half = flag("compile", "half_linear", half_linear)
    given = _dtype_of(model) if dtype is None else float_dtype("compile", dtype)
    if half and given != np.float32:
        raise ValueError(
            f"compile: half_linear rounds float32 weights, got dtype {given}; use dtype=np.float32"
        )
    return Plan(model, shape, given, *flags, half)


def _dtype_of(model: Module) -> np.dtype[Any]:
    """The one dtype of all parameters."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise ValueError(
            "compile: model has float32 and float64 parameters; give the plan a dtype, as "
            "dtype=np.float32, or cast the model by model.float() or model.double()"
        )
    return dtypes.pop() if dtypes else np.dtype(np.float32)


class Plan:
    """A model ready to run on inputs of one shape: `plan(x)`. Made by `fastconv.compile`.

    Any number of threads may call one plan; each call takes one of the plan's arenas.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
    dtype : numpy.dtype
    arena_bytes : int
        Memory of all activations of one call.
    weight_bytes : int
        Memory of the weights as the kernels read them.
    """

    def __init__(
        self,
        model: Module,
        input_shape: Shape,
        dtype: np.dtype[Any],
        release: bool,
        depth_first: bool,
        half_linear: bool,
    ) -> None:
        graph = Graph(input_shape)
        try:
            result = walk(graph, "", model, graph.input)
        except ValueError as error:
            raise unfit("compile", input_shape, "batch axis included", error) from error.__cause__
        self.input_shape, self.output_shape, self.dtype = input_shape, result.shape, dtype
        self._input, self._output = graph.input.spread, _finish(graph, result)
        self.nodes = graph.nodes
        self._isa = _core.isa()
        for node in graph.nodes:
            node.layer = None if node.layer is None else frozen(node.layer, dtype)
        for parameter in model.parameters() if release else ():
            empty = (0,) * max(parameter.ndim, 1)
            parameter.data, parameter.grad = np.empty(empty, parameter.dtype), None
        # prepared weights have whole vectors of outputs: an eighth more at most, mostly; those in
        # float16 have half of the bytes, and where they are large, blocks of their own
        weights = [node.weight.size for node in graph.nodes if node.weight is not None]
        given = sum(size for size in weights if size < LARGE)  # larger ones are read where they are
        pages = Pages(given * dtype.itemsize * 9 // 8)
        # drops those of the nodes
        self._weights = [Weights(node, dtype, pages, half_linear) for node in graph.nodes]
        if depth_first:
            link(graph.nodes, self._weights, dtype.itemsize)
        self.arena_bytes = place(_lifetimes(graph.nodes), dtype.itemsize)
        self._segments = _segments(graph.nodes)
        self._steps: dict[tuple[bool, bool], Any] = {}
        self._lock = Lock()
        self._arenas: deque[Array] = deque(maxlen=KEPT_ARENAS)

    @property
    def weight_bytes(self) -> int:
        return sum(weights.nbytes for weights in self._weights)

    def __call__(self, x: Array) -> Array:
        """Return the model's output for `x`, which may lie in memory in any way.

        The output is a new array in the memory format of `x`.

        Raises
        ------
        TypeError
            `x` is not an array of the plan's dtype.
        ValueError
            `x` has another shape than the plan was compiled for.
        """
        return self._run(x, None)

    def _run(self, x: Array, seconds: Array | None) -> Array:
        x = self._checked(x)
        last = x.ndim in (3, 4) and check.is_channels_last(x)
        rows = np.moveaxis(x, 1, -1) if last else x
        if not rows.flags.c_contiguous:
            rows = np.ascontiguousarray(rows)
            x = np.moveaxis(rows, -1, 1) if last else rows
        y_last = last and len(self.output_shape) in (3, 4)
        y = check.empty("plan", self.output_shape, self.dtype, y_last)
        steps = self._steps.get((last, y_last)) or self._build(last, y_last)
        try:
            arena = self._arenas.pop()
        except IndexError:
            arena = aligned(self.arena_bytes)
        try:
            self._run_segments(steps, x, y, arena, seconds)
        finally:
            self._arenas.append(arena)
        return y

    def _checked(self, given: Any) -> Array:
        x = check.float_array("plan", "x", given)
        if x.dtype != self.dtype:
            raise TypeError(
                f"plan: x is {x.dtype} but the plan was compiled for {self.dtype}; "
                f"use x.astype(numpy.{self.dtype})"
            )
        if x.shape != self.input_shape:
            raise ValueError(
                f"plan: x must have the shape the plan was compiled for, {self.input_shape}, "
                f"got {x.shape}"
            )
        if self._isa != _core.isa():
            raise RuntimeError(
                f"plan: compiled for instruction set {self._isa!r}, now {_core.isa()!r} is in use; "
                "compile it again"
            )
        return x

    def _run_segments(
        self, steps: Any, x: Array, y: Array, arena: Array, seconds: Array | None
    ) -> None:
        x_rows = x if x.ndim in (2, 3, 4) else x.reshape(self._input)
        y_rows = y if y.ndim == len(self._output) or y.ndim == 3 else y.reshape(self._output)
        for first, end in self._segments:
            layer = self.nodes[first].layer
            if layer is None:
                steps.run(x_rows, y_rows, arena, first, end, seconds)
                continue
            start = time.perf_counter()
            self._run_layer(self.nodes[first], layer, x, arena)
            if seconds is not None:
                seconds[first] = time.perf_counter() - start

    def _run_layer(self, node: Node, layer: Module, x: Array, arena: Array) -> None:
        """A layer's own forward; it may write over its input, but not over the caller's."""
        source = x.copy() if node.x.buffer.place == _core.IN_INPUT else self._view(node.x, arena)
        result = layer.forward(source)
        self._view(node.y, arena)[...] = result

    def _view(self, value: Value, arena: Array) -> Array:
        """The value in the arena as an array of its shape."""
        n, c, h, w = value.spread
        size = math.prod(value.spread) * self.dtype.itemsize
        dense = arena[value.buffer.offset : value.buffer.offset + size].view(self.dtype)
        image: Array = dense.reshape(n, h, w, c).transpose(0, 3, 1, 2)
        return image.reshape(value.shape)

    # --- building ----------------------------------------------------------------------------

    def _build(self, last: bool, y_last: bool) -> Any:
        """The steps for one memory format of input and output, made at the first call with it."""
        with self._lock:
            if (last, y_last) not in self._steps:
                self._steps[last, y_last] = self._built(last, y_last)
        return self._steps[last, y_last]

    def _built(self, last: bool, y_last: bool) -> Any:
        steps = _core.Steps(self.dtype.itemsize)
        formats = {_core.IN_INPUT: last, _core.IN_OUTPUT: y_last}
        for node, weights in zip(self.nodes, self._weights, strict=True):
            x = self._operand(node.x, formats, None)
            y = self._operand(node.y, formats, node.channels)
            other = None if node.other is None else self._operand(node.other, formats, None)
            if weights.shared is not None:
                clamp = node.lower, node.upper
                steps.linear(x, y, weights.shared, weights.bias, *clamp)
            elif weights.half is not None:
                clamp = node.lower, node.upper
                steps.linear_f16(x, y, weights.shape, *weights.half, weights.bias, *clamp)
            elif node.kind == "conv":
                shape, weight, prepared = weights.for_operands(x, y)
                clamp = node.lower, node.upper
                steps.conv(
                    x,
                    y,
                    other,
                    shape,
                    weight,
                    prepared,
                    weights.bias,
                    node.geometry,
                    *clamp,
                    node.chain > 0,
                )
            elif node.kind in ("max_pool", "avg_pool"):
                mean = node.kind == "avg_pool"
                steps.pool(x, y, mean, node.axes, node.include_pad, node.divisor)
            elif node.kind == "map":
                steps.map(x, y, node.function, node.alpha)
            elif node.kind == "add":
                steps.add(x, y, other, node.lower, node.upper)
            elif node.x.is_flat_image:
                steps.copy(x, (*y[:2], node.x.spread, strides(node.x.spread, False)))
            else:  # for a layer it only keeps the positions
                steps.copy(x, y)
        return steps

    def _operand(
        self, value: Value, formats: dict[int, bool], channels: tuple[int, int] | None
    ) -> tuple[Any, ...]:
        """(place, offset, shape, strides) of a value, or of some channels of it."""
        buffer, (n, c, h, w) = value.buffer, value.spread
        if buffer.place == _core.IN_CONSTANT:
            return buffer.place, np.zeros(1, self.dtype), value.spread, (0, 0, 0, 0)
        ours = buffer.place in (_core.IN_ARENA, _core.NOWHERE)
        last = ours or (formats[buffer.place] and not value.is_flat_image)
        steps = strides(value.spread, last)
        offset = buffer.offset
        if channels is not None:
            offset += channels[0] * self.dtype.itemsize
            c = channels[1] - channels[0]
        return buffer.place, offset, (n, c, h, w), steps

    # --- printing ----------------------------------------------------------------------------

    def explain(
        self, *, peak_gflops: float | None = None, bandwidth_gbs: float | None = None
    ) -> list[StepReport]:
        """Run the plan some times, print a table of its steps, and return the rows.

        The roofline time of a step is the larger of its operations (two per multiply-add, those of
        the definition, so that Winograd may exceed 1) over the peak and its bytes over the
        bandwidth; the last column is that time over the measured one. Layers that run depth first
        are one line; what lies between them is not among its bytes.

        Parameters
        ----------
        peak_gflops : float, optional
            Default: what a direct 3x3 convolution of 64 channels reaches here and now.
        bandwidth_gbs : float, optional
            Default: what a copy of 64 MiB reaches.
        """
        return report(self, peak_gflops, bandwidth_gbs)

    def __repr__(self) -> str:
        return (
            f"Plan(input {self.input_shape} {self.dtype}, output {self.output_shape}, "
            f"{len(self.nodes)} steps, {self.weight_bytes} bytes of weights, "
            f"{self.arena_bytes} bytes of activations)"
        )


def _finish(graph: Graph, result: Value) -> Spread:
    """Let the last step write the caller's output; a copy where it cannot. Returns the spread."""
    node = result.maker
    writes_any_layout = node is not None and node.kind in ("conv", "max_pool", "avg_pool")
    if writes_any_layout and result.buffer.place == _core.IN_ARENA:
        result.buffer = Buffer(result.buffer.elements, _core.IN_OUTPUT)
    else:
        y = Value(result.shape, result.spread, Buffer(0, _core.IN_OUTPUT))
        graph.nodes.append(Node("copy", "output", result, y))
    return result.spread


def _lifetimes(nodes: list[Node]) -> list[Buffer]:
    """Set first and last of every buffer of the arena, and return them."""
    found: dict[int, Buffer] = {}
    begin = end = 0
    for position, node in enumerate(nodes):
        if position >= end:
            begin, end = position, position + max(1, node.chain)
        for value in (node.x, node.y, node.other):
            if value is None or value.buffer.place != _core.IN_ARENA:
                continue
            buffer = value.buffer
            if id(buffer) not in found:
                found[id(buffer)] = buffer
                buffer.first = begin
            buffer.last = end - 1
    return list(found.values())


def _segments(nodes: list[Node]) -> list[tuple[int, int]]:
    """Runs of steps for one call of C each; a layer's own forward is a run of its own."""
    segments: list[tuple[int, int]] = []
    for position, node in enumerate(nodes):
        extends = segments and node.layer is None and nodes[segments[-1][0]].layer is None
        first = segments.pop()[0] if extends else position
        segments.append((first, position + 1))
    return segments
