"""Spatial sizes: per-axis tuples, output sizes, and how constructor arguments are printed.

Wrong values are refused by `fastconv.functional`, in the sentence of the function called; these
helpers only need the right ones.
"""

from typing import Any

Size = int | tuple[int, ...]
Padding = int | tuple[int, ...] | tuple[tuple[int, int], ...] | str
Pair = tuple[int, int]


def per_axis(who: str, name: str, value: Size, axes: int, least: int = 1) -> tuple[int, ...]:
    """`value` as one int per axis.

    Raises
    ------
    TypeError
        An entry is not an int.
    ValueError
        The tuple has another length, or an entry is below `least`.
    """
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if any(isinstance(size, bool) or not hasattr(size, "__index__") for size in sizes):
        raise TypeError(f"{who}: {name} must be an int or a tuple of ints, got {value!r}")
    if len(sizes) != axes:
        raise ValueError(f"{who}: {name} must have {axes} entries, got {value!r}")
    if min(sizes) < least:
        raise ValueError(f"{who}: {name} must be at least {least}, got {value!r}")
    return tuple(int(size) for size in sizes)


def count(who: str, name: str, value: int, least: int = 1) -> int:
    """`value` as an int that is at least `least`."""
    return per_axis(who, name, value, 1, least)[0]


def padding_spec(who: str, value: Padding, axes: int, names: tuple[str, ...]) -> Padding:
    """Check a padding argument; ints become per-axis tuples, strings and pairs stay."""
    if isinstance(value, str):
        if value not in names:
            raise ValueError(f"{who}: padding must be sizes or one of {names}, got {value!r}")
        return value
    if isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value):
        if len(value) != axes or any(not isinstance(v, (tuple, list)) for v in value):
            raise ValueError(f"{who}: padding must have {axes} (before, after) pairs: {value!r}")
        return tuple(
            (before, after) for before, after in (per_axis(who, "padding", v, 2, 0) for v in value)
        )
    return per_axis(who, "padding", value, axes, 0)  # type: ignore[arg-type]


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
