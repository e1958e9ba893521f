"""The gradient of a first convolution's weight from the winners of the pool behind it."""

import numpy as np
import pytest
from helpers import to_format

import fastconv
import fastconv.functional as F
from fastconv import _core, nn

DTYPES = (np.float32, np.float64)
FORMATS = ("channels_first", "channels_last")


# (channels, outputs, size), options of the convolution, of the pool
POOLED = {
    "LeNet": ((1, 6, (28, 28)), {"kernel_size": 5, "padding": 2}, {"kernel_size": 2}),
    "two outputs": ((1, 2, (9, 12)), {"kernel_size": 5}, {"kernel_size": 2}),
    "3x3": ((1, 8, (11, 14)), {"kernel_size": 3, "padding": 1}, {"kernel_size": 3}),
    "3 inputs": (
        (3, 6, (12, 15)),
        {"kernel_size": (3, 2), "stride": 2, "padding": 1},
        {"kernel_size": 2},
    ),
    "2 inputs of 3x3": ((2, 4, (12, 15)), {"kernel_size": 3}, {"kernel_size": 2, "stride": 3}),
    "overlapping windows": (
        (1, 4, (20, 17)),
        {"kernel_size": (5, 3), "stride": (1, 2), "dilation": (2, 1), "padding": (4, 1)},
        {"kernel_size": 3, "stride": 2, "padding": 1},
    ),
    "dilated windows": (
        (1, 2, (23, 19)),
        {"kernel_size": 3, "padding": ((0, 2), (1, 0))},
        {"kernel_size": (2, 3), "dilation": (3, 2), "stride": (5, 4), "ceil_mode": True},
    ),
    "an odd number of outputs": ((1, 7, (11, 14)), {"kernel_size": 3}, {"kernel_size": 2}),
    "too many rows": ((1, 6, (28, 28)), {"kernel_size": 7}, {"kernel_size": 2}),
    "too many inputs": ((40, 3, (8, 9)), {"kernel_size": 3}, {"kernel_size": 2}),
}


def first_gradients(case, dtype, form, batch, threads=1, change=lambda x: None):
    """Of a convolution before a pool: fused, layer by layer, and what the kernel answered."""
    (channels, outputs, size), options, windows = POOLED[case]
    rng, answers = np.random.default_rng(0), []
    layer = nn.Conv2d(channels, outputs, **options, rng=0, dtype=dtype)
    layer.weight.data[...] = rng.integers(-3, 4, layer.weight.shape)
    model = nn.Sequential(layer, nn.ReLU(), nn.MaxPool2d(**windows))
    x = to_format(rng.integers(-3, 4, (batch, channels, *size)).astype(dtype), form)
    change(x)
    g = rng.integers(-3, 4, model.output_shape(x.shape)).astype(dtype)
    kernel, results = _core.conv2d_pooled_grad_weight, []
    with pytest.MonkeyPatch.context() as patch, fastconv.num_threads(threads):
        patch.setattr(
            _core, "conv2d_pooled_grad_weight", lambda *a: answers.append(kernel(*a)) or answers[-1]
        )
        for fused in (True, False):
            F.conv2d(np.full((1, 9, 40, 40), np.nan, dtype), np.ones((9, 9, 3, 3), dtype))
            with nn.fusion(fused), np.errstate(all="ignore"):
                model.zero_grad()
                model(x)
                model.backward_parameters(g)
            results.append([parameter.grad for parameter in model.parameters()])
            assert all(module._saved is None for module in model.modules())
    return *results, answers


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", POOLED)
def test_weight_gradient_by_winners(case, dtype, form):
    """Small integers: every order of the sums is exact."""
    for batch in (1, 3, 19):
        fused, expected, answers = first_gradients(case, dtype, form, batch)
        for a, b in zip(fused, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        if case == "LeNet" and dtype is np.float32 and fastconv.config()["isa"] != "generic":
            assert answers == [True]
        if case.startswith("too many"):
            assert answers in ([], [False])  # said in Python, or in C


@pytest.mark.parametrize("outputs", [1, 5, 6, 16])
def test_weight_gradient_by_winners_has_the_bits_of_every_format(outputs, rng):
    """Behind a layer of one's own a container keeps the format."""
    x = rng.standard_normal((3, 1, 28, 29), dtype=np.float32)
    gradients = []
    for start in (0, 1):
        for form in FORMATS:
            model = nn.Sequential(
                nn.Conv2d(1, outputs, 5, padding=2, rng=0), nn.ReLU(), nn.MaxPool2d(2)
            )
            if start:
                model = nn.Sequential(nn.Identity(), *model)
            images = to_format(np.concatenate([x, x], 1), form)[:, :1] if start else x
            ones = np.ones(model.output_shape(x.shape), np.float32)
            g = to_format(ones * x[:1, :, :14, :14], form)
            model(images)
            model.backward_parameters(g)
            gradients.append(model[start].weight.grad)
    for gradient in gradients[1:]:
        np.testing.assert_array_equal(gradient, gradients[0])


def test_weight_gradient_by_winners_on_threads_and_of_infinities():
    one, _, _ = first_gradients("LeNet", np.float32, "channels_last", 19)
    two, _, _ = first_gradients("LeNet", np.float32, "channels_last", 19, threads=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    for value in (np.inf, np.nan):

        def put(x, value=value):
            x[1, 0, 3, 3] = value

        fused, expected, answers = first_gradients(
            "LeNet", np.float32, "channels_last", 3, change=put
        )
        assert answers == [False]
        for a, b in zip(fused, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [
        (2, "kernel_size", (1, 1)),
        (2, "kernel_size", (1, 2)),
        (2, "stride", (900, 900)),
        (0, "padding", (0, 0)),
        (0, "dilation", (6, 1)),
    ],
)
def test_layers_changed_after_forward(layer, name, value):
    """The gradient from a pool's winners refuses what the layers one by one refuse."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2, rng=0), nn.ReLU(), nn.MaxPool2d(2))
    y = net(rng.standard_normal((8, 1, 29, 29)).astype(np.float32))
    setattr(net[layer], name, value)
    with pytest.raises(ValueError, match="shape"):
        net.backward_parameters(np.ones_like(y))


def test_pool_changed_to_other_windows_of_as_many_outputs(isa):
    """Codes of taps that the new windows do not have: any gradient, but no crash."""
    net = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2, rng=0), nn.ReLU(), nn.MaxPool2d(3, 2))
    y = net(np.random.default_rng(0).standard_normal((8, 1, 29, 29)).astype(np.float32))
    net[2].kernel_size = (2, 2)
    net.backward_parameters(np.ones_like(y))


def test_pool_called_by_itself_in_between():
    """What the pool keeps is then of another array: an error, no gradient of another dtype."""
    net = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2, rng=0), nn.ReLU(), nn.MaxPool2d(2))
    y = net(np.ones((8, 1, 28, 28), np.float32))
    net[2](np.ones((8, 6, 20, 20), np.float64))
    with pytest.raises((TypeError, ValueError)):
        net.backward_parameters(np.ones_like(y))
