"""Spatial sizes: per-axis tuples, output sizes, and attributes that stay checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._messages import shown
from ..functional._checks import explicit_padding, per_axis

Size = int | tuple[int, ...]
Padding = int | tuple[int, ...] | tuple[tuple[int, int], ...] | str
Pair = tuple[int, int]


class PerAxis:
    """An attribute of a layer that is a tuple of one int per axis, whatever is assigned to it.

    count: how many ints, where it is not one per axis.
    """

    def __init__(self, minimum: int = 1, count: int | None = None) -> None:
        self.minimum, self.count = minimum, count

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:  # reading finds the value in the layer's __dict__

        def __get__(self, layer: Any, owner: type | None = None) -> tuple[int, ...]: ...

    def __set__(self, layer: Any, value: Size) -> None:
        who = type(layer).__name__
        count = layer.axes if self.count is None else self.count
        layer.__dict__[self.name] = per_axis(who, self.name, value, count, self.minimum)


class PaddingSpec:
    """The attribute `padding` of a layer, checked by `padding_spec` when it is assigned."""

    if TYPE_CHECKING:

        def __get__(self, layer: Any, owner: type | None = None) -> Padding: ...

    def __set__(self, layer: Any, value: Padding) -> None:
        who = type(layer).__name__
        layer.__dict__["padding"] = padding_spec(who, value, layer.axes, layer.padding_names)


def padding_spec(who: str, value: Padding, axes: int, names: tuple[str, ...]) -> Padding:
    """Check a padding argument; ints become per-axis tuples, strings and pairs stay."""
    if isinstance(value, str):
        if value not in names:
            raise ValueError(f"{who}: padding must be sizes or one of {names}, got {shown(value)}")
        return value
    if isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value):
        return explicit_padding(who, value, axes)
    return per_axis(who, "padding", value, axes, 0)


def pad_pairs(
    padding: Padding,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> list[Pair]:
    """(before, after) per axis of a padding argument, for inputs of spatial `sizes`."""
    spans = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    if padding == "valid":
        return [(0, 0)] * len(spans)
    if padding == "full":
        return [(span, span) for span in spans]
    if padding == "causal":
        return [(span, 0) for span in spans]
    if isinstance(padding, str):  # same, same_lower
        pairs = []
        for size, span, step in zip(sizes, spans, stride, strict=True):
            total = max((-(-size // step) - 1) * step + span + 1 - size, 0)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if padding == "same" else (large, small))
        return pairs
    entries: Any = padding if isinstance(padding, tuple) else (padding,) * len(spans)
    return [entry if isinstance(entry, tuple) else (entry, entry) for entry in entries]


def window_shape(
    sizes: tuple[int, ...],
    padding: Padding,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """Output sizes of a convolution or pooling: (in + pads - extent) / stride + 1, rounded."""
    result = []
    pairs = pad_pairs(padding, sizes, kernel, stride, dilation)
    for size, (before, after), k, step, d in zip(
        sizes, pairs, kernel, stride, dilation, strict=True
    ):
        room = size + before + after - (k - 1) * d - 1
        out = (-(-room // step) if ceil_mode else room // step) + 1
        if ceil_mode and (out - 1) * step >= size + before:
            out -= 1
        result.append(out)
    return tuple(result)
