"""Every function on arrays in other memory: the bits of contiguous arrays, and no input changes.

Ids as in test_corner_cases.py: read-only (cython/cython#1605), byte-swapped, strided, reversed,
Fortran-ordered, unaligned and channels-last arrays have each broken some library.
"""

import numpy as np
import pytest
from array_variants import variants
from helpers import same_bits, to_format

import fastconv.functional as F

pytestmark = pytest.mark.usefixtures("corner_case")

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape)


IMAGE, WEIGHT, BIAS, MAPS = normal(2, 4, 6, 7), normal(6, 2, 3, 3), normal(6), normal(2, 6, 4, 5)
SIGNAL, TAPS, LINE = normal(2, 4, 9), normal(6, 2, 3), normal(2, 6, 7)
UP, UPLINE = normal(4, 3, 2, 2), normal(4, 3, 2)
POOLED, POOLED1 = normal(2, 4, 3, 3), normal(2, 4, 4)
INDICES, INDICES1 = rng.integers(0, 42, POOLED.shape), rng.integers(0, 8, POOLED1.shape)
CHANNELS = [normal(4), abs(normal(4)), normal(4), normal(4)]
LOGITS, CLASSES = normal(3, 5, 4), rng.integers(0, 5, (3, 4))
GRADS = {"input_shape": IMAGE.shape, "pad": (1, 2, 2, 0)}
LOSSES = {"reduction": "none"}
ACTIVATIONS = "relu", "leaky_relu", "relu6", "sigmoid", "tanh", "gelu", "silu"
ALONG = {"dim": -1}  # of softmax

# name of the function, arrays, the rest
CALLS = [
    ("conv2d", (IMAGE, WEIGHT, BIAS), {"groups": 2}),
    ("conv2d", (IMAGE, WEIGHT, BIAS), {"groups": 2, "padding": 2, "padding_mode": "reflect"}),
    ("conv2d_backward", (MAPS, IMAGE, WEIGHT), {"groups": 2}),
    ("conv1d", (SIGNAL, TAPS, BIAS), {"groups": 2}),
    ("conv1d_backward", (LINE, SIGNAL, TAPS), {"groups": 2}),
    ("conv_transpose2d", (IMAGE, UP, normal(3)), {"stride": 2}),
    ("conv_transpose2d_backward", (normal(2, 3, 12, 14), IMAGE, UP), {"stride": 2}),
    ("conv_transpose1d", (SIGNAL, UPLINE, normal(3)), {"stride": 2}),
    ("conv_transpose1d_backward", (normal(2, 3, 18), SIGNAL, UPLINE), {"stride": 2}),
    ("max_pool2d", (IMAGE,), {"kernel_size": 2, "return_indices": True}),
    ("max_pool2d_backward", (POOLED, INDICES), {"input_shape": IMAGE.shape}),
    ("max_pool1d", (SIGNAL,), {"kernel_size": 2, "return_indices": True}),
    ("max_pool1d_backward", (POOLED1, INDICES1), {"input_shape": SIGNAL.shape}),
    ("avg_pool2d", (IMAGE,), {"kernel_size": 2}),
    ("avg_pool2d_backward", (POOLED,), {"input_shape": IMAGE.shape, "kernel_size": 2}),
    ("avg_pool1d", (SIGNAL,), {"kernel_size": 2}),
    ("avg_pool1d_backward", (POOLED1,), {"input_shape": SIGNAL.shape, "kernel_size": 2}),
    ("adaptive_avg_pool2d", (IMAGE,), {"output_size": 4}),
    ("adaptive_avg_pool2d_backward", (POOLED,), {"input_shape": IMAGE.shape}),
    ("adaptive_avg_pool1d", (SIGNAL,), {"output_size": 4}),
    ("adaptive_avg_pool1d_backward", (POOLED1,), {"input_shape": SIGNAL.shape}),
    ("adaptive_max_pool2d", (IMAGE,), {"output_size": 4, "return_indices": True}),
    ("adaptive_max_pool2d_backward", (POOLED, INDICES), {"input_shape": IMAGE.shape}),
    ("adaptive_max_pool1d", (SIGNAL,), {"output_size": 4, "return_indices": True}),
    ("adaptive_max_pool1d_backward", (POOLED1, INDICES1), {"input_shape": SIGNAL.shape}),
    ("max_unpool2d", (POOLED, INDICES), {"kernel_size": 2, "output_size": (6, 7)}),
    ("max_unpool2d_backward", (IMAGE, INDICES), {}),
    ("max_unpool1d", (POOLED1, INDICES1), {"kernel_size": 2}),
    ("max_unpool1d_backward", (SIGNAL, INDICES1), {}),
    *[("pad", (IMAGE,), {"pad": (1, 2, 2, 0), "mode": mode}) for mode in ("constant", "circular")],
    *[
        ("pad_backward", (normal(2, 4, 8, 10),), {**GRADS, "mode": mode})
        for mode in ("constant", "reflect", "replicate", "circular", "symmetric")
    ],
    ("unfold", (IMAGE,), {"kernel_size": 2}),
    ("unfold_backward", (normal(2, 16, 30),), {"input_shape": IMAGE.shape, "kernel_size": 2}),
    ("fold", (normal(2, 16, 30),), {"output_size": (6, 7), "kernel_size": 2}),
    ("fold_backward", (IMAGE,), {"output_size": (6, 7), "kernel_size": 2}),
    ("linear", (normal(3, 4), normal(5, 4), normal(5)), {}),
    ("linear_backward", (normal(3, 5), normal(3, 4), normal(5, 4)), {}),
    ("batch_norm", (IMAGE, *CHANNELS), {}),
    ("batch_norm_backward", (IMAGE + 1, IMAGE, *CHANNELS), {"training": True}),
    *[
        call
        for name in ACTIVATIONS
        for call in ((name, (IMAGE,), {}), (name + "_backward", (IMAGE + 1, IMAGE), {}))
    ],
    *[
        call
        for name in ("softmax", "log_softmax")
        for call in ((name, (IMAGE,), ALONG), (name + "_backward", (IMAGE + 1, IMAGE), ALONG))
    ],
    ("cross_entropy", (LOGITS, CLASSES, abs(normal(5))), {"label_smoothing": 0.1}),
    ("cross_entropy_backward", (normal(3, 4), LOGITS, CLASSES, abs(normal(5))), LOSSES),
    ("cross_entropy", (LOGITS, abs(normal(3, 5, 4))), {}),
    ("nll_loss", (LOGITS, CLASSES), LOSSES),
    ("nll_loss_backward", (normal(3, 4), LOGITS, CLASSES), LOSSES),
    ("mse_loss", (IMAGE, IMAGE + 1), {}),
    ("mse_loss_backward", (IMAGE - 1, IMAGE, IMAGE + 1), LOSSES),
    ("binary_cross_entropy_with_logits", (IMAGE, abs(IMAGE)), {}),
    ("binary_cross_entropy_with_logits_backward", (IMAGE - 1, IMAGE, abs(IMAGE)), LOSSES),
    ("convolve", (normal(2, 9), normal(3)), {}),
    ("correlate", (normal(2, 9), normal(3)), {}),
    ("convolve2d", (normal(2, 9, 8), normal(3, 2)), {}),
    ("correlate2d", (normal(2, 9, 8), normal(3, 2)), {}),
]  # fmt: skip


def test_every_function_is_called():
    assert {name for name, _, _ in CALLS} == set(F.__all__) - {"explain_conv2d"}


def results(name, arrays, arguments):
    values = getattr(F, name)(*arrays, **arguments)
    return [
        np.asarray(v) for v in (values if isinstance(values, tuple) else (values,)) if v is not None
    ]


def kinds(array):
    yield from variants(array)
    if array.ndim > 2:
        yield "channels-last", to_format(array, "channels_last")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"tracker-{call[0]}")
def test_any_memory(isa, call, dtype):
    name, arrays, arguments = call
    arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
    want = results(name, arrays, arguments)
    for place, array in enumerate(arrays):
        for kind, other in kinds(array):
            before = np.array(other)
            changed = [*arrays[:place], other, *arrays[place + 1 :]]
            for result, expected in zip(results(name, changed, arguments), want, strict=True):
                assert same_bits(result, expected), (kind, place)
            assert same_bits(np.array(other), before), (kind, place)
