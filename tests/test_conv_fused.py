"""The C epilogue (scale, bias, residual, clamp) and prepared weights, for every method."""

import numpy as np
import pytest

import fastconv
from fastconv import _core, reference

CASES = {  # x, weight, stride, dilation, pad, groups; the method of the shape
    "direct": ((2, 20, 9, 11), (37, 20, 3, 3), 2, 1, 1, 1),
    "direct-1x1": ((3, 33, 7, 7), (70, 33, 1, 1), 1, 1, 0, 1),
    "direct-groups": ((2, 12, 8, 9), (48, 6, 2, 3), 1, 1, 1, 2),
    "direct-dilated": ((1, 18, 17, 14), (19, 18, 3, 3), 1, 3, 3, 1),
    "direct-narrow": ((2, 16, 33, 3), (24, 16, 3, 3), 1, 1, 0, 1),
    "direct-late": ((1, 512, 3, 3), (96, 512, 1, 1), 1, 1, 0, 1),
    "direct-3-panels": ((1, 300, 7, 7), (96, 300, 1, 1), 1, 1, 0, 1),
    "direct-5-panels": ((1, 300, 7, 7), (80, 300, 1, 1), 1, 1, 0, 1),
    "direct-copied": ((1, 512, 6, 6), (112, 512, 1, 1), 1, 1, 0, 1),
    "winograd-tiles": ((3, 24, 14, 13), (40, 24, 3, 3), 1, 1, 1, 1),
    "winograd-rows": ((2, 3, 11, 29), (40, 3, 3, 3), 1, 1, 1, 1),
    "winograd-rows-5x5": ((3, 6, 14, 14), (17, 6, 5, 5), 1, 1, 0, 1),
    "winograd-rows-dilated": ((2, 5, 17, 33), (24, 5, 3, 3), 1, 3, 3, 1),
    "winograd-rows-groups": ((2, 6, 9, 65), (64, 3, 3, 3), 1, 1, 1, 2),
    "winograd-4x4": ((2, 16, 11, 9), (33, 16, 4, 4), 1, 1, 2, 1),
    "winograd-5x5": ((2, 17, 7, 12), (24, 17, 5, 5), 1, 1, 2, 1),
    "winograd-5x5-panels": ((1, 300, 6, 6), (70, 300, 5, 5), 1, 1, 2, 1),
    "direct-half-vector": ((2, 300, 4, 28), (24, 300, 1, 1), 1, 1, 0, 1),
    "direct-3-vectors-and-a-half": ((1, 5, 9, 28), (53, 5, 3, 3), 1, 1, 1, 1),
    "direct-3-vectors": ((2, 20, 9, 15), (40, 20, 1, 1), 1, 1, 0, 1),
    "direct-6-vectors": ((1, 18, 13, 11), (90, 18, 1, 1), 1, 1, 0, 1),
    "direct-5-vectors": ((1, 5, 9, 11), (71, 5, 3, 3), 2, 1, 1, 1),
    "winograd-1x3": ((3, 33, 3, 30), (40, 33, 1, 3), 1, 1, 1, 1),
    "winograd-4x1": ((2, 34, 11, 19), (37, 34, 4, 1), 1, 1, 2, 1),
    "winograd-1x5-panels": ((1, 530, 3, 9), (257, 530, 1, 5), 1, 1, 2, 1),
    "winograd-2x2": ((2, 17, 9, 9), (33, 17, 2, 2), 1, 1, 1, 1),
    "winograd-stride": ((3, 33, 17, 19), (40, 33, 3, 3), 2, 1, 1, 1),
    "winograd-4x4-stride": ((2, 24, 14, 13), (40, 24, 4, 4), 2, 1, 1, 1),
    "winograd-stride-panels": ((1, 300, 9, 9), (150, 300, 3, 3), 2, 1, 1, 1),
    "winograd-7x7": ((2, 17, 17, 12), (24, 17, 7, 7), 1, 1, 3, 1),
    "winograd-7x7-panels": ((1, 150, 9, 8), (70, 150, 7, 7), 1, 1, 3, 1),
    "winograd-5x3": ((2, 24, 13, 18), (40, 24, 5, 3), 1, 1, 1, 1),
    "winograd-1x9": ((2, 40, 3, 50), (40, 40, 1, 9), 1, 1, 1, 1),
    "winograd-dilated": ((2, 33, 17, 18), (40, 33, 3, 3), 1, 2, 2, 1),
    "winograd-dilated-panels": ((1, 272, 13, 9), (150, 272, 3, 3), 1, 3, 3, 1),
    "winograd-5x5-stride": ((2, 33, 23, 26), (40, 33, 5, 5), 2, 1, 2, 1),
    "winograd-1x9-stride": ((2, 33, 3, 61), (40, 33, 1, 9), 2, 1, 1, 1),
    "winograd-1x8-panels": ((1, 200, 1, 61), (150, 200, 1, 8), 4, 1, 0, 1),
    "winograd-1x2-dilated": ((2, 40, 3, 90), (48, 40, 1, 2), 1, 20, 1, 1),
    "winograd-7x7-stride-3": ((2, 33, 40, 37), (40, 33, 7, 7), 3, 1, 2, 1),
    "winograd-panels": ((1, 272, 9, 7), (150, 272, 3, 3), 1, 1, 1, 1),
    "depthwise": ((2, 37, 12, 10), (37, 1, 3, 3), 2, 1, 1, 37),
    "depthwise-few": ((2, 3, 19, 40), (3, 1, 3, 3), 1, 1, 1, 3),
    "depthwise-narrow": ((2, 37, 12, 3), (37, 1, 3, 3), 1, 1, 1, 37),
    "depthwise-dilated": ((2, 37, 12, 20), (37, 1, 3, 3), 1, 2, 2, 37),
    "direct-half-of-one": ((2, 13, 9, 29), (7, 13, 1, 1), 1, 1, 0, 1),
    "direct-half-of-one-chunks": ((1, 300, 4, 24), (8, 300, 1, 1), 1, 1, 0, 1),
    "direct-half-of-one-stride": ((2, 13, 9, 57), (7, 13, 3, 3), 2, 1, 1, 1),
    "small-images": ((17, 5, 5, 6), (33, 5, 3, 3), 2, 1, 1, 1),
    "wide-padding": ((2, 5, 9, 40), (37, 5, 3, 3), 1, 12, 12, 1),
    "grouped": ((2, 36, 12, 11), (36, 4, 3, 3), 2, 1, 1, 9),
    "grouped-dilated": ((2, 15, 12, 11), (20, 3, 3, 5), 1, 3, 3, 5),
    "pixels": ((2, 5, 12, 40), (3, 5, 3, 3), 1, 1, 1, 1),
    "dots": ((2, 32, 12, 40), (2, 32, 3, 3), 2, 1, 1, 1),
    "dots-groups": ((2, 80, 9, 30), (4, 40, 3, 3), 2, 1, 1, 2),
    "dots-1x1": ((2, 64, 9, 40), (3, 64, 1, 1), 1, 1, 0, 1),
    "taps": ((2, 32, 12, 20), (6, 32, 5, 5), 1, 1, 4, 1),
    "taps-rows": ((2, 48, 12, 20), (3, 48, 5, 5), 1, 2, 4, 1),
    "taps-rows-dilated": ((2, 32, 30, 20), (6, 32, 5, 5), 1, 4, 4, 1),
    "taps-groups": ((2, 80, 9, 30), (6, 40, 3, 3), 1, 2, 2, 2),
    "taps-dilated": ((2, 40, 30, 40), (3, 40, 3, 3), 1, 4, 4, 1),
    "pixels-dilated": ((2, 5, 30, 40), (3, 5, 3, 3), 1, 4, 4, 1),
}


def channels_last(shape, dtype, rng=None):
    n, c, h, w = shape
    a = np.full((n, h, w, c), np.nan, dtype)
    if rng is not None:
        a[:] = rng.integers(-3, 4, a.shape)
    return a.transpose(0, 3, 1, 2)


def prepare(x, w, y, geometry):
    operands = [(0, 0, a.shape, tuple(s // a.itemsize for s in a.strides)) for a in (x, y)]
    size = _core.prepared_bytes(w.itemsize, operands[0], w, operands[1], geometry)
    assert size > 0
    raw = np.full(size + 64, 0xFF, np.uint8)
    start = -raw.ctypes.data % 64
    prepared = raw[start : start + size]
    _core.prepare(w.itemsize, operands[0], w, operands[1], geometry, prepared)
    return prepared


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
@pytest.mark.parametrize("name", CASES)
def test_epilogue_and_prepared_weights(name, layout, dtype, isa, rng):
    xs, ws, stride, dilation, pad, groups = CASES[name]
    x = channels_last(xs, dtype, rng)
    w = rng.integers(-3, 4, ws).astype(dtype)
    scale, bias = (rng.integers(-2, 3, ws[0]).astype(dtype) for _ in range(2))
    algorithm = {"direct": 1, "winogr": 2}.get(name[:6], 0)
    geometry = (stride, stride, dilation, dilation, pad, pad, groups, algorithm)
    plain = reference.conv2d(
        x.astype(np.float64), w.astype(np.float64), None, stride, pad, dilation, groups
    )
    y = channels_last(plain.shape, dtype)
    if layout == "channels-first":
        x, y = (np.ascontiguousarray(a) for a in (x, y))
    residual = channels_last(plain.shape, dtype, rng)
    prepared = prepare(x, w, y, geometry)
    bits = []
    for threads in (1, 2):
        for packed in (None, prepared):
            for r in (None, residual):
                y[:] = np.nan
                with fastconv.num_threads(threads):
                    _core.conv2d(x, w, bias, y, geometry, -9.0, 20.0, scale, r, packed)
                wanted = plain * scale[:, None, None] + bias[:, None, None]
                wanted = np.clip(wanted + (0 if r is None else r), -9, 20)
                if algorithm == 2:  # transforms round: a few units of the largest sum
                    # which amplify the rounding of sums of 9 C to 25 C products of at most 9
                    bound = 64 * np.finfo(dtype).eps * 9 * np.prod(ws[1:])
                    np.testing.assert_allclose(y, wanted, rtol=0, atol=bound)
                else:
                    np.testing.assert_array_equal(y, wanted)
                bits.append(y.tobytes())
    assert len(set(bits[::2])) == len(set(bits[1::2])) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pad", [0, 1])
def test_bounds_of_planes(isa, rng, dtype, pad):
    """Of several outputs, written without a way through memory: NaN stays, bits as of pixels."""
    x, w, bias = (rng.standard_normal(s).astype(dtype) for s in ((2, 1, 7, 50), (21, 1, 3, 3), 21))
    x[1, 0, 3, 20] = np.nan
    geometry = (1, 1, 1, 1, pad, pad, 1, 1)
    results = []
    for planes in (True, False):
        y = channels_last((2, 21, 5 + 2 * pad, 48 + 2 * pad), dtype)
        y = np.ascontiguousarray(y) if planes else y
        for b in (None, bias):
            _core.conv2d(x, w, b, y, geometry, -0.5, 0.75, None, None, None)
            results.append(np.ascontiguousarray(y).tobytes())
    assert results[:2] == results[2:]
    wanted = reference.conv2d(x, w, bias, 1, pad).clip(-0.5, 0.75)
    np.testing.assert_allclose(y, wanted, rtol=0, atol=100 * np.finfo(dtype).eps)
    assert np.isnan(y).any()
