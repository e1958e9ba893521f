"""Plans of every kind of layer and of trees of them, in both memory formats."""

import numpy as np
import pytest
from helpers import randomized, to_format
from plans import (
    IMAGE,
    ROWS,
    SIGNAL,
    Double,
    Doubled,
    Scale,
    Shifted,
    close,
    conv,
    conv1,
    linear,
    norm,
    normal,
)

import fastconv
from fastconv import nn
from fastconv.models.resnet import SubsampleAndPad

TREES = {
    "empty": (IMAGE, nn.Sequential),
    "conv": (IMAGE, lambda: conv(6, 7)),
    "conv without bias, stride": (IMAGE, lambda: conv(6, 7, bias=False, stride=(2, 1))),
    "groups, dilation": (IMAGE, lambda: conv(6, 4, groups=2, dilation=2)),
    "depthwise, norm, relu6": (
        IMAGE,
        lambda: nn.Sequential(conv(6, 6, groups=6), norm(6), nn.ReLU6()),
    ),
    "padding": (IMAGE, lambda: conv(6, 3, 4, padding=((2, 0), (1, 3)))),
    "same": (IMAGE, lambda: conv(6, 3, 4, padding="same", stride=2)),
    "reflect": (IMAGE, lambda: conv(6, 3, padding_mode="reflect")),
    "transposed": (
        IMAGE,
        lambda: nn.Sequential(
            nn.ConvTranspose2d(6, 4, 3, stride=2, rng=0, dtype=np.float64), norm(4), nn.ReLU()
        ),
    ),
    "norm first": (IMAGE, lambda: nn.Sequential(norm(6), nn.ReLU(), conv(6, 5))),
    "two norms": (IMAGE, lambda: nn.Sequential(conv(6, 5), norm(5), norm(5))),
    "norm after relu": (IMAGE, lambda: nn.Sequential(conv(6, 5), nn.ReLU(), norm(5))),
    "norm without affine": (IMAGE, lambda: nn.Sequential(conv(6, 5), norm(5, affine=False))),
    "norm of the batch": (
        IMAGE,
        lambda: nn.Sequential(conv(6, 5), norm(5, track_running_stats=False), nn.ReLU()),
    ),
    "relu6 after relu": (IMAGE, lambda: nn.Sequential(conv(6, 5), nn.ReLU(), nn.ReLU6())),
    "relu alone": (IMAGE, nn.ReLU),
    "activations": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 5), nn.LeakyReLU(0.2), conv(5, 5), nn.SiLU(), nn.Tanh(), nn.GELU(),
            nn.GELU("tanh"), conv(5, 5), nn.Sigmoid(),
        ),
    ),
    "pools": (
        IMAGE,
        lambda: nn.Sequential(
            nn.MaxPool2d(3, 2, 1, ceil_mode=True), conv(6, 5), nn.AvgPool2d(2, 1, 1),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.MaxPool2d(2, 1, dilation=1),
        ),
    ),
    "divisor": (IMAGE, lambda: nn.AvgPool2d(2, divisor_override=3)),
    "adaptive": (
        IMAGE,
        lambda: nn.Sequential(nn.AdaptiveMaxPool2d((5, None)), nn.AdaptiveAvgPool2d((3, 12))),
    ),
    "flatten at the end": (IMAGE, lambda: nn.Sequential(conv(6, 5), nn.Flatten())),
    "flatten alone": (IMAGE, nn.Flatten),
    "flatten, relu, linear": (
        IMAGE,
        lambda: nn.Sequential(conv(6, 5), nn.Flatten(), nn.Tanh(), linear(360, 7)),
    ),
    "flatten, norm, linear": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 5), nn.Flatten(), nn.BatchNorm1d(360, dtype=np.float64), linear(360, 7)
        ),
    ),
    "flatten of some axes": (IMAGE, lambda: nn.Sequential(conv(6, 5), nn.Flatten(2), Double())),
    "flatten the input": (IMAGE, lambda: nn.Sequential(nn.Flatten(), linear(432, 7), nn.ReLU())),
    "flatten, sum": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 5), nn.Residual({"a": nn.Flatten(), "b": linear(360, 9)},
                                    nn.Sequential(nn.Flatten(), linear(360, 9))),
        ),
    ),
    "flat image plus vector": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 5), nn.Residual({"a": nn.Flatten()}, nn.Sequential(nn.Flatten(), Scale(360))),
            nn.ReLU(),
        ),
    ),
    "residual": (
        IMAGE,
        lambda: nn.Residual({"a": conv(6, 6), "n": norm(6), "r": nn.ReLU(), "b": conv(6, 6)}),
    ),
    "residual, relu": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 8), nn.Residual({"a": conv(8, 8), "b": norm(8)}, norm(8), nn.ReLU()),
        ),
    ),
    "residual with a depthwise end": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 6, groups=6), nn.Residual({"a": conv(6, 6, groups=6)}, None, nn.ReLU6())
        ),
    ),
    "residual with an activation in the body": (
        IMAGE,
        lambda: nn.Residual({"a": conv(6, 6), "b": nn.ReLU()}, conv(6, 6), nn.ReLU()),
    ),
    "residual before its activation": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 6), nn.Residual({"n": norm(6), "r": nn.ReLU(), "c": conv(6, 6)}), norm(6),
        ),
    ),
    "residual in place": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 6), nn.Residual({"r": nn.ReLU(inplace=True), "c": conv(6, 6)}), nn.ReLU()
        ),
    ),
    "residual of nothing": (IMAGE, lambda: nn.Sequential(conv(6, 6), nn.Residual({}), nn.ReLU())),
    "residual, body identity": (
        IMAGE,
        lambda: nn.Sequential(
            conv(6, 6), nn.Residual({"i": nn.Identity()}, conv(6, 6), nn.ReLU())
        ),
    ),
    "nested residuals": (
        IMAGE,
        lambda: nn.Residual(
            {"a": conv(6, 6), "r": nn.Residual({"c": conv(6, 6), "t": nn.Tanh()}), "b": norm(6)},
            nn.Sequential(nn.Tanh(), nn.Residual({"d": conv(6, 6)}, None, nn.Sigmoid())),
        ),
    ),
    "option a": (IMAGE, lambda: nn.Sequential(conv(6, 6), SubsampleAndPad(9), conv(9, 4))),
    "option a of the input": (IMAGE, lambda: SubsampleAndPad(9)),
    "option a, same channels": (IMAGE, lambda: SubsampleAndPad(6, 3)),
    "dropout, identity": (
        IMAGE,
        lambda: nn.Sequential(nn.Identity(), conv(6, 5), nn.Dropout(0.5), norm(5), nn.ReLU()),
    ),
    "own layers": (
        IMAGE,
        lambda: nn.Sequential(conv(6, 5), Double(), nn.ReLU(), Shifted(), conv(10, 3), Scale(3)),
    ),
    "own layer first": (IMAGE, lambda: nn.Sequential(Scale(6), conv(6, 3), Double())),
    "own container": (IMAGE, lambda: Doubled(conv(6, 5), nn.ReLU())),
    "signal": (
        SIGNAL,
        lambda: nn.Sequential(
            conv1(5, 8, padding="same"), nn.BatchNorm1d(8, dtype=np.float64), nn.ReLU(),
            nn.MaxPool1d(3, 2, 1), conv1(8, 8, padding="causal", dilation=2), nn.AvgPool1d(2),
            nn.AdaptiveMaxPool1d(4), nn.Flatten(), linear(32, 3),
        ),
    ),
    "signal, stride": (SIGNAL, lambda: conv1(5, 6, 5, stride=3, groups=1)),
    "signal, transposed": (
        SIGNAL,
        lambda: nn.ConvTranspose1d(5, 4, 3, stride=2, rng=0, dtype=np.float64),
    ),
    "linear on the last axis": (SIGNAL, lambda: nn.Sequential(linear(20, 7), nn.ReLU())),
    "rows": (
        ROWS,
        lambda: nn.Sequential(
            linear(12, 9, bias=False), nn.BatchNorm1d(9, dtype=np.float64), nn.ReLU(),
            nn.Dropout(0.2), nn.Residual({"a": linear(9, 9)}), nn.Flatten(), linear(9, 1),
        ),
    ),
    "rows, norm": (ROWS, lambda: nn.BatchNorm1d(12, dtype=np.float64)),
    "five axes": ((2, 3, 4, 2), lambda: nn.Sequential(nn.ReLU(), nn.Flatten(), linear(48, 5))),
    "no axes but the batch": ((), lambda: nn.Tanh()),
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", TREES)
def test_trees(name, batch):
    shape, make = TREES[name]
    shape = (batch, *shape)
    model = randomized(make()).eval()
    x = normal(shape)
    plan = fastconv.compile(model, shape, dtype=np.float64)
    for layout in ("channels_first", "channels_last", "strided", "fortran"):
        given = to_format(x, layout) if len(shape) > 2 else x
        before = given.copy()
        expected = model(to_format(x, layout) if len(shape) > 2 else x.copy())
        y = close(plan, given, expected)
        np.testing.assert_array_equal(given, before)
        own = any(node.kind == "layer" for node in plan.nodes)
        if layout in ("channels_first", "channels_last") and not own:
            assert y.flags.c_contiguous == expected.flags.c_contiguous


def test_unknown_layers_are_cast():
    model = nn.Sequential(conv(6, 5), Scale(5)).eval()
    x = normal((2, *IMAGE), np.float32)
    y = fastconv.compile(model, x.shape, dtype=np.float32)(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, model(x.astype(np.float64)), atol=1e-5)
