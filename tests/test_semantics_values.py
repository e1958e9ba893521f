"""docs/semantics.md: the statements on pools, batch norm, activations and losses."""

import numpy as np
import pytest
from helpers import DTYPES, FORMATS, to_format
from semantics_page import section

import fastconv.functional as F
from fastconv import reference as R

INF, NAN = np.inf, np.nan


def signal(*values):
    return np.array([values], float)


@section("Windows of pools")
def test_number_of_windows():
    for size, kernel, stride, pad, dilation in np.ndindex(9, 4, 4, 3, 3):
        size, kernel, stride, dilation = size + 1, kernel + 1, stride + 1, dilation + 1
        extent = dilation * (kernel - 1) + 1
        room = size + 2 * pad - extent
        if pad > extent // 2 or room < 0 or size < dilation:
            continue
        x = np.zeros((1, 1, size))
        assert F.max_pool1d(x, kernel, stride, pad, dilation).shape[2] == room // stride + 1
        windows = -(-room // stride) + 1
        windows -= (windows - 1) * stride >= size + pad
        assert F.max_pool1d(x, kernel, stride, pad, dilation, True).shape[2] == windows


@section("Windows of pools")
def test_refused_windows():
    with pytest.raises(ValueError, match="padding must be at most half"):
        F.avg_pool1d(signal(1, 2, 3), 3, 1, 2)
    with pytest.raises(ValueError, match="holds no input element"):
        F.max_pool1d(signal(1), 2, 1, 1, 2)
    np.testing.assert_array_equal(F.max_pool1d(signal(1, 2, 3, 4), 2), [[2, 4]])  # stride=None


@section("Maximum")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", FORMATS)
def test_maximum(isa, dtype, layout):
    plane = np.array([[0, 7, 7], [7, NAN, 1], [NAN, 2, 3]], dtype)
    x = to_format(np.broadcast_to(plane, (1, 17, 3, 3)), layout)
    y, indices = F.max_pool2d(x, 2, 1, return_indices=True)
    np.testing.assert_array_equal(indices, np.broadcast_to([[4, 4], [6, 4]], y.shape))
    x = to_format(np.full((1, 17, 3, 3), -1, dtype), layout)
    y, indices = F.max_pool2d(x, 3, 1, 1, return_indices=True)
    np.testing.assert_array_equal(y, x)  # not the 0 of a padding
    first = [[0, 0, 1], [0, 0, 1], [3, 3, 4]]
    np.testing.assert_array_equal(indices, np.broadcast_to(first, y.shape))
    grad = F.max_pool2d_backward(np.ones_like(y), indices, x.shape)
    want = [[4, 2, 0], [2, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(grad, np.broadcast_to(want, x.shape))
    zeros = np.array([[[-0.0, 0.0]]], dtype)
    assert F.max_pool1d(zeros, 2, return_indices=True)[1] == 0


@section("Average")
def test_average(isa):
    assert np.isnan(F.avg_pool1d(signal(1, NAN), 2))
    assert F.avg_pool1d(signal(1, INF), 2) == INF
    np.testing.assert_array_equal(F.adaptive_avg_pool1d(signal(1, 3, 5), 1), [[3]])
    ones = np.ones((1, 1, 3, 3))
    y = F.avg_pool2d(ones, 2, 2, 1)
    np.testing.assert_array_equal(y[0, 0] * 4, [[1, 2], [2, 4]])
    np.testing.assert_array_equal(F.avg_pool2d(ones, 2, 2, 1, count_include_pad=False), y * 0 + 1)


@section("Adaptive pools")
def test_adaptive_windows(isa):
    x = np.arange(7.0)[np.newaxis]
    _, indices = F.adaptive_max_pool1d(x, 3, return_indices=True)
    np.testing.assert_array_equal(indices, [[2, 4, 6]])
    np.testing.assert_array_equal(F.adaptive_avg_pool1d(x, 3), [[1, 3, 5]])  # 0..2, 2..4, 4..6
    image = np.ones((1, 2, 3, 4))
    assert F.adaptive_avg_pool2d(image, (None, 2)).shape == (1, 2, 3, 2)


@section("Unpooling")
def test_unpooling(isa):
    indices = np.array([[0, 0, 4]])
    grad = F.max_unpool1d_backward(signal(1, 2, 3, 4, 5, 6), indices)
    np.testing.assert_array_equal(grad, signal(1, 1, 5))
    summed = F.max_pool1d_backward(signal(1, 2, 3), indices, (1, 6))
    np.testing.assert_array_equal(summed, signal(3, 0, 0, 0, 3, 0))
    for index in (-1, 6, 2**31, 2**63 - 1):
        with pytest.raises(ValueError, match=r"indices must lie in 0\.\.5"):
            F.max_unpool1d(signal(1, 2, 3), np.array([[0, 1, index]]), 2)
    for size in (5, 6, 7):
        assert F.max_unpool1d(signal(1, 2, 3), indices, 2, output_size=(size,)).shape == (1, size)
    for size in (4, 8):
        with pytest.raises(ValueError, match="output_size must lie between"):
            F.max_unpool1d(signal(1, 2, 3), indices, 2, output_size=(size,))


@section("Batch norm")
def test_batch_norm(isa):
    x, one = np.array([[1.0], [3.0]]), np.ones(1)
    y = F.batch_norm(x, None, None, 2 * one, one, training=True, eps=0.0)
    np.testing.assert_array_equal(y, [[-1], [3]])  # the biased variance is 1
    y = F.batch_norm(x, one, 4 * one, eps=0.0)
    np.testing.assert_array_equal(y, [[0], [1]])
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        F.batch_norm(x[:1], None, None, training=True)


NAMES = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu")
AT_INFINITY = {
    "relu": (0, INF), "relu6": (0, 6), "leaky_relu": (-INF, INF), "sigmoid": (0, 1),
    "tanh": (-1, 1), "silu": (NAN, INF), "gelu": (NAN, INF),
}  # fmt: skip


@section("Activations")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_activations(isa, name, dtype):
    function, backward = getattr(F, name), getattr(F, name + "_backward")
    for count in (1, 17):  # in a vector and in its tail
        x = np.tile(np.array([-INF, INF, NAN], dtype), (count, 1))
        np.testing.assert_array_equal(function(x), np.tile([*AT_INFINITY[name], NAN], (count, 1)))
        if name in ("relu", "relu6", "leaky_relu"):
            x = np.tile(np.array([0.0, -0.0, 6.0, NAN], dtype), (count, 1))
            g = np.full_like(x, 2)
            want = {"relu": [0, 0, 2, 2], "relu6": [0, 0, 0, 2]}.get(name)
            slope = dtype(0.01)  # of leaky_relu, for which NaN is not above 0
            want = want or [2 * slope, 2 * slope, 2, 2 * slope]
            np.testing.assert_array_equal(
                backward(g, x), np.tile(np.array(want, dtype), (count, 1))
            )
        if name in ("relu", "relu6"):
            closed, special = (
                np.full((count, 2), -1, dtype),
                np.tile(np.array([INF, NAN], dtype), (count, 1)),
            )
            np.testing.assert_array_equal(backward(special, closed), np.zeros((count, 2)))


@section("Activations")
def test_softmax():
    for line in ([0, INF], [0, NAN], [-INF, -INF]):
        assert np.isnan(F.softmax(np.array(line, float), 0)).all()
        assert np.isnan(F.log_softmax(np.array(line, float), -1)).all()
    np.testing.assert_array_equal(F.log_softmax(np.array([0.0, -INF]), 0), [0, -INF])


@section("Losses")
def test_mean_divides_by_the_weights():
    logits, target, weight = np.zeros((3, 2)), np.array([0, 1, 1]), np.array([3.0, 1.0])
    losses = F.cross_entropy(logits, target, weight, reduction="none")
    np.testing.assert_array_equal(losses, np.log(2) * np.array([3, 1, 1]))
    assert F.cross_entropy(logits, target, weight) == losses.sum() / 5
    assert F.cross_entropy(logits, target, weight, ignore_index=0) == losses[1:].sum() / 2
    probabilities = np.array([[1.0, 0], [0, 1], [0, 1]])
    assert F.cross_entropy(logits, probabilities, weight) == losses.sum() / 3


@section("Losses")
def test_ignored_samples():
    logits = np.array([[NAN, INF], [0.0, 0.0]])
    target = np.array([7, 0])
    losses = F.cross_entropy(logits, target, ignore_index=7, reduction="none")
    np.testing.assert_array_equal(losses, [0, np.log(2)])
    grad = F.cross_entropy_backward(1.0, logits, target, ignore_index=7)
    np.testing.assert_array_equal(grad, [[0, 0], [-0.5, 0.5]])
    ignored = np.array([7, 7])
    for reduction, loss in (("mean", NAN), ("sum", 0.0)):
        arguments = {"ignore_index": 7, "reduction": reduction}
        np.testing.assert_array_equal(F.cross_entropy(logits, ignored, **arguments), loss)
        grad = F.cross_entropy_backward(1.0, logits, ignored, **arguments)
        np.testing.assert_array_equal(grad, np.zeros((2, 2)))
    for wrong in (-1, 2, 2**62):
        with pytest.raises(ValueError, match="target must be in"):
            F.cross_entropy(logits, np.array([0, wrong]))


@section("Losses")
@pytest.mark.parametrize("module", [F, R], ids=["functional", "reference"])
def test_infinite_logits(module):
    """The reference agrees, also about 0 * inf."""
    logits = np.array([[0.0, -INF, 0.0]])
    with np.errstate(all="ignore"):
        assert module.cross_entropy(logits, np.array([0])) == np.log(2)
        assert module.cross_entropy(logits, np.array([1])) == INF
        assert np.isnan(module.cross_entropy(logits, np.array([[1.0, 0.0, 0.0]])))
        assert np.isnan(module.cross_entropy(-logits, np.array([1])))
        assert module.cross_entropy(logits, np.array([0]), label_smoothing=0.5) == INF
        assert module.cross_entropy(np.array([[1e4, -1e4]]), np.array([0])) == 0
        assert module.cross_entropy(np.array([[1e4, -1e4]]), np.array([1])) == 2e4
        large = np.array([1e4, -1e4])
        y = module.binary_cross_entropy_with_logits(large, np.array([0.0, 0.0]), reduction="none")
        np.testing.assert_array_equal(y, [1e4, 0])


@section("Losses")
def test_smoothing_by_its_formula(rng):
    """The target of the page times minus the log-probabilities, and its gradient."""
    logits, target, weight = rng.standard_normal((5, 4)), rng.integers(0, 4, 5), rng.random(4) + 0.5
    arguments = {"weight": weight, "reduction": "sum", "label_smoothing": 0.3}
    soft = ((1 - 0.3) * np.eye(4)[target] + 0.3 / 4) * weight
    bound = 64 * np.finfo(float).eps * weight.sum() * abs(logits).sum()  # a few roundings each
    loss = -(soft * F.log_softmax(logits, 1)).sum()
    assert abs(F.cross_entropy(logits, target, **arguments) - loss) <= bound
    want = F.softmax(logits, 1) * soft.sum(axis=1, keepdims=True) - soft
    grad = F.cross_entropy_backward(1.0, logits, target, **arguments)
    np.testing.assert_allclose(grad, want, rtol=0, atol=bound)
