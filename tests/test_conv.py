"""conv1d and conv2d with gradients against the reference, for every instruction set.

Whole numbers make every sum exact, so "direct" must equal the float64 reference in every bit of
value; normal data are held to a bound derived from the number of terms.
"""

from functools import cache

import numpy as np
import pytest
from array_variants import variants
from helpers import (
    ALL_FORMATS,
    DTYPES,
    FORMATS,
    SIZES,
    integers,
    is_channels_last,
    poisoned,
    same_bits,
    to_format,
    tolerance,
)

import fastconv
import fastconv.functional as F
from fastconv import reference as R

# input shape, weight shape, arguments
CASES = {
    "3x3": ((2, 5, 7, 9), (6, 5, 3, 3), {"padding": 1}),
    "3x3 no padding": ((2, 5, 7, 9), (6, 5, 3, 3), {}),
    "1x1": ((2, 9, 5, 7), (17, 9, 1, 1), {}),
    "1x1 blocks": ((2, 41, 24, 23), (70, 41, 1, 1), {}),  # of pixels, in the gradient of the weight
    "1x1 to channels a page apart": ((1, 33, 9, 7), (1030, 33, 1, 1), {}),
    "1x1 from channels a page apart": ((2, 1024, 9, 7), (35, 1024, 1, 1), {}),
    "1x1 strided, half a page apart": ((1, 512, 9, 8), (34, 512, 1, 1), {"stride": 2}),
    "1x1 to 3 vectors": ((2, 20, 9, 15), (40, 20, 1, 1), {}),
    "1x1 to 5 vectors": ((1, 24, 13, 9), (72, 24, 1, 1), {}),
    "1x1 to 7 vectors by chunks": ((1, 520, 3, 11), (100, 520, 1, 1), {}),
    "to 3 vectors": ((2, 5, 9, 31), (37, 5, 3, 3), {"padding": 1, "stride": 2}),
    "to 5 vectors": ((1, 5, 4, 21), (80, 5, 3, 2), {"padding": (2, 1)}),
    "groups to 3 vectors": ((1, 6, 5, 7), (82, 3, 3, 1), {"groups": 2}),
    "1x1 padded": ((2, 3, 4, 5), (4, 3, 1, 1), {"padding": (1, 2)}),
    "1x1 strided": ((2, 9, 7, 8), (5, 9, 1, 1), {"stride": (2, 3)}),
    "stem 7x7 stride 2": ((1, 3, 23, 25), (17, 3, 7, 7), {"stride": 2, "padding": 3}),
    "strides 2, 3": ((2, 3, 9, 11), (4, 3, 3, 3), {"stride": (2, 3), "padding": 1}),
    "strides 3, 2": ((2, 3, 11, 9), (4, 3, 3, 3), {"stride": (3, 2), "padding": 1}),
    "stride larger than kernel": ((2, 3, 11, 13), (4, 3, 2, 2), {"stride": 4}),
    "asymmetric": ((2, 3, 6, 7), (5, 3, 3, 4), {"padding": ((0, 2), (3, 1))}),
    "asymmetric strided": (
        (2, 3, 8, 7),
        (5, 3, 3, 2),
        {"padding": ((2, 1), (0, 3)), "stride": (3, 2), "dilation": (1, 2)},
    ),
    "dilated": ((2, 3, 11, 12), (4, 3, 3, 3), {"dilation": (2, 3), "padding": (2, 3)}),
    "dilated strided": ((1, 3, 13, 14), (4, 3, 3, 3), {"dilation": 2, "stride": 2, "padding": 2}),
    "dilation 3 stride 2": ((1, 2, 13, 14), (3, 2, 4, 3), {"dilation": (3, 2), "stride": (2, 3)}),
    "dilation 2 stride 4": ((1, 2, 15, 14), (3, 2, 4, 3), {"dilation": 2, "stride": 4}),
    "groups 2": ((2, 6, 7, 8), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "groups 3 strided": ((1, 9, 7, 8), (51, 3, 3, 2), {"groups": 3, "stride": 2, "padding": 1}),
    "groups of one to many": ((2, 3, 7, 8), (9, 1, 3, 3), {"groups": 3, "padding": 1}),
    "groups of many to one": ((2, 9, 7, 8), (3, 3, 3, 3), {"groups": 3, "padding": 1}),
    "groups 1x1": ((2, 34, 5, 6), (6, 17, 1, 1), {"groups": 2}),
    "groups of 1 to 2": ((2, 17, 9, 8), (34, 1, 3, 3), {"groups": 17, "padding": 1}),
    "groups of 2": ((2, 36, 9, 8), (36, 2, 3, 2), {"groups": 18, "stride": (1, 2), "padding": 1}),
    "groups of 4": ((3, 36, 9, 13), (36, 4, 3, 3), {"groups": 9, "padding": 1}),
    "groups of 4, 5x7": ((1, 20, 9, 13), (20, 4, 5, 7), {"groups": 5, "stride": 2, "padding": 3}),
    "groups of 8": ((2, 40, 8, 11), (40, 8, 3, 3), {"groups": 5, "stride": 2, "padding": 1}),
    "groups of 3 to 8": ((2, 15, 6, 19), (40, 3, 1, 4), {"groups": 5, "dilation": (1, 3)}),
    "groups of 4 to 1": ((3, 32, 7, 8), (8, 4, 3, 3), {"groups": 8, "dilation": 2, "padding": 2}),
    "depthwise": ((2, 19, 9, 10), (19, 1, 3, 3), {"groups": 19, "padding": 1}),
    "depthwise no padding": ((2, 8, 6, 7), (8, 1, 3, 3), {"groups": 8}),
    "depthwise strided": ((2, 17, 9, 10), (17, 1, 3, 3), {"groups": 17, "stride": 2, "padding": 1}),
    "depthwise 5x5 dilated": (
        (1, 33, 12, 11),
        (33, 1, 5, 5),
        {"groups": 33, "padding": 4, "dilation": 2},
    ),
    "depthwise asymmetric": (
        (2, 7, 5, 6),
        (7, 1, 2, 4),
        {"groups": 7, "padding": ((1, 0), (0, 5)), "stride": (1, 2)},
    ),
    "depthwise 4x1": ((2, 9, 12, 1), (9, 1, 4, 1), {"groups": 9}),
    "depthwise 21x1": ((2, 19, 23, 9), (19, 1, 21, 1), {"groups": 19, "padding": (10, 0)}),
    "depthwise dilated row": (
        (2, 19, 5, 29),
        (19, 1, 3, 3),
        {"groups": 19, "padding": (1, 6), "dilation": (1, 6), "stride": (1, 2)},
    ),
    "small images": ((17, 5, 5, 6), (33, 5, 3, 3), {"stride": 2, "padding": 1}),
    "wide padding": ((1, 5, 9, 40), (19, 5, 3, 3), {"dilation": 12, "padding": 12}),
    "1x15 in a square": ((1, 9, 17, 17), (20, 9, 1, 15), {"padding": (0, 7)}),
    "single pixels": ((5, 40, 1, 1), (33, 40, 1, 1), {}),
    "patches": ((3, 3, 33, 34), (17, 3, 16, 16), {"stride": 16}),
    "patches, padded": ((2, 5, 11, 13), (9, 5, 4, 3), {"stride": (4, 5), "padding": (2, 1)}),
    "patches, dilated": ((2, 2, 15, 21), (5, 2, 3, 2), {"stride": (5, 4), "dilation": (2, 3)}),
    "patches of groups": ((2, 6, 9, 9), (33, 2, 2, 2), {"groups": 3, "stride": 3}),
    "patches of many channels": ((2, 40, 8, 6), (9, 40, 2, 2), {"stride": 2}),
    "whole image": ((5, 9, 4, 3), (17, 9, 4, 3), {}),
    "whole image of groups": ((2, 10, 3, 3), (4, 5, 3, 3), {"groups": 2}),
    "whole image, dilated": ((2, 3, 5, 7), (33, 3, 3, 3), {"dilation": (2, 3)}),
    "image of one row": ((2, 5, 1, 40), (9, 5, 5, 5), {"padding": 2}),
    "image of one row, strided": ((2, 5, 1, 40), (3, 5, 4, 4), {"padding": (3, 1), "stride": 2}),
    "image of one column": ((2, 16, 40, 1), (16, 16, 3, 3), {"padding": 1}),
    "image of one pixel": ((3, 9, 1, 1), (17, 9, 3, 3), {"padding": 1}),
    "taps in the padding": ((1, 8, 9, 10), (8, 8, 3, 3), {"padding": 12, "dilation": 12}),
    "depthwise stride 2, dilation 2": (
        (1, 18, 9, 23),
        (18, 1, 3, 5),
        {"groups": 18, "padding": 2, "stride": 2, "dilation": 2},
    ),
    "depthwise stride 4, dilation 2": (
        (1, 18, 9, 43),
        (18, 1, 2, 5),
        {"groups": 18, "padding": (1, 4), "stride": (3, 4), "dilation": (1, 2)},
    ),
    "depthwise stride over the kernel": (
        (2, 17, 7, 25),
        (17, 1, 1, 2),
        {"groups": 17, "stride": 3},
    ),
    "depthwise stride over the image": (
        (1, 5, 3, 4),
        (5, 1, 3, 4),
        {"groups": 5, "stride": 7, "padding": 2},
    ),
    "depthwise taller than the image": (
        (2, 16, 3, 9),
        (16, 1, 7, 3),
        {"groups": 16, "padding": (3, 1)},
    ),
    "depthwise strided, even rows": (
        (2, 33, 7, 50),
        (33, 1, 3, 3),
        {"groups": 33, "stride": 2, "padding": 1},
    ),
    "depthwise strided, odd rows": (
        (1, 70, 34, 47),
        (70, 1, 3, 3),
        {"groups": 70, "stride": 2, "padding": 1},
    ),
    "depthwise long rows": ((1, 18, 2, 601), (18, 1, 2, 3), {"groups": 18, "padding": 1}),
    "few outputs, many inputs": ((2, 70, 6, 9), (3, 70, 3, 3), {"padding": 1}),
    "few outputs, many pixels": ((1, 33, 30, 31), (2, 33, 3, 2), {"padding": 1, "stride": (1, 2)}),
    "few outputs, groups": ((2, 96, 5, 6), (4, 48, 3, 2), {"groups": 2, "dilation": (1, 2)}),
    "few outputs, wide padding": ((2, 33, 13, 70), (6, 33, 5, 5), {"padding": 4}),
    "few outputs, groups of many": (
        (2, 80, 9, 30),
        (10, 40, 3, 5),
        {"groups": 2, "dilation": (1, 2), "padding": (2, 5)},
    ),
    "few outputs, rows of taps": ((2, 33, 60, 11), (6, 33, 5, 5), {"padding": 4}),
    "few outputs, dilated rows of taps": (
        (2, 40, 31, 11),
        (6, 40, 5, 5),
        {"padding": 6, "dilation": (2, 1)},
    ),
    "few outputs, rows far apart": (
        (1, 40, 40, 9),
        (6, 40, 3, 5),
        {"padding": 3, "dilation": (7, 1)},
    ),
    "few outputs, taps in the padding": ((1, 20, 3, 9), (6, 20, 5, 5), {"padding": (6, 1)}),
    "few outputs, panels of taps": (
        (2, 80, 12, 10),
        (16, 40, 6, 6),
        {"groups": 2, "dilation": (1, 2), "padding": ((0, 7), (5, 6))},
    ),
    "few outputs, long rows": ((1, 64, 1, 3000), (1, 64, 1, 40), {"padding": (0, 3)}),
    "few outputs, more than a vector": ((1, 64, 5, 8), (9, 64, 5, 5), {"padding": 4}),
    "one output 1x1": ((2, 40, 5, 6), (1, 40, 1, 1), {}),
    "many channels": ((1, 700, 4, 5), (9, 700, 5, 5), {"padding": 2}),
    "prime channels": ((1, 113, 5, 6), (51, 113, 3, 3), {"padding": 1}),
    "many outputs": ((1, 3, 4, 5), (387, 3, 2, 2), {}),
    "tall and narrow": ((2, 3, 40, 3), (5, 3, 5, 2), {"padding": (1, 0), "stride": (2, 1)}),
    "one row": ((2, 3, 1, 97), (5, 3, 1, 5), {"padding": (0, 2)}),
    "one column": ((2, 3, 97, 1), (5, 3, 5, 1), {"padding": (2, 0)}),
    "one output": ((3, 17, 4, 5), (9, 17, 4, 5), {}),
    "one pixel": ((5, 33, 1, 1), (9, 33, 1, 1), {}),
    "12 images": ((12, 3, 3, 4), (5, 3, 2, 2), {}),
    "past the second-level cache": ((1, 64, 65, 66), (5, 64, 3, 3), {"stride": 2}),
    "channels a power of two": ((1, 512, 5, 6), (8, 512, 1, 1), {}),
}
for words in ("valid", "same", "same_lower", "full"):
    CASES[words] = ((2, 3, 7, 8), (4, 3, 3, 2), {"padding": words})
    CASES[f"{words} stride 2, 3"] = (
        (1, 3, 8, 11),
        (4, 3, 4, 3),
        {"padding": words, "stride": (2, 3), "dilation": (1, 2)},
    )
for mode in ("reflect", "replicate", "circular", "symmetric"):
    CASES[mode] = ((2, 3, 6, 7), (4, 3, 3, 4), {"padding": (1, 2), "padding_mode": mode})
    CASES[f"{mode} asymmetric"] = (
        (1, 4, 6, 7),
        (4, 2, 3, 3),
        {"padding": ((3, 0), (1, 5)), "padding_mode": mode, "groups": 2, "stride": (1, 2)},
    )
    CASES[f"{mode} same"] = ((1, 3, 7, 6), (2, 3, 3, 4), {"padding": "same", "padding_mode": mode})
for size in SIZES:
    CASES[f"{size} in"] = ((2, size, 3, 5), (3, size, 2, 3), {"padding": (0, 1)})
    CASES[f"{size} out"] = ((2, 3, 3, 5), (size, 3, 2, 3), {"padding": (0, 1)})
    CASES[f"{size} wide"] = ((2, 3, 2, size), (5, 3, 3, 3), {"padding": 1})
    CASES[f"{size} high"] = ((2, 3, size, 2), (5, 3, 3, 3), {"padding": 1})
    CASES[f"{size} in 1x1"] = ((2, size, 3, 5), (9, size, 1, 1), {})
    CASES[f"{size} depthwise"] = ((2, size, 3, 9), (size, 1, 3, 3), {"groups": size, "padding": 1})
    CASES[f"{size} wide depthwise"] = ((1, 3, 2, size), (3, 1, 2, 3), {"groups": 3, "padding": 1})
# tiles of 7, 8 and up to 5 outputs, pairs of rows, tails of channels
for width in (4, 5, 6, 7, 8, 9, 12, 13, 17, 18, 23):
    shape = (2, 33, 5 + width % 2, width)
    CASES[f"depthwise 3x3 on {width}"] = (shape, (33, 1, 3, 3), {"groups": 33, "padding": 1})
for taps in (1, 2, 4, 5, 6, 7, 8, 9, 12, 17):  # groups of up to 5, and of 7
    arguments = {"groups": 17, "padding": (1, taps // 2)}
    CASES[f"depthwise 2x{taps}"] = ((1, 17, 5, 19), (17, 1, 2, taps), arguments)
    CASES[f"depthwise 3x{taps} stride 2"] = (
        (1, 17, 9, 37),
        (17, 1, 3, taps),
        arguments | {"stride": 2},
    )
for channels in (2, 3, 5, 9, 17, 20):  # rows of few channels as runs of memory
    for shape, kernel, others in (
        ((2, channels, 23, 41), (3, 3), {"padding": 1}),
        ((1, channels, 33, 18), (5, 5), {"padding": ((2, 1), (0, 3))}),
        ((1, channels, 17, 30), (2, 7), {"stride": (2, 1), "dilation": (1, 2)}),
        ((1, channels, 19, 500), (3, 2), {"stride": (3, 1), "padding": 1}),
    ):
        name = f"{channels} depthwise {kernel} on {shape[3]}"
        CASES[name] = (shape, (channels, 1, *kernel), others | {"groups": channels})
# pixels that share sets of the first-level cache
for channels, kernel, stride in ((256, 5, 1), (256, 3, 2), (512, 3, 1), (512, 4, 3)):
    CASES[f"{channels} depthwise {kernel}x{kernel} stride {stride}"] = (
        (2, channels, 7, 10),
        (channels, 1, kernel, kernel),
        {"groups": channels, "padding": 1, "stride": stride},
    )
CASES["3 depthwise, rows cut"] = ((1, 3, 17, 1500), (3, 1, 3, 3), {"groups": 3, "padding": 1})
for width in (33, 57):  # inner tiles of 8 and 7 outputs
    arguments = {"groups": 35, "padding": 1, "stride": 2}
    CASES[f"depthwise stride 2 on {width}"] = ((1, 35, 11, width), (35, 1, 3, 3), arguments)
for outputs in (1, 2, 3):  # runs one below the other
    for taps in (2, 3, 5, 6, 9):
        shape = (1, 2, 7 + 2 * taps, 19 + outputs)
        CASES[f"{outputs} out {taps}x2"] = (shape, (outputs, 2, taps, 2), {"padding": (2, 1)})

CASES_1D = {
    "k3": ((2, 5, 19), (6, 5, 3), {"padding": 1}),
    "k1": ((2, 5, 19), (6, 5, 1), {}),
    "strided": ((2, 5, 19), (6, 5, 4), {"stride": 3, "padding": 2}),
    "dilated": ((2, 5, 19), (6, 5, 3), {"dilation": 4, "padding": 4}),
    "asymmetric": ((2, 5, 19), (6, 5, 3), {"padding": ((0, 4),)}),
    "groups": ((2, 6, 19), (4, 3, 3), {"groups": 2}),
    "depthwise": ((2, 17, 19), (17, 1, 5), {"groups": 17, "padding": "same"}),
    "depthwise causal": (
        (2, 9, 19),
        (9, 1, 4),
        {"groups": 9, "padding": "causal", "dilation": 2},
    ),
    "causal": ((2, 3, 19), (4, 3, 3), {"padding": "causal", "dilation": 3}),
    "causal strided": ((2, 3, 19), (4, 3, 5), {"padding": "causal", "stride": 2}),
    "same": ((2, 3, 20), (4, 3, 4), {"padding": "same", "stride": 3}),
    "same_lower": ((2, 3, 20), (4, 3, 4), {"padding": "same_lower", "stride": 3}),
    "valid": ((2, 3, 20), (4, 3, 4), {"padding": "valid"}),
    "full": ((2, 3, 20), (4, 3, 4), {"padding": "full", "dilation": 2}),
    "long": ((1, 2, 3001), (3, 2, 9), {"stride": 5, "padding": 4}),
}
for mode in ("reflect", "replicate", "circular", "symmetric"):
    CASES_1D[mode] = ((2, 3, 9), (4, 3, 5), {"padding": 2, "padding_mode": mode})
    CASES_1D[f"{mode} causal"] = (
        (2, 3, 9),
        (4, 3, 3),
        {"padding": "causal", "padding_mode": mode, "dilation": 2},
    )
for size in SIZES:
    CASES_1D[f"length {size}"] = ((2, 3, size), (5, 3, 3), {"padding": 1})
ALL = {**{f"2d {k}": v for k, v in CASES.items()}, **{f"1d {k}": v for k, v in CASES_1D.items()}}
SOME = ("2d 3x3", "2d asymmetric strided", "2d groups 2", "2d depthwise", "2d 1x1", "1d dilated")


def functions(module, x_shape):
    axes = len(x_shape) - 2
    return getattr(module, f"conv{axes}d"), getattr(module, f"conv{axes}d_backward")


@cache
def problem(name):
    """(x, weight, bias, grad_output), (y, grad_x, grad_weight, grad_bias), arguments."""
    x_shape, w_shape, arguments = ALL[name]
    rng = np.random.default_rng(list(name.encode()))
    forward, backward = functions(R, x_shape)
    x, w, b = (integers(rng, shape) for shape in (x_shape, w_shape, w_shape[:1]))
    y = forward(x, w, b, **arguments)
    g = integers(rng, y.shape)
    return (x, w, b, g), (y, *backward(g, x, w, **arguments)), arguments


def follows(array, x, layout):
    """Whether an output is in the format of x; an array of one channel or pixel is in both."""
    both = any(a.shape[1] == 1 or a[0, 0].size == 1 for a in (array, x))
    return both or is_channels_last(array) == (layout == "channels_last")


def cast(arrays, dtype):
    return tuple(a.astype(dtype) for a in arrays)


def fill_scratch_with_nan(name, *arrays):
    """The same call on NaN: the scratch memory that the next call takes is full of NaN."""
    forward, backward = functions(F, arrays[0].shape)
    x, w, g = (np.full_like(a, np.nan) for a in arrays)
    forward(x, w, algorithm="direct", **ALL[name][2])
    backward(g, x, w, algorithm="direct", **ALL[name][2])


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
def test_exact(isa, name, dtype, layout):
    inputs, expected, arguments = problem(name)
    x, w, b, g = cast(inputs, dtype)
    x, g = to_format(x, layout), to_format(g, layout)
    forward, backward = functions(F, x.shape)
    fill_scratch_with_nan(name, x, w, g)
    y = forward(x, w, b, algorithm="direct", **arguments)
    grad_x, grad_w, grad_b = backward(g, x, w, algorithm="direct", **arguments)
    assert y.dtype == grad_x.dtype == grad_w.dtype == grad_b.dtype == dtype
    for result, want in zip((y, grad_x, grad_w, grad_b), expected, strict=True):
        np.testing.assert_array_equal(result, want)
    assert follows(y, x, layout)
    assert follows(grad_x, x, layout)


@pytest.mark.parametrize("layout_g", ALL_FORMATS)
@pytest.mark.parametrize("layout", ALL_FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_mixed_layouts(isa, name, dtype, layout, layout_g):
    """Same bits for every pair of formats of input and grad_output, weights in Fortran order."""
    inputs, _, arguments = problem(name)
    rng = np.random.default_rng(1)
    x, w, b, g = (rng.standard_normal(a.shape).astype(dtype) for a in inputs)
    forward, backward = functions(F, x.shape)
    want = forward(x, w, b, **arguments), *backward(g, x, w, **arguments)
    x, g, w = to_format(x, layout), to_format(g, layout_g), np.asfortranarray(w)
    got = forward(x, w, b, **arguments), *backward(g, x, w, **arguments)
    for result, expected in zip(got, want, strict=True):
        assert same_bits(result, expected)


@cache
def normal_problem(name, dtype):
    """Arrays of normal data, their results in wider floats, and the sums of magnitudes."""
    inputs, _, arguments = problem(name)
    rng = np.random.default_rng(2)
    arrays = tuple(rng.standard_normal(a.shape).astype(dtype) for a in inputs)
    forward, backward = functions(R, inputs[0].shape)

    def reference(x, w, b, g):
        return forward(x, w, b, **arguments), *backward(g, x, w, **arguments)

    wide = cast(arrays, np.float64 if dtype == np.float32 else np.longdouble)
    return arrays, reference(*wide), reference(*map(abs, wide)), arguments


NORMAL = (
    "2d 3x3",
    "2d many channels",
    "2d depthwise",
    "2d groups 3 strided",
    "2d stem 7x7 stride 2",
    "2d prime channels",
    "1d strided",
    "1d k3",
    "1d long",
)


@pytest.mark.parametrize("algorithm", ["direct", "auto"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NORMAL)
def test_rounding_error(isa, name, dtype, algorithm):
    """Within tolerance(terms) of wider floats; "auto" may choose Winograd and has 8 times that."""
    (x, w, b, g), want, sizes, arguments = normal_problem(name, dtype)
    forward, backward = functions(F, x.shape)
    arguments = {**arguments, "algorithm": algorithm}
    got = forward(x, w, b, **arguments), *backward(g, x, w, **arguments)
    positions = g.shape[0] * g[0, 0].size
    all_terms = w[0].size + 1, w.size // w.shape[1], positions, positions
    for result, expected, size, terms in zip(got, want, sizes, all_terms, strict=True):
        error, bound = abs(result - expected), tolerance(terms, dtype) * size
        if algorithm == "direct":
            assert (error <= bound).all()
        else:
            assert error.max() <= 8 * bound.max()


@pytest.mark.parametrize("layout", ALL_FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_out(isa, name, dtype, layout):
    """Every element of out is written, it is returned, and nothing between its elements is."""
    inputs, expected, arguments = problem(name)
    x, w, b, _ = cast(inputs, dtype)
    forward, _ = functions(F, x.shape)
    for x_layout in FORMATS:
        out = poisoned(*expected[0].shape, dtype=dtype, layout=layout)
        result = forward(to_format(x, x_layout), w, b, algorithm="direct", out=out, **arguments)
        assert result is out
        np.testing.assert_array_equal(out, expected[0])
        if layout == "strided":
            around = out.base.copy()
            around[(slice(1, None, 2),) * out.ndim] = np.nan
            assert np.isnan(around).all()


@pytest.mark.parametrize("name", SOME)
def test_out_unbatched(name):
    inputs, expected, arguments = problem(name)
    x, w, b, _ = inputs
    forward, _ = functions(F, x.shape)
    out = poisoned(*expected[0].shape[1:], dtype=np.float64)
    assert forward(x[0], w, b, algorithm="direct", out=out, **arguments) is out
    np.testing.assert_array_equal(out, expected[0][0])


@pytest.mark.parametrize("argument", ["input", "weight", "bias", "grad_output"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_any_memory(isa, name, dtype, argument):
    """Strided, reversed, Fortran, byte-swapped, read-only and unaligned arrays; none is written."""
    inputs, expected, arguments = problem(name)
    arrays = dict(zip(("input", "weight", "bias", "grad_output"), cast(inputs, dtype), strict=True))
    forward, backward = functions(F, arrays["input"].shape)
    if argument in ("weight", "bias"):
        choices = [v for v in variants(arrays[argument]) if v[0] != "channels-last"]
    else:
        choices = variants(arrays[argument])
    for kind, array in choices:
        before = array.copy()
        x, w, b, g = ({**arrays, argument: array}).values()
        y = forward(x, w, b, algorithm="direct", **arguments)
        grads = backward(g, x, w, algorithm="direct", **arguments)
        for result, want in zip((y, *grads), expected, strict=True):
            np.testing.assert_array_equal(result, want, err_msg=kind)
            assert result.dtype == dtype
            assert result.dtype.isnative
        assert same_bits(array, before), kind


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast_inputs(isa, rng, dtype):
    """Stride 0 along any axis; an expanded grad_output is what the gradient of a mean is."""
    x = np.broadcast_to(integers(rng, (1, 5, 1, 9), dtype), (3, 5, 7, 9))
    w = np.broadcast_to(integers(rng, (1, 1, 3, 1), dtype), (4, 5, 3, 3))
    b = np.broadcast_to(dtype(2), (4,))
    g = np.broadcast_to(dtype(3), (3, 4, 7, 9))
    y = F.conv2d(x, w, b, padding=1, algorithm="direct")
    np.testing.assert_array_equal(y, R.conv2d(x.copy(), w.copy(), b.copy(), padding=1))
    grads = F.conv2d_backward(g, x, w, padding=1, algorithm="direct")
    wants = R.conv2d_backward(g.copy(), x.copy(), w.copy(), padding=1)
    for result, want in zip(grads, wants, strict=True):
        np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", SOME)
def test_inputs_are_not_written(isa, name, layout):
    inputs, _, arguments = problem(name)
    x, w, b, g = (to_format(a, layout) if a.ndim > 2 else a.copy() for a in inputs)
    for array in (x, w, b, g):
        array.flags.writeable = False
    forward, backward = functions(F, x.shape)
    forward(x, w, b, **arguments)
    backward(g, x, w, **arguments)
    for array, before in zip((x, w, b, g), inputs, strict=True):
        assert same_bits(array, before)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_unbatched(isa, name, dtype, layout):
    inputs, expected, arguments = problem(name)
    x, w, b, g = cast(inputs, dtype)
    x, g = to_format(x, layout)[0], to_format(g, layout)[0]
    forward, backward = functions(F, inputs[0].shape)
    reference = functions(R, inputs[0].shape)[1]
    y = forward(x, w, b, algorithm="direct", **arguments)
    np.testing.assert_array_equal(y, expected[0][0])
    grads = backward(g, x, w, algorithm="direct", **arguments)
    for result, want in zip(grads, reference(g, x, w, **arguments), strict=True):
        assert result.shape == want.shape
        np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_empty_batch(isa, name, dtype, layout):
    """No images: an empty output and input gradient, zero gradients of weight and bias."""
    (x, w, b, g), _, arguments = problem(name)
    x, g = to_format(x[:0].astype(dtype), layout), to_format(g[:0].astype(dtype), layout)
    w, b = cast((w, b), dtype)
    forward, backward = functions(F, x.shape)
    y = forward(x, w, b, **arguments)
    assert y.shape == g.shape
    assert y.dtype == dtype
    grad_x, grad_w, grad_b = backward(g, x, w, **arguments)
    assert grad_x.shape == x.shape
    np.testing.assert_array_equal(grad_w, np.zeros_like(w))
    np.testing.assert_array_equal(grad_b, np.zeros_like(b))


@pytest.mark.parametrize("mask", list(np.ndindex(2, 2, 2)), ids=str)
@pytest.mark.parametrize("name", ["2d 3x3", "2d depthwise", "2d reflect", "1d k3"])
def test_output_mask(name, mask):
    (x, w, _, g), expected, arguments = problem(name)
    grads = functions(F, x.shape)[1](
        g, x, w, algorithm="direct", output_mask=tuple(map(bool, mask)), **arguments
    )
    for grad, want, wanted in zip(grads, expected[1:], mask, strict=True):
        assert (grad is not None) == bool(wanted)
        if wanted:
            np.testing.assert_array_equal(grad, want)


@pytest.mark.parametrize("name", SOME)
def test_no_bias_is_zero_bias(isa, name):
    (x, w, b, _), expected, arguments = problem(name)
    y = functions(F, x.shape)[0](x, w, algorithm="direct", **arguments)
    np.testing.assert_array_equal(y + b.reshape(-1, *[1] * (x.ndim - 2)), expected[0])


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pads", [0, 1, ((2, 0), (1, 3))], ids=str)
def test_adjoint(isa, rng, dtype, layout, stride, pads):
    """<conv(x, w), g> == <x, grad_x> == <w, grad_w>, exactly."""
    x = to_format(integers(rng, (2, 5, 8, 9), dtype, 2), layout)
    w = integers(rng, (7, 5, 3, 2), dtype, 2)
    y = F.conv2d(x, w, None, stride, pads, algorithm="direct")
    g = to_format(integers(rng, y.shape, dtype, 2), layout)
    grad_x, grad_w, grad_b = F.conv2d_backward(g, x, w, stride, pads, algorithm="direct")
    product = (y.astype(float) * g).sum()
    assert product == (x.astype(float) * grad_x).sum() == (w.astype(float) * grad_w).sum()
    assert np.array_equal(grad_b, g.sum(axis=(0, 2, 3), dtype=float))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (8, 1), (17, 33)])
def test_special_values_stay_where_they_belong(isa, rng, dtype, layout, channels):
    """One NaN and one infinity in the input reach the windows that hold them and no others."""
    c_in, c_out = channels
    x = to_format(integers(rng, (2, c_in, 9, 12), dtype), layout)
    w = integers(rng, (c_out, c_in, 3, 3), dtype)
    w[w == 0] = 1
    x[0, 0, 4, 5], x[1, -1, 0, 11] = np.nan, np.inf
    y = F.conv2d(x, w, padding=1, algorithm="direct")
    touched = np.zeros((2, 9, 12), bool)
    touched[0, 3:6, 4:7] = touched[1, :2, 10:] = True
    np.testing.assert_array_equal(~np.isfinite(y), np.repeat(touched[:, None], c_out, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormals_are_kept(isa, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.full((1, 2, 5, 6), tiny, dtype)
    y = F.conv2d(x, np.ones((3, 2, 2, 2), dtype), algorithm="direct")
    np.testing.assert_array_equal(y, np.full((1, 3, 4, 5), 8 * tiny))


def test_two_dimensions_of_height_one_are_one(isa, rng):
    x, w = integers(rng, (2, 6, 31)), integers(rng, (4, 3, 5))
    y = F.conv1d(x, w, None, 2, 3, 2, 2)
    flat = F.conv2d(x[:, :, None], w[:, :, None], None, (1, 2), (0, 3), (1, 2), 2)
    assert same_bits(y, flat[:, :, 0])


@pytest.mark.parametrize("padding", [0, 3, ((3, 1), (3, 5))], ids=str)
@pytest.mark.parametrize(("size", "stride"), [(7, 2), (9, 3), (11, 4)])
def test_strides_by_phases(isa, rng, size, stride, padding):
    """A tall image, whose phases do not fit into the memory for them, and widths of all kinds."""
    for height, width in ((1101, 320), (120, 123), (119, 124)):
        x = to_format(
            rng.standard_normal((1, 3, height, width)).astype(np.float32), "channels_last"
        )
        w = rng.standard_normal((24, 3, size, size)).astype(np.float32)
        found = fastconv.explain_conv2d(x.shape, w.shape, stride, padding)
        assert found.algorithm == "winograd"
        assert found.scratch_bytes < 4 << 20
        b = rng.standard_normal(24).astype(np.float32)
        y, wanted = (F.conv2d(x, w, b, stride, padding, algorithm=a) for a in ("auto", "direct"))
        g = to_format(rng.standard_normal(y.shape).astype(np.float32), "channels_last")
        got, exact = (
            F.conv2d_backward(g, x, w, stride, padding, algorithm=a) for a in ("auto", "direct")
        )
        for a, e in zip((y, *got), (wanted, *exact), strict=True):
            assert np.abs(a - e).max() < 1e-4 * np.sqrt((e.astype(float) ** 2).mean())
