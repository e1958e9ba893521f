"""Convolution and correlation of plain arrays, without batch or channels.

    convolve:   y[n] = sum_k a[k] * v[n - k]        correlate:   c[k] = sum_n a[n + k] * v[n]

"full" has an entry for every overlap, "valid" only where the shorter array lies wholly in the
longer one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastconv.reference._shapes import Array, expect_word

MODES = ("full", "same", "valid")


def _operands(
    function: str, first: npt.ArrayLike, second: npt.ArrayLike, rank: int, mode: str
) -> tuple[Array, Array]:
    expect_word(function, "mode", mode, MODES)
    a, b = np.asarray(first), np.asarray(second)
    if a.ndim != rank or b.ndim != rank:
        raise ValueError(
            f"{function}: both arguments must have {rank} axes, got shapes {a.shape} and {b.shape}"
        )
    if min(*a.shape, *b.shape) < 1:
        raise ValueError(
            f"{function}: both arguments must be non-empty, got shapes {a.shape} and {b.shape}"
        )
    return a, b


def _full2d(a: Array, b: Array) -> Array:
    """y[i, j] = sum_{u, v} a[u, v] * b[i - u, j - v], over the entries that exist."""
    (height, width), (rows, cols) = a.shape, b.shape
    flipped = b[::-1, ::-1]
    y = np.zeros((height + rows - 1, width + cols - 1), np.result_type(a, b))
    for i in range(y.shape[0]):
        top, bottom = max(0, i - rows + 1), min(height, i + 1)  # the rows of a under the flipped b
        for j in range(y.shape[1]):
            left, right = max(0, j - cols + 1), min(width, j + 1)
            under = flipped[
                top - i + rows - 1 : bottom - i + rows - 1,
                left - j + cols - 1 : right - j + cols - 1,
            ]
            y[i, j] = (a[top:bottom, left:right] * under).sum()
    return y


def _full1d(a: Array, b: Array) -> Array:
    return np.asarray(_full2d(a[np.newaxis], b[np.newaxis])[0])


def _valid(function: str, full: Array, a: Array, b: Array) -> Array:
    """The entries of a full result where one array covers the other."""
    fits = [m - n for m, n in zip(a.shape, b.shape, strict=True)]
    if min(fits) < 0 < max(fits):
        raise ValueError(
            f"{function}: valid needs one array to cover the other, got {a.shape} and {b.shape}"
        )
    window = [slice(min(m, n) - 1, max(m, n)) for m, n in zip(a.shape, b.shape, strict=True)]
    return np.asarray(full[tuple(window)])


def convolve(
    a: npt.ArrayLike, v: npt.ArrayLike, mode: str = "full", *, method: str = "auto"
) -> Array:
    """Convolution of two sequences (M,) and (N,), as `numpy.convolve`.

    "full" has M + N - 1 entries, "same" the middle max(M, N), "valid" max(M, N) - min(M, N) + 1.
    """
    x, w = _operands("convolve", a, v, 1, mode)
    y = _full1d(x, w)
    if mode == "same":
        start = (min(len(x), len(w)) - 1) // 2
        return y[start : start + max(len(x), len(w))]
    return _valid("convolve", y, x, w) if mode == "valid" else y


def correlate(
    a: npt.ArrayLike, v: npt.ArrayLike, mode: str = "full", *, method: str = "auto"
) -> Array:
    """Cross-correlation of two sequences (M,) and (N,), as `numpy.correlate` (whose default mode is
    "valid").
    """
    x, w = _operands("correlate", a, v, 1, mode)
    y = _full1d(x, w[::-1])
    if mode == "same":
        short = min(len(x), len(w))
        start = (short - 1) // 2 if len(x) >= len(w) else short // 2
        return y[start : start + max(len(x), len(w))]
    return _valid("correlate", y, x, w) if mode == "valid" else y


def convolve2d(
    in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str = "full", *, method: str = "auto"
) -> Array:
    """Convolution of two images with zeros around, as `scipy.signal.convolve2d`; "same" has the
    shape of in1.
    """
    x, w = _operands("convolve2d", in1, in2, 2, mode)
    y = _full2d(x, w)
    if mode == "same":
        top, left = (w.shape[0] - 1) // 2, (w.shape[1] - 1) // 2
        return y[top : top + x.shape[0], left : left + x.shape[1]]
    return _valid("convolve2d", y, x, w) if mode == "valid" else y


def correlate2d(
    in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str = "full", *, method: str = "auto"
) -> Array:
    """Correlation of two images, as `scipy.signal.correlate2d`; "same" has the shape of in1."""
    x, w = _operands("correlate2d", in1, in2, 2, mode)
    y = _full2d(x, w[::-1, ::-1])
    if mode == "same":
        top, left = w.shape[0] // 2, w.shape[1] // 2
        return y[top : top + x.shape[0], left : left + x.shape[1]]
    return _valid("correlate2d", y, x, w) if mode == "valid" else y
