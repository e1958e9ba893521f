"""Convolution and correlation of plain arrays, as in NumPy (1-D) and SciPy (2-D).

    full[t] = sum_k w[k] * x[t - k],   t = 0 .. len(x) + len(w) - 2      (every axis alike)

convolve takes w = v, correlate w = v reversed; a mode is a window `start .. start + count` of
`full`, computed alone (in `_convolution`).
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from fastconv.functional._arrays import choice
from fastconv.functional._checks import Array
from fastconv.functional._convolution import Sizes, window_of_full

MODES = ("full", "same", "valid")
METHODS = ("auto", "direct", "fft")


def convolve(
    a: npt.ArrayLike, v: npt.ArrayLike, mode: str = "full", *, method: str = "auto"
) -> Array:
    """Convolution along the last axis: y[t] = sum_k a[k] * v[t - k], as `numpy.convolve`.

    Parameters
    ----------
    a, v : array_like
        `(..., M)` and `(..., N)`; the axes in front broadcast. float32 and float64 by NumPy's
        rules; integers and booleans are computed and returned as float64.
    mode : {"full", "same", "valid"}
        "full": M + N - 1 entries. "same": the middle max(M, N) of them. "valid": the
        max(M, N) - min(M, N) + 1 entries for which the shorter array lies within the longer one.
    method : {"auto", "direct", "fft"}
        "fft" transforms: its error is relative to the largest entry, and a NaN or infinity
        spreads. "auto" takes it where it is estimated to be faster and all entries are finite. The
        choice depends on the lengths alone, not on their order, nor on the batch.

    Returns
    -------
    ndarray
        `(..., entries)`.

    Raises
    ------
    ValueError
        An empty array, batch axes that do not broadcast, an unknown mode or method.
    TypeError
        Complex numbers, float16, long doubles or anything else that is not a real number.
    MemoryError
        The result is too large to exist.
    """
    x, w = _operands("convolve", ("a", "v"), a, v, mode, method, 1)
    return _convolve("convolve", x, w, mode, method, _middle(x, w, 1, 0))


def correlate(
    a: npt.ArrayLike, v: npt.ArrayLike, mode: str = "full", *, method: str = "auto"
) -> Array:
    """Correlation along the last axis: c[k] = sum_n a[n + k] * v[n], as `numpy.correlate`.

    Parameters
    ----------
    a, v : array_like
        `(..., M)` and `(..., N)`, as in `convolve`.
    mode : {"full", "same", "valid"}
        As in `convolve`; the default of `numpy.correlate` is "valid". "full" starts at k = 1 - N.
    method : {"auto", "direct", "fft"}
        As in `convolve`.

    Returns
    -------
    ndarray
        `(..., entries)`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `convolve`.
    """
    x, w = _operands("correlate", ("a", "v"), a, v, mode, method, 1)
    odd = 1 if w.shape[-1] > x.shape[-1] else 0  # NumPy reverses the operands then
    return _convolve("correlate", x, w[..., ::-1], mode, method, _middle(x, w, 1, odd))


def convolve2d(
    in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str = "full", *, method: str = "auto"
) -> Array:
    """Convolution along the last two axes with zeros around, as `scipy.signal.convolve2d`.

    Parameters
    ----------
    in1, in2 : array_like
        `(..., H, W)` and `(..., P, Q)`; the axes in front broadcast. dtypes as in `convolve`.
    mode : {"full", "same", "valid"}
        "full": `(H + P - 1, W + Q - 1)` entries. "same": the middle `(H, W)` of them. "valid":
        those for which the smaller array lies within the larger one, which must be at least as
        large on both axes.
    method : {"auto", "direct", "fft"}
        As in `convolve`.

    Returns
    -------
    ndarray
        `(..., rows, columns)`.

    Raises
    ------
    ValueError
        As `convolve`; also "valid" when neither array covers the other.
    TypeError, MemoryError
        As `convolve`.
    """
    x, w = _operands("convolve2d", ("in1", "in2"), in1, in2, mode, method, 2)
    return _convolve("convolve2d", x, w, mode, method, _middle(x, w, 2, 0))


def correlate2d(
    in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str = "full", *, method: str = "auto"
) -> Array:
    """Correlation along the last two axes with zeros around, as `scipy.signal.correlate2d`.

    Parameters
    ----------
    in1, in2 : array_like
        `(..., H, W)` and `(..., P, Q)`, as in `convolve2d`.
    mode : {"full", "same", "valid"}
        As in `convolve2d`.
    method : {"auto", "direct", "fft"}
        As in `convolve`.

    Returns
    -------
    ndarray
        `(..., rows, columns)`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `convolve2d`.
    """
    x, w = _operands("correlate2d", ("in1", "in2"), in1, in2, mode, method, 2)
    return _convolve("correlate2d", x, w[..., ::-1, ::-1], mode, method, _middle(x, w, 2, 1))


def _operands(
    function: str,
    names: tuple[str, str],
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    mode: str,
    method: str,
    axes: int,
) -> tuple[Array, Array]:
    """Both arrays in their common dtype, checked."""
    choice(function, "mode", mode, MODES)
    choice(function, "method", method, METHODS)
    arrays = [np.asarray(first), np.asarray(second)]
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or array.dtype.char == "e":
            cure = "; convolve the real and imaginary parts" if array.dtype.kind == "c" else ""
            raise TypeError(
                f"{function}: {name} must hold float32, float64 or integers, "
                f"got {array.dtype}{cure}"
            )
        if array.ndim < axes or 0 in array.shape[-axes:]:
            rule = "at least one entry" if axes == 1 else "at least two axes and one entry"
            raise ValueError(f"{function}: {name} must have {rule}, got shape {array.shape}")
    try:
        if arrays[0].ndim > axes or arrays[1].ndim > axes:
            np.broadcast_shapes(arrays[0].shape[:-axes], arrays[1].shape[:-axes])
    except ValueError:
        raise ValueError(
            f"{function}: the batch axes of {names[0]} {arrays[0].shape} and {names[1]} "
            f"{arrays[1].shape} do not broadcast (the last {axes} are convolved)"
        ) from None
    dtype = np.result_type(*arrays)
    dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
    return arrays[0].astype(dtype, copy=False), arrays[1].astype(dtype, copy=False)


def _middle(x: Array, w: Array, axes: int, odd: int) -> tuple[Sizes, Sizes]:
    """Start and count of mode "same". odd: which of the two middles when there are two."""
    if axes == 1:
        sizes = x.shape[-1], w.shape[-1]
        return ((min(sizes) - 1 + odd) // 2,), (max(sizes),)
    start = tuple((k - 1 + odd) // 2 for k in w.shape[-2:])
    return start, x.shape[-2:]


def _convolve(
    function: str, x: Array, w: Array, mode: str, method: str, middle: tuple[Sizes, Sizes]
) -> Array:
    """The window of `full` that `mode` means. x and w may change places: it is commutative."""
    axes = len(middle[0])
    n, k = x.shape[-axes:], w.shape[-axes:]
    if mode == "same":
        start, count = middle
    elif mode == "full":
        start, count = (0,) * axes, tuple(i + j - 1 for i, j in zip(n, k, strict=True))
    else:
        pairs = list(zip(n, k, strict=True))
        if any(i < j for i, j in pairs) and any(i > j for i, j in pairs):
            raise ValueError(
                f"{function}: mode 'valid' needs one array at least as large as the other on both "
                f"axes, got {x.shape} and {w.shape}"
            )
        start = tuple(min(pair) - 1 for pair in pairs)
        count = tuple(abs(i - j) + 1 for i, j in pairs)
    if prod(k) > prod(n) and (axes == 1 or mode != "same"):
        x, w = w, x
    return window_of_full(function, x, w, start, count, method)
