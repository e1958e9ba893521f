"""One problem for every driver, each with enough work for several tasks; shared by the tests of
threads, batches, formats and memory."""

import numpy as np
from helpers import to_format

import fastconv.functional as F

# input shape, weight shape, arguments
PROBLEMS = {
    "3x3": ((6, 17, 20, 21), (33, 17, 3, 3), {"padding": 1}),
    "3x3 many channels": ((3, 96, 9, 10), (40, 96, 3, 3), {"padding": 1}),
    "3x3 direct": ((6, 17, 20, 21), (33, 17, 3, 3), {"padding": 1, "algorithm": "direct"}),
    "3x3 winograd": ((6, 5, 21, 19), (7, 5, 3, 3), {"padding": 1, "algorithm": "winograd"}),
    "4x4 winograd": ((6, 17, 21, 19), (33, 17, 4, 4), {"algorithm": "winograd"}),
    "5x5 winograd": ((6, 9, 13, 14), (17, 9, 5, 5), {"padding": 2, "algorithm": "winograd"}),
    "1x3 winograd": ((6, 17, 5, 43), (33, 17, 1, 3), {"padding": (0, 1), "algorithm": "winograd"}),
    "5x1 winograd": ((6, 9, 13, 14), (17, 9, 5, 1), {"padding": 2, "algorithm": "winograd"}),
    "1-D winograd": ((6, 33, 401), (40, 33, 4), {"padding": 2, "algorithm": "winograd"}),
    "2x2 winograd": ((6, 17, 20, 21), (33, 17, 2, 2), {"padding": 1, "algorithm": "winograd"}),
    "strided winograd": (
        (6, 40, 20, 21),
        (33, 40, 3, 3),
        {"stride": 2, "padding": 1, "algorithm": "winograd"},
    ),
    "4x4 strided winograd": (
        (6, 17, 20, 22),
        (33, 17, 4, 4),
        {"stride": 2, "padding": 1, "algorithm": "winograd"},
    ),
    "7x7 winograd": ((6, 9, 13, 14), (17, 9, 7, 7), {"padding": 3, "algorithm": "winograd"}),
    "3x5 winograd": ((6, 17, 12, 19), (33, 17, 3, 5), {"padding": 2, "algorithm": "winograd"}),
    "1-D winograd of pieces": ((6, 33, 201), (40, 33, 9), {"padding": 4, "algorithm": "winograd"}),
    "5x5 strided winograd": (
        (6, 17, 20, 21),
        (33, 17, 5, 5),
        {"stride": 2, "padding": 2, "algorithm": "winograd"},
    ),
    "dilated winograd": (
        (6, 17, 24, 23),
        (33, 17, 3, 3),
        {"dilation": (2, 5), "padding": 4, "algorithm": "winograd"},
    ),
    "1-D dilated winograd": ((6, 33, 401), (40, 33, 2), {"dilation": 64, "algorithm": "winograd"}),
    "1-D strided winograd": (
        (6, 33, 401),
        (40, 33, 9),
        {"stride": 2, "padding": 4, "algorithm": "winograd"},
    ),
    "1-D winograd of stride 8": (
        (6, 33, 401),
        (40, 33, 16),
        {"stride": 8, "padding": 4, "algorithm": "winograd"},
    ),
    "7x7 winograd of stride 3": (
        (6, 17, 40, 41),
        (33, 17, 7, 7),
        {"stride": 3, "padding": 3, "algorithm": "winograd"},
    ),
    "3x3 heavy weight": ((3, 160, 7, 7), (160, 160, 3, 3), {"padding": 1}),
    "1x1": ((6, 33, 13, 14), (65, 33, 1, 1), {}),
    "1x1 of many pixels": ((6, 64, 19, 20), (48, 64, 1, 1), {}),
    "1x1 heavy weight": ((3, 512, 6, 7), (200, 512, 1, 1), {}),
    "1x1 heavy weight, strided": ((3, 520, 9, 9), (200, 520, 1, 1), {"stride": 2}),
    "stem": ((3, 3, 45, 47), (19, 3, 7, 7), {"stride": 2, "padding": 3}),
    "7x7 strided": ((5, 8, 40, 37), (24, 8, 7, 7), {"stride": 2, "padding": 3}),
    "11x11 strided": ((3, 3, 90, 87), (40, 3, 11, 11), {"stride": 4, "padding": 2}),
    "strided": ((6, 17, 20, 21), (9, 17, 3, 3), {"stride": 2, "padding": 1}),
    "3x3 dilated": ((6, 16, 24, 23), (16, 16, 3, 3), {"dilation": 4, "padding": 4}),
    "groups": ((6, 18, 15, 16), (24, 6, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise": ((6, 70, 20, 21), (70, 1, 3, 3), {"groups": 70, "padding": 1}),
    "depthwise, few": ((6, 3, 40, 41), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise strided": (
        (6, 33, 20, 21),
        (33, 1, 5, 5),
        {"groups": 33, "padding": 2, "stride": 2},
    ),
    "one channel": ((6, 1, 40, 41), (8, 1, 5, 5), {}),
    "few rows": ((6, 32, 2, 67), (40, 32, 3, 3), {"padding": 1}),
    "8x8 strided, dilated": (
        (5, 21, 30, 29),
        (21, 21, 8, 8),
        {"stride": 4, "dilation": 2, "padding": 4},
    ),
    "1-D long kernel": ((5, 16, 900), (16, 16, 301), {"stride": 100}),
    "1-D long row": ((5, 3, 700), (5, 3, 41), {}),
    "1-D": ((6, 9, 401), (17, 9, 5), {"padding": 2}),
    "1-D strided": ((6, 3, 401), (40, 3, 9), {"stride": 4}),
    "one output": ((6, 8, 40, 41), (1, 8, 5, 5), {"padding": 2}),
    "many outputs": ((3, 5, 4, 5), (300, 5, 2, 2), {}),
    "one pixel": ((6, 300, 1, 1), (70, 300, 1, 1), {}),
    "dilated row": ((6, 16, 1, 500), (16, 16, 1, 2), {"dilation": (1, 64), "padding": (0, 64)}),
    "patches": ((6, 3, 64, 80), (70, 3, 16, 16), {"stride": 16}),
    "whole image": ((6, 70, 5, 4), (33, 70, 5, 4), {}),
    "image of one row": ((6, 9, 1, 200), (17, 9, 5, 5), {"padding": 2}),
    "groups of few": ((6, 66, 20, 21), (66, 2, 3, 3), {"groups": 33, "padding": 1}),
    "small images": ((30, 9, 5, 6), (33, 9, 3, 3), {"stride": 2, "padding": 1}),
    "wide padding": ((6, 9, 9, 40), (33, 9, 3, 3), {"dilation": 12, "padding": 12}),
    "depthwise dilated": (
        (6, 70, 20, 21),
        (70, 1, 3, 3),
        {"groups": 70, "padding": 2, "dilation": 2},
    ),
    "depthwise 9x1": ((6, 70, 20, 21), (70, 1, 9, 1), {"groups": 70, "padding": (4, 0)}),
    "groups of 4": ((6, 68, 20, 21), (68, 4, 3, 3), {"groups": 17, "padding": 1}),
    "groups of 4, 5x5": ((6, 36, 20, 21), (36, 4, 5, 5), {"groups": 9, "padding": 2, "stride": 2}),
    "groups of few, grown": ((6, 33, 20, 21), (99, 1, 3, 3), {"groups": 33, "padding": 1}),
    "few outputs dilated": ((6, 17, 20, 21), (3, 17, 3, 3), {"padding": 12, "dilation": 12}),
    "few outputs of many inputs": ((6, 40, 20, 21), (3, 40, 5, 5), {"padding": 4}),
    "few outputs in long rows": ((6, 64, 1, 3000), (1, 64, 1, 40), {}),
    "reflect": ((6, 9, 14, 15), (9, 9, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
}
TRANSPOSED = {
    "transposed": ((6, 17, 10, 11), (17, 9, 4, 4), {"stride": 2, "padding": 1}),
    "transposed, dilated": (
        (6, 32, 1, 3),
        (32, 64, 4, 4),
        {"stride": 2, "dilation": 2, "padding": 3, "output_padding": 1},
    ),
    "transposed patches": ((6, 17, 10, 11), (17, 3, 4, 4), {"stride": 5}),
    "transposed, few outputs": ((6, 40, 10, 11), (40, 3, 7, 7), {"stride": 2, "padding": 3}),
    "transposed, heavy weight": ((3, 256, 2, 2), (256, 64, 4, 4), {"stride": 2}),
    "transposed, phases of threads": ((1, 96, 16, 16), (96, 96, 4, 4), {"stride": 2, "padding": 1}),
    "transposed, parts of phases": ((1, 64, 12, 12), (64, 128, 4, 4), {"stride": 2, "padding": 1}),
    "transposed, parts of dilated phases": (
        (1, 64, 48),
        (64, 128, 8),
        {"stride": 2, "dilation": 3},
    ),
    "transposed pixel": ((6, 40, 1, 1), (40, 33, 5, 5), {}),
    "transposed 1-D": ((6, 9, 101), (9, 8, 4), {"stride": 2}),
    "transposed depthwise": ((6, 33, 10, 11), (33, 1, 3, 3), {"stride": 2, "groups": 33}),
}


def functions(name):
    """The forward function of a problem, and its backward."""
    one = len({**PROBLEMS, **TRANSPOSED}[name][0]) == 3
    kind = ("conv_transpose" if name in TRANSPOSED else "conv") + ("1d" if one else "2d")
    return getattr(F, kind), getattr(F, f"{kind}_backward")


def arrays(name, dtype, layout="channels_first"):
    """x, weight, bias, grad_output and the arguments."""
    x_shape, w_shape, arguments = {**PROBLEMS, **TRANSPOSED}[name]
    rng = np.random.default_rng(list(name.encode()))
    x, w = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
    y = functions(name)[0](x, w, **arguments)
    b, g = (rng.standard_normal(s).astype(dtype) for s in (y.shape[1], y.shape))
    return to_format(x, layout), w, b, to_format(g, layout), arguments


def run(name, x, w, b, g, arguments):
    forward, backward = functions(name)
    return forward(x, w, b, **arguments), *backward(g, x, w, **arguments)


# ---- everything but convolution ----------------------------------------------------------------


def _max_pool(x):
    return F.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)


def _statistics(x):
    rng = np.random.default_rng(x.shape[1])
    mean, shift, weight = rng.standard_normal((3, x.shape[1])).astype(x.dtype)
    return mean, weight**2 + 1, weight, shift


def _normalise_batch(x):
    mean, var, weight, shift = _statistics(x)
    return F.batch_norm(x, mean, var, weight, shift, training=True), mean, var


# forward(x) -> arrays, backward(grad_output, x) -> arrays; the first of each belongs to the images
PER_IMAGE = {
    "max_pool2d": (
        _max_pool,
        lambda g, x: F.max_pool2d_backward(g, _max_pool(x)[1], x.shape),
    ),
    "avg_pool2d": (
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1),
        lambda g, x: F.avg_pool2d_backward(g, x.shape, (3, 2), 2, 1),
    ),
    "global average": (
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda g, x: F.adaptive_avg_pool2d_backward(g, x.shape),
    ),
    "adaptive_max_pool2d": (
        lambda x: F.adaptive_max_pool2d(x, (3, 4), return_indices=True),
        lambda g, x: F.adaptive_max_pool2d_backward(
            g, F.adaptive_max_pool2d(x, (3, 4), return_indices=True)[1], x.shape
        ),
    ),
    "batch_norm eval": (
        lambda x: F.batch_norm(x, *_statistics(x)),
        lambda g, x: F.batch_norm_backward(g, x, *_statistics(x))[0],
    ),
    "pad": (
        lambda x: F.pad(x, (1, 2, 3, 0), "reflect"),
        lambda g, x: F.pad_backward(g, x.shape, (1, 2, 3, 0), "reflect"),
    ),
    **{
        name: (getattr(F, name), lambda g, x, name=name: getattr(F, f"{name}_backward")(g, x))
        for name in ("relu", "leaky_relu", "relu6", "sigmoid", "tanh", "gelu", "silu")
    },
}
PER_BATCH = {
    "batch_norm": (
        _normalise_batch,
        lambda g, x: F.batch_norm_backward(g, x, *_statistics(x), training=True),
    ),
    "batch_norm of one pixel": (
        lambda x: _normalise_batch(x[:, :, 0, 0]),
        lambda g, x: F.batch_norm_backward(
            g, x[:, :, 0, 0], *_statistics(x[:, :, 0, 0]), training=True
        ),
    ),
}


def together(*results):
    """The arrays of several results, in one list."""
    arrays = []
    for result in results:
        arrays += result if isinstance(result, (tuple, list)) else [result]
    return arrays
