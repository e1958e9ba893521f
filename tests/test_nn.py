"""Every layer: gradients by random projection in float64, shapes; losses, batch norm, dropout."""

import copy

import numpy as np
import pytest
from layers import (
    GRADIENT_TOLERANCE,
    H,
    each_layer,
    f64,
    projection_check,
    small_resnet,
)

import fastconv
from fastconv import nn

# --- gradients -----------------------------------------------------------------------------------


@each_layer
def test_gradients_by_projection(layer, shape, rng):
    projection_check(layer.train(), 2 * rng.standard_normal(shape))


@each_layer
def test_output_shape_is_forwards_shape(layer, shape, rng):
    assert layer.output_shape(shape) == layer.eval()(rng.standard_normal(shape)).shape


REFUSED = [
    (nn.ConvTranspose2d(1, 24, 2, padding=1), (5, 1, 1, 1), "leaves no output"),
    (nn.ConvTranspose2d(3, 5, 2, stride=2, padding=3), (2, 3, 3, 1), "leaves no output"),
    (nn.Conv2d(1, 2, 3), (1, 1, 2, 5), "leaves no output"),
    (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), (1, 1, 5, 1), "too large for mode"),
    (nn.Conv1d(1, 2, 3, padding=2, padding_mode="circular"), (1, 1, 1), "too large for mode"),
]


@pytest.mark.parametrize(("layer", "shape", "text"), REFUSED, ids=str)
def test_what_forward_refuses_no_plan_promises(layer, shape, text):
    for call in (
        lambda: layer.output_shape(shape),
        lambda: layer.macs(shape),
        lambda: fastconv.compile(layer, shape),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(ValueError, match="conv"):
        layer(np.zeros(shape, np.float32))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3, **f64), nn.BatchNorm2d(3, **f64)])
def test_eval_with_backward_uses_running_statistics(norm, rng):
    shape = (4, 3, 5, 6)[: max(norm.ranks)]
    norm.running_mean[:] = rng.standard_normal(3)
    norm.running_var[:] = rng.uniform(0.5, 2, 3)
    projection_check(norm.eval(backward=True), rng.standard_normal(shape))
    assert int(norm.num_batches_tracked) == 0


def test_small_resnet_gradients(rng):
    projection_check(small_resnet(), rng.standard_normal((2, 2, 8, 8)))


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (nn.CrossEntropyLoss(label_smoothing=0.1), np.array([0, 2, 1, 2])),
        (nn.CrossEntropyLoss(weight=np.array([1.0, 2, 3]), ignore_index=1), np.array([0, 2, 1, 2])),
        (nn.CrossEntropyLoss(reduction="none"), np.array([0, 2, 1, 2])),
        (nn.BCEWithLogitsLoss(pos_weight=np.array([1.0, 2, 3])), np.eye(4, 3)),
        (nn.BCEWithLogitsLoss(reduction="sum"), np.eye(4, 3)),
        (nn.MSELoss(), np.eye(4, 3)),
        (nn.MSELoss(reduction="none"), np.eye(4, 3)),
    ],
)
def test_loss_gradients(loss, target, rng):
    x, v = rng.standard_normal((2, 4, 3))
    value = loss(x, target)
    u = rng.standard_normal(np.shape(value)) if loss.reduction == "none" else 1.0
    grad = loss.backward(u) if loss.reduction == "none" else loss.backward()
    high, low = (np.vdot(u, loss(x + h * v, target)) for h in (H, -H))
    assert abs((high - low) / (2 * H) - np.vdot(grad, v)) <= GRADIENT_TOLERANCE * (1 + abs(high))


def test_loss_reduction_none_needs_a_gradient():
    loss = nn.MSELoss(reduction="none")
    loss(np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="pass grad"):
        loss.backward()


def test_class_weights_take_the_inputs_dtype():
    loss = nn.CrossEntropyLoss(weight=[1, 2, 3])
    x = np.eye(3, dtype=np.float32)
    assert np.asarray(loss(x, np.arange(3))).dtype == np.float32
    assert loss.backward().dtype == np.float32
    assert list(loss.state_dict()) == ["weight"]


# --- batch norm and dropout ----------------------------------------------------------------------


def test_batch_norm_running_statistics(rng):
    x = rng.standard_normal((4, 3, 5, 5))
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), ddof=1)
    fixed, cumulative = nn.BatchNorm2d(3, **f64), nn.BatchNorm2d(3, momentum=None, **f64)
    tolerance = 100 * 4 * np.finfo(np.float64).eps
    fixed(x)
    np.testing.assert_allclose(fixed.running_mean, 0.1 * mean, rtol=tolerance)
    np.testing.assert_allclose(fixed.running_var, 0.9 + 0.1 * var, rtol=tolerance)
    cumulative(x)
    cumulative(3 * x)
    np.testing.assert_allclose(cumulative.running_mean, 2 * mean, rtol=tolerance)
    assert int(cumulative.num_batches_tracked) == 2
    before = fixed.running_mean.copy()
    fixed.eval()(x)
    np.testing.assert_array_equal(fixed.running_mean, before)
    assert int(fixed.num_batches_tracked) == 1


def test_sizes_may_be_lists_as_in_torch():
    assert nn.AdaptiveAvgPool2d([2, None]).output_size == (2, None)
    assert nn.AdaptiveMaxPool1d([np.int64(3)]).output_size == (3,)
    assert nn.Conv2d(3, 4, [3, np.int64(5)], stride=[2, 1]).kernel_size == (3, 5)
    assert nn.MaxPool2d([2, 2], padding=[1, 0]).padding == (1, 0)


def test_batch_norm_refuses_other_ranks_and_channels():
    with pytest.raises(ValueError, match=r"BatchNorm2d: input must have 4 axes and 3 channels"):
        nn.BatchNorm2d(3)(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"got shape \(2, 4, 5\)"):
        nn.BatchNorm1d(3)(np.zeros((2, 4, 5), np.float32))


def test_dropout(rng):
    x = np.ones((1000, 30), np.float32)
    layer = nn.Dropout(0.25, rng=3)
    y = layer(x)
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    # the number of zeros is binomial: 5 standard deviations
    assert abs((y == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / x.size)
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(nn.Dropout(0.25, rng=3)(x), y)
    assert layer.eval()(x) is x
    np.testing.assert_array_equal(nn.Dropout(1.0)(x), 0 * x)
    with pytest.raises(ValueError, match="between 0 and 1"):
        nn.Dropout(1.5)


def test_rng_state_resumes_dropout_exactly():
    x = np.ones((4, 8), np.float32)
    model = nn.Sequential(nn.Dropout(rng=1), nn.Sequential(nn.Dropout(0.3, rng=2)))
    model(x)
    state = copy.deepcopy(nn.rng_state(model))
    assert list(state) == ["0", "1.0"]
    expected = model(x)
    nn.set_rng_state(model, state)
    np.testing.assert_array_equal(model(x), expected)
    with pytest.raises(ValueError, match="set_rng_state"):
        nn.set_rng_state(model, {})


# --- memory formats ------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_format_changes_no_value(channels_last, rng):
    """A channels-last view gives the numbers of a contiguous array, forward and backward."""
    x = rng.standard_normal((2, 2, 8, 8))
    plain, other = small_resnet(), small_resnet()
    view = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    grad = rng.standard_normal((2, 3))
    # the sums run in another order: eps times the square root of some 100 terms, through 6 layers
    tolerance = 6 * 10 * np.finfo(np.float64).eps * 16
    y = plain(x)
    np.testing.assert_allclose(other(view if channels_last else x), y, rtol=0, atol=tolerance)
    grad_x, grad_view = plain.backward(grad), other.backward(grad)
    scale = np.abs(grad_x).max()
    np.testing.assert_allclose(grad_view, grad_x, rtol=0, atol=tolerance * scale)
