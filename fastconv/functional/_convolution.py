"""Three ways to a window `start .. start + count` of a full convolution of one or two axes:

plain    conv2d with one channel. For small problems.
blocked  conv2d with `block` channels: `block` neighbours of a line are the channels of one pixel,
         and the kernel a banded Toeplitz matrix over them. The work grows by about
         (k + block) / k, and runs as a matrix product.
fft      the overlap-save method on one axis (Stockham, "High-speed convolution and correlation",
         1966), one transform on two axes.

The choice is made by the sizes of one item, never by the batch.
"""

from __future__ import annotations

from math import log2, prod

import numpy as np

from fastconv.functional._arrays import empty_ordered
from fastconv.functional._checks import Array
from fastconv.functional.conv import conv2d

Sizes = tuple[int, ...]

_CHUNK = 1 << 18  # samples transformed at once; the scratch of overlap-save is about ten times this
_SMALL = 1 << 16  # multiplications below which "plain" is faster than preparing "blocked"


def window_of_full(
    function: str, x: Array, w: Array, start: Sizes, count: Sizes, method: str
) -> Array:
    """full[start : start + count] of x (..., n) and w (..., k), the batch axes broadcast.

    NaN and infinities reach only the entries they belong to, unless method is "fft": items that
    hold any are computed again by `_shifted_sums`, where no zero meets them that is not data.
    """
    if len(start) == 1:
        x, w = x[..., np.newaxis, :], w[..., np.newaxis, :]
        return window_of_full(function, x, w, (0, *start), (1, *count), method)[..., 0, :]
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    if 0 in batch:
        return np.empty((*batch, *count), x.dtype)
    by_fft = method == "fft" or (method == "auto" and _fft_pays(x, w, count))
    with np.errstate(all="ignore"):
        if not by_fft and prod(count) * prod(w.shape[-2:]) < _SMALL:
            y = _plain(x, w, start, count)
        elif not by_fft:
            y = _blocked(x, w, start, count)
        elif w.shape[-2] == 1:
            y = _overlap_save(function, x, w, start[1], count[1])
        else:
            y = _fft2(function, x, w, start, count)
        if method != "fft":
            finite = np.isfinite(x).all(axis=(-2, -1)) & np.isfinite(w).all(axis=(-2, -1))
            if not finite.all():
                bad = ~np.broadcast_to(finite, batch)
                x, w = (np.broadcast_to(a, (*batch, *a.shape[-2:]))[bad] for a in (x, w))
                y[bad] = _shifted_sums(x, w, start, count)
    return y


def _fft_pays(x: Array, w: Array, count: Sizes) -> bool:
    """Whether "fft" is estimated to take less time than "blocked".

    Measured on one Zen 4 core: "blocked" does 45 (float32) or 25 (float64) multiplications a
    nanosecond on one axis, half of that on two; overlap-save takes 12 ns for each entry, two axes
    1.3 ns for each of the L * log2(L) steps; starting the transforms takes 60 us.
    """
    k, rate = w.shape[-2:], 45 if x.itemsize == 4 else 25
    blocked = prod(count) * prod(k) / rate
    if k[0] == 1:
        return bool(60_000 + 12 * prod(count) < blocked)
    points = (x.shape[-2] + k[0]) * (x.shape[-1] + k[1])
    return bool(60_000 + 1.3 * points * log2(points) < 2 * blocked)


def _plain(x: Array, w: Array, start: Sizes, count: Sizes) -> Array:
    """conv2d as it is (it correlates, so the kernel is reversed)."""
    (n, k), batch = (x.shape[-2:], w.shape[-2:]), np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    padding = [_margins(*axis) for axis in zip(n, k, start, count, strict=True)]
    kernel = w[..., ::-1, ::-1]
    groups = 1
    if prod(w.shape[:-2]) == 1:  # many signals, one kernel: a batch
        x, kernel = x.reshape(-1, 1, *n), kernel.reshape(1, 1, *k)
    elif prod(x.shape[:-2]) == 1:  # one signal, many kernels: output channels
        x, kernel = x.reshape(1, 1, *n), kernel.reshape(-1, 1, *k)
    else:
        groups = prod(batch)
        x = np.broadcast_to(x, (*batch, *n)).reshape(1, groups, *n)
        kernel = np.broadcast_to(kernel, (*batch, *k)).reshape(groups, 1, *k)
    y = conv2d(x, kernel, padding=padding, groups=groups, algorithm="direct")
    return y.reshape(*batch, *count)


def _shifted_sums(x: Array, w: Array, start: Sizes, count: Sizes) -> Array:
    """The sum over the kernel's entries of the entry times the shifted x: no padding at all."""
    y = np.zeros((len(x), *count), x.dtype)
    for entry in np.ndindex(w.shape[-2:]):
        to, of = [], []
        for j, n, s, c in zip(entry, x.shape[-2:], start, count, strict=True):
            low = max(s, j)
            high = max(min(s + c, j + n), low)
            to.append(slice(low - s, high - s))
            of.append(slice(low - j, high - j))
        y[:, to[0], to[1]] += w[:, *entry, np.newaxis, np.newaxis] * x[:, of[0], of[1]]
    return y


def _margins(n: int, k: int, start: int, count: int) -> tuple[int, int]:
    """The zeros before and after n samples that the window sees."""
    return k - 1 - start, start + count - n


def _blocked(x: Array, w: Array, start: Sizes, count: Sizes) -> Array:
    """Blocks along the axis on which the kernel is longer."""
    if w.shape[-2] > w.shape[-1]:
        y = _blocked(x.swapaxes(-1, -2), w.swapaxes(-1, -2), start[::-1], count[::-1])
        return np.ascontiguousarray(y.swapaxes(-1, -2))
    k, (rows, columns) = w.shape[-1], count
    block = 8 if k <= 8 else 16 if k < 512 else 32
    while block > columns:
        block //= 2
    taps, pixels = (block + k - 2) // block + 1, -(-columns // block)
    top = _margins(x.shape[-2], w.shape[-2], start[0], rows)
    pixel = _lines(x, k, start[1], (pixels + taps - 1, block)).swapaxes(-1, -2).swapaxes(-2, -3)
    toeplitz = _toeplitz(w, taps, block)
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    if prod(w.shape[:-2]) == 1:
        pixel = pixel.reshape(-1, *pixel.shape[-3:])
        y = _conv(pixel, toeplitz.reshape(toeplitz.shape[-4:]), top)
    else:
        pixel = np.broadcast_to(pixel, (*batch, *pixel.shape[-3:]))
        toeplitz = np.broadcast_to(toeplitz, (*batch, *toeplitz.shape[-4:]))
        items = [_conv(pixel[i][np.newaxis], toeplitz[i], top) for i in np.ndindex(batch)]
        y = np.concatenate(items)
    return np.ascontiguousarray(y.reshape(*batch, rows, pixels * block)[..., :columns])


def _conv(pixel: Array, weight: Array, top: tuple[int, int]) -> Array:
    """(N, block, H, pixels) -> (N, rows, pixels * block)."""
    y = conv2d(pixel, weight, padding=(top, (0, 0)), algorithm="direct").transpose(0, 2, 3, 1)
    return y.reshape(*y.shape[:2], -1)


def _lines(x: Array, k: int, start: int, blocks: tuple[int, int]) -> Array:
    """The samples start - k + 1 ... of the last axis, zero outside, in `blocks`."""
    size, begin = prod(blocks), start - (k - 1)
    seen = np.zeros((*x.shape[:-1], size), x.dtype)
    low = max(begin, 0)
    high = max(min(begin + size, x.shape[-1]), low)
    seen[..., low - begin : high - begin] = x[..., low:high]
    return seen.reshape(*x.shape[:-1], *blocks)


def _toeplitz(w: Array, taps: int, block: int) -> Array:
    """weight[r, c, row, u] = reversed w[row, block * u + c - r]: (..., block, block, kH, taps)."""
    k = w.shape[-1]
    padded = np.zeros((*w.shape[:-1], block - 1 + taps * block), w.dtype)
    padded[..., block - 1 : block - 1 + k] = w[..., ::-1, ::-1]
    bands = np.lib.stride_tricks.sliding_window_view(padded, taps * block, axis=-1)[..., ::-1, :]
    bands = bands.reshape(*w.shape[:-1], block, taps, block)  # (..., row, r, u, c)
    return np.moveaxis(bands, (-3, -1), (-4, -3))


def _overlap_save(function: str, x: Array, w: Array, start: int, count: int) -> Array:
    """Blocks of `length` samples, each giving `length - k + 1` entries free of wrap-around."""
    n, k = x.shape[-1], w.shape[-1]
    lines = np.broadcast_shapes(x.shape[:-1], w.shape[:-1])
    length = min(_fast_length(n + k - 1), _fast_length(max(8 * k, 1024)))
    step = length - k + 1
    blocks = -(-count // step)
    y = empty_ordered(function, (*lines, count), x.dtype, tuple(range(len(lines) + 1)))
    spectrum = np.fft.rfft(w, length)[..., np.newaxis, :]
    at_once = max(1, _CHUNK // (length * prod(lines)))
    for first in range(0, blocks, at_once):
        some = min(at_once, blocks - first)
        seen = _lines(x, k, start + first * step, (1, (some - 1) * step + length))[..., 0, :]
        frames = np.lib.stride_tricks.sliding_window_view(seen, length, axis=-1)[..., ::step, :]
        part = np.fft.irfft(np.fft.rfft(frames) * spectrum, length)[..., k - 1 :]
        stop = min((first + some) * step, count)
        y[..., first * step : stop] = part.reshape(*lines, -1)[..., : stop - first * step]
    return y


def _fft2(function: str, x: Array, w: Array, start: Sizes, count: Sizes) -> Array:
    """One transform of each image, long enough for the full result."""
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    window = tuple(slice(s, s + c) for s, c in zip(start, count, strict=True))
    lengths = [_fast_length(n + k - 1) for n, k in zip(x.shape[-2:], w.shape[-2:], strict=True)]
    y = empty_ordered(function, (*batch, *count), x.dtype, tuple(range(len(batch) + 2)))
    images = np.broadcast_to(x, (*batch, *x.shape[-2:]))
    spectra = np.fft.rfft2(w, lengths)
    spectra = np.broadcast_to(spectra, (*batch, *spectra.shape[-2:]))
    for item in np.ndindex(batch):
        spectrum = np.fft.rfft2(images[item], lengths) * spectra[item]
        y[item] = np.fft.irfft2(spectrum, lengths)[window]
    return y


def _fast_length(least: int) -> int:
    """The smallest 2^a * 3^b * 5^c that is at least `least`: lengths the transform is fast for."""
    best = 1 << (least - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            quotient = -(-least // three)
            best = min(best, three << (quotient - 1).bit_length())
            three *= 3
        five *= 5
    return best
