"""Zeros that are left of sums like -1e-60 have one sign, whether or not products with padding are
among them: depthwise and grouped convolutions, and few outputs (dense ones: test_conv_in_place.py).
"""

import numpy as np
import pytest
from helpers import DTYPES, same_bits, to_format

import fastconv
import fastconv.functional as F

# shapes of x and of the weight, options
CASES = {
    "3x3": ((2, 19, 7, 8), (19, 1, 3, 3), {"padding": 1}),
    "3x3 of whole vectors": ((1, 32, 14, 14), (32, 1, 3, 3), {"padding": 1}),
    "3x3, stride 2": ((1, 35, 13, 22), (35, 1, 3, 3), {"padding": 1, "stride": 2}),
    "7x7": ((1, 17, 9, 11), (17, 1, 7, 7), {"padding": 3}),
    "5x5, stride 1 and 3": ((2, 16, 8, 23), (16, 1, 5, 5), {"padding": 2, "stride": (1, 3)}),
    "5x5 in tiles of 7": ((1, 35, 9, 28), (35, 1, 5, 5), {"padding": 2}),
    "pixels 1 KiB apart": ((1, 256, 6, 9), (256, 1, 5, 5), {"padding": 2}),
    "dilated": ((1, 33, 40, 3), (33, 1, 3, 3), {"padding": ((2, 2), (2, 3)), "dilation": 2}),
    "taller than x": ((1, 16, 3, 9), (16, 1, 9, 3), {"padding": (6, 1)}),
    "few": ((2, 3, 12, 13), (3, 1, 3, 3), {"padding": 1}),
    "a line": ((2, 24, 40), (24, 1, 5), {"padding": 2}),
    "8 outputs of one input": ((1, 4, 31, 31), (32, 1, 3, 3), {"padding": (1, 2), "stride": 2}),
    "2 inputs": ((2, 32, 12, 12), (16, 2, 3, 3), {"padding": 1}),
    "2 inputs, 2 outputs": ((1, 32, 12, 12), (32, 2, 3, 3), {"padding": 1}),
    "4 inputs, 2 outputs": ((3, 8, 20, 20), (4, 4, 2, 2), {"dilation": 2}),
    "2 groups of 4 outputs": ((2, 2, 16, 17), (8, 1, 5, 5), {"padding": 4, "stride": 4}),
    "16 groups of 2 inputs": ((1, 32, 13, 9), (32, 2, 3, 5), {"padding": 2, "stride": (2, 1)}),
    "one tap": ((1, 3, 12, 50), (4, 3, 1, 1), {"padding": ((0, 1), (0, 0)), "stride": 3}),
    "one tap of 7": (
        (1, 16, 33, 3),
        (3, 16, 1, 7),
        {"padding": ((0, 0), (0, 19)), "stride": (2, 3), "dilation": (1, 3)},
    ),
    "few of many": ((1, 64, 9, 20), (3, 64, 3, 3), {"padding": 1}),
    "few of many, stride 2": ((1, 40, 9, 20), (2, 40, 3, 3), {"padding": 1, "stride": 2}),
}
LARGE_PADDING = ("taller than x", "one tap", "one tap of 7")  # leaves nothing of some, transposed
# A product of two of them is half of the least number on average, or less.
SCALES = {np.float32: 1e-23, np.float64: 1e-162}


def convolution(name, transposed, values):
    """A function from memory formats of x and grad_y, and images, to y and the gradients."""
    shape, w_shape, options = CASES[name]
    options = {**options, "groups": shape[1] // w_shape[1]}
    if transposed:
        shape = (shape[0], w_shape[0], *shape[2:])
        if name in LARGE_PADDING:
            del options["padding"]
    function = f"conv{'_transpose' * transposed}{len(shape) - 2}d"
    forward, backward = getattr(F, function), getattr(F, function + "_backward")
    x, w = values(shape, -1), values(w_shape, 1)
    g = values(forward(x, w, **options).shape, -1)

    def call(x_format="channels_first", g_format="channels_first", images=slice(None)):
        given, gradient = to_format(x, x_format)[images], to_format(g, g_format)[images]
        return forward(given, w, **options), *backward(gradient, given, w, **options)[:2]

    return call, shape[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_signs(isa, rng, name, transposed, dtype):
    """Of formats, threads, and images by themselves."""
    scale = SCALES[dtype]
    for values in (
        lambda size, sign: (scale * rng.standard_normal(size)).astype(dtype),
        lambda size, sign: np.full(size, 1e-4 * scale * sign, dtype),
    ):
        call, batch = convolution(name, transposed, values)
        with fastconv.num_threads(1):
            wanted = call()
        for formats in (("channels_last", "channels_last"), ("strided", "channels_last")):
            for threads in (1, 2, 5):
                with fastconv.num_threads(threads):
                    assert all(map(same_bits, call(*formats), wanted))
        for i in range(batch):
            image = slice(i, i + 1)
            y, grad_x, _ = call("channels_last", images=image)
            assert same_bits(y, wanted[0][image])
            assert same_bits(grad_x, wanted[1][image])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bias_of_minus_zero_with_padding(isa, dtype):
    """Written channels-first or channels-last: the sums of planes would see products with zeros."""
    tiny = {np.float32: 1e-38, np.float64: 1e-308}[dtype]
    x, w = np.full((1, 1, 6, 34), -tiny, dtype), np.full((8, 1, 9, 9), tiny, dtype)
    for bias in (np.full(8, -0.0, dtype), np.array([0, -0.0] * 4, dtype)):
        y = F.conv2d(x, w, bias, padding=4, stride=(1, 2))
        out = to_format(np.empty_like(y), "channels_last")
        F.conv2d(x, w, bias, padding=4, stride=(1, 2), out=out)
        assert same_bits(y, out)
