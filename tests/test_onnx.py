"""The operator cases of the ONNX standard, where the `onnx` package is installed.

Each case is a model of one node with its inputs and outputs. `OPERATORS` says how an operator and
its attributes are written with fastconv; `REFUSED` lists the cases that fastconv does not offer,
which must raise. Differences in meaning are in docs/semantics.md.
"""

import importlib

import numpy as np
import pytest
from helpers import FORMATS, to_format, tolerance

import fastconv.functional as F

pytest.importorskip("onnx")

from onnx import helper
from onnx.backend.test.case import node as node_cases

MODULES = ("averagepool", "batch_normalization", "col2im", "conv", "convtranspose", "gelu", "gemm")
MODULES += ("globalaveragepool", "globalmaxpool", "leakyrelu", "logsoftmax", "maxpool", "maxunpool")
MODULES += ("negativeloglikelihoodloss", "pad", "relu", "sigmoid", "softmax", "tanh")
MODULES += ("softmax_cross_entropy_loss",)


def collect():
    """Importing a module of cases appends them to a list; importing all modules takes 10 s."""
    for module in MODULES:
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    return {
        case.name.removeprefix("test_"): case
        for case in node_cases._NodeTestCases
        if "_expanded" not in case.name and case.model.graph.node[0].op_type in OPERATORS
    }


def axes_of(x):
    return x.ndim - 2


def function(name, x):
    if axes_of(x) not in (1, 2):
        raise ValueError(f"{name}: there are {axes_of(x)} spatial axes")
    return getattr(F, f"{name}{axes_of(x)}d")


def pairs(pads):
    """ONNX lists all beginnings and then all ends."""
    return tuple(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))


def padding(a):
    words = {b"SAME_UPPER": "same", b"SAME_LOWER": "same_lower", b"VALID": "valid"}
    if a.get("auto_pad", b"NOTSET") != b"NOTSET":
        return words[a["auto_pad"]]
    return pairs(a["pads"]) if "pads" in a else 0


def conv(a, x, w, b=None):
    stride, dilation = (a.get(name, [1] * axes_of(x)) for name in ("strides", "dilations"))
    return function("conv", x)(x, w, b, stride, padding(a), dilation, a.get("group", 1))


def conv_transpose(a, x, w, b=None):
    """`output_shape` and `auto_pad` are resolved into padding and output_padding."""
    stride, dilation = (a.get(name, [1] * axes_of(x)) for name in ("strides", "dilations"))
    extra = a.get("output_padding", [0] * axes_of(x))
    pads = pairs(a["pads"]) if "pads" in a else ((0, 0),) * axes_of(x)
    wanted = a.get("output_shape")
    if a.get("auto_pad", b"NOTSET") != b"NOTSET":
        wanted = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    if wanted:
        natural = [
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(x.shape[2:], stride, w.shape[2:], dilation, strict=True)
        ]
        surplus = [n - m for n, m in zip(natural, wanted, strict=True)]
        pads = tuple((max(n, 0) // 2, max(n, 0) - max(n, 0) // 2) for n in surplus)
        extra = [max(-n, 0) for n in surplus]
    group = a.get("group", 1)
    return function("conv_transpose", x)(x, w, b, stride, pads, extra, group, dilation)


def max_pool(a, x):
    stride, dilation = (a.get(name, [1] * axes_of(x)) for name in ("strides", "dilations"))
    window = a["kernel_shape"], stride, padding(a), dilation, bool(a.get("ceil_mode", 0))
    y, indices = function("max_pool", x)(x, *window, return_indices=True)
    if a.get("storage_order", 0):  # columns first
        rows, columns = np.divmod(indices, x.shape[3])
        indices = columns * x.shape[2] + rows
    # ONNX counts through the whole array, fastconv (as torch) through a plane
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * axes_of(x))
    return y, indices + planes * x[0, 0].size


def avg_pool(a, x):
    if set(a.get("dilations", [1])) != {1}:
        raise ValueError("avg_pool has no dilation")
    stride = a.get("strides", [1] * axes_of(x))
    include, ceil = bool(a.get("count_include_pad", 0)), bool(a.get("ceil_mode", 0))
    return function("avg_pool", x)(x, a["kernel_shape"], stride, padding(a), ceil, include)


def max_unpool(a, x, indices, shape=None):
    """ONNX's indices count through the array that the default `output_shape` would make."""
    window = a["kernel_shape"], a["strides"]
    unpool = function("max_unpool", x)
    usual = unpool(x, indices * 0, *window).shape[2:]
    sizes = usual if shape is None else tuple(shape[2:].tolist())
    where = np.unravel_index(indices % np.prod(usual), usual)
    return unpool(x, np.ravel_multi_index(where, sizes), *window, output_size=sizes)


def batch_norm(a, x, scale, bias, mean, var):
    """ONNX's momentum is 1 minus torch's, and its running variance the biased one."""
    training, momentum = bool(a.get("training_mode", 0)), 1 - a.get("momentum", 0.9)
    new_mean, new_var = mean.copy(), var.copy()
    epsilon = a.get("epsilon", 1e-5)
    y = F.batch_norm(x, new_mean, new_var, scale, bias, training, momentum, epsilon)
    if not training:
        return y
    count = x[:, 0].size
    kept = (1 - momentum) * var
    return y, new_mean, (kept + (new_var - kept) * (count - 1) / count).astype(var.dtype)


def gemm(a, x, w, c=None):
    x = x.T if a.get("transA", 0) else x
    w = w if a.get("transB", 0) else w.T
    y = F.linear(x, w) * np.float32(a.get("alpha", 1.0))
    return y if c is None else y + np.float32(a.get("beta", 1.0)) * c


def pad(a, x, pads, value=None, axes=None):
    modes = {
        b"constant": "constant",
        b"reflect": "reflect",
        b"edge": "replicate",
        b"wrap": "circular",
    }
    axes = range(x.ndim) if axes is None else axes % x.ndim
    each = [(0, 0)] * x.ndim
    for axis, pair in zip(axes, pairs(pads.tolist()), strict=True):
        each[axis] = pair
    flat = [n for pair in reversed(each) for n in pair]
    return F.pad(x, flat, modes[a.get("mode", b"constant")], 0 if value is None else value.item())


def col2im(a, x, image, block):
    ones = [1, 1]
    before, after = (a.get("pads", [0] * 4)[i : i + 2] for i in (0, 2))
    if len(image) != 2 or before != after:
        raise ValueError("fold takes two axes and symmetric padding")
    sizes = tuple(image.tolist()), tuple(block.tolist())
    return F.fold(x, *sizes, a.get("dilations", ones), before, a.get("strides", ones))


def loss(name):
    def call(a, x, target, weight=None):
        arguments = weight, a.get("ignore_index", -100), a.get("reduction", b"mean").decode()
        return getattr(F, name)(x, target, *arguments), F.log_softmax(x, 1)

    return call


OPERATORS = {
    "AveragePool": avg_pool,
    "BatchNormalization": batch_norm,
    "Col2Im": col2im,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gelu": lambda a, x: F.gelu(x, a.get("approximate", b"none").decode()),
    "Gemm": gemm,
    "GlobalAveragePool": lambda a, x: function("adaptive_avg_pool", x)(x, 1),
    "GlobalMaxPool": lambda a, x: function("adaptive_max_pool", x)(x, 1),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "LogSoftmax": lambda a, x: F.log_softmax(x, a.get("axis", -1)),
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "NegativeLogLikelihoodLoss": loss("nll_loss"),
    "Pad": pad,
    "Relu": lambda a, x: F.relu(x),
    "Sigmoid": lambda a, x: F.sigmoid(x),
    "Softmax": lambda a, x: F.softmax(x, a.get("axis", -1)),
    "SoftmaxCrossEntropyLoss": loss("cross_entropy"),
    "Tanh": lambda a, x: F.tanh(x),
}
FOUR_DIGITS = {"averagepool_2d_ceil_last_window_starts_on_pad"}  # so the standard writes its result
EXACT = {"MaxPool", "GlobalMaxPool", "MaxUnpool", "Pad", "Relu"}
THREE_AXES = "three spatial axes"
HALF = "padding of more than half of the window (as torch)"
REFUSED = {
    "averagepool_2d_dilations": "dilated average pool",
    "averagepool_2d_pads": HALF,
    "averagepool_2d_pads_count_include_pad": HALF,
    "averagepool_3d_default": THREE_AXES,
    "averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False": THREE_AXES,
    "averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True": THREE_AXES,
    "averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False": THREE_AXES,
    "averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True": THREE_AXES,
    "averagepool_3d_dilations_small": THREE_AXES,
    "col2im_5d": THREE_AXES,
    "convtranspose_3d": THREE_AXES,
    "maxpool_2d_pads": HALF,
    "maxpool_2d_uint8": "pools of integers",
    "maxpool_3d_default": THREE_AXES,
    "maxpool_3d_dilations": THREE_AXES,
    "maxpool_3d_dilations_use_ref_impl": THREE_AXES,
    "maxpool_3d_dilations_use_ref_impl_large": THREE_AXES,
}
CASES = collect()


def run(case, layout):
    node = case.model.graph.node[0]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    (inputs, outputs), given = case.data_sets[0], {}
    arrays = iter(np.asarray(value) for value in inputs)
    given = [next(arrays) if name else None for name in node.input]
    if given[0].ndim > 2:
        given[0] = to_format(given[0], layout)
    results = OPERATORS[node.op_type](attributes, *given)
    return node.op_type, given, results if isinstance(results, tuple) else (results,), outputs


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", sorted(set(CASES) - set(REFUSED)))
def test_case(isa, name, layout, trust_counts):
    trust_counts["ONNX operator cases"] += 1
    operator, given, results, outputs = run(CASES[name], layout)
    assert len(results) >= len(outputs)
    terms = max(array.size for array in given if array is not None)
    for result, want in zip(results, outputs, strict=False):
        assert np.shape(result) == np.shape(want)
        assert result.dtype == np.asarray(want).dtype
        if operator in EXACT:
            np.testing.assert_array_equal(result, want)
        else:  # both sides sum at most `terms` products, of one sign, in float32
            bound = 2 * tolerance(terms, np.float32) * abs(np.asarray(want)).max()
            bound = 1e-4 if name in FOUR_DIGITS else bound
            np.testing.assert_allclose(result, want, rtol=0, atol=bound)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, trust_counts):
    trust_counts["ONNX operator cases that fastconv refuses"] += 1
    with pytest.raises((ValueError, TypeError)):
        run(CASES[name], "channels_first")
