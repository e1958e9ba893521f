"""Fused runs of layers against the same layers one after the other."""

import copy
import pickle

import numpy as np
import pytest

import fastconv
from fastconv import models, nn, optim
from fastconv.functional import norm as _norm
from fastconv.models.resnet import SubsampleAndPad

DTYPES = (np.float32, np.float64)


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


FORMATS = {"first": np.ascontiguousarray, "last": channels_last}


def conv(rng, inputs, outputs, **options):
    options = {"kernel_size": 3, "padding": 1, "rng": rng, **options}
    return nn.Conv2d(inputs, outputs, **options)


def conv_pool(rng, dtype):
    return nn.Sequential(
        conv(rng, 3, 5, dtype=dtype), nn.ReLU(), nn.MaxPool2d(2), conv(rng, 5, 7, dtype=dtype),
        nn.ReLU6(), nn.MaxPool2d(3, 2, 1),
    )  # fmt: skip


def conv_norm(rng, dtype):
    return nn.Sequential(
        conv(rng, 3, 17, bias=False, dtype=dtype), nn.BatchNorm2d(17, dtype=dtype), nn.ReLU(),
        conv(rng, 17, 4, stride=2, dtype=dtype), nn.ReLU6(inplace=True),
        nn.BatchNorm2d(4, affine=False, dtype=dtype), nn.ReLU6(),
    )  # fmt: skip


def residual(rng, dtype):
    shortcut = nn.Sequential(
        conv(rng, 3, 16, kernel_size=1, padding=0, dtype=dtype), nn.BatchNorm2d(16, dtype=dtype)
    )
    first = {"conv": conv(rng, 3, 16, dtype=dtype), "bn": nn.BatchNorm2d(16, dtype=dtype)}
    second = {
        "conv1": conv(rng, 16, 16, dtype=dtype),
        "bn1": nn.BatchNorm2d(16, dtype=dtype),
        "relu": nn.ReLU(),
        "conv2": conv(rng, 16, 16, dtype=dtype),
        "bn2": nn.BatchNorm2d(16, track_running_stats=False, dtype=dtype),
    }
    third = {"bn": nn.BatchNorm2d(16, momentum=None, dtype=dtype)}
    return nn.Sequential(
        nn.Residual(first, shortcut, nn.ReLU()), nn.Residual(second, None, nn.ReLU6()),
        nn.Residual(third),
    )  # fmt: skip


def one_axis(rng, dtype):
    """(N, C, H, W) joined to (N, C, H * W), and in the end (N, C)."""
    return nn.Sequential(
        nn.Flatten(2), nn.Conv1d(3, 6, 5, rng=rng, dtype=dtype), nn.ReLU(), nn.MaxPool1d(3),
        nn.BatchNorm1d(6, dtype=dtype), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 58, 5, rng=rng, dtype=dtype), nn.BatchNorm1d(5, dtype=dtype), nn.ReLU(),
    )  # fmt: skip


NETWORKS = {f.__name__: f for f in (conv_pool, conv_norm, residual, one_axis)}


def randomise(model, rng):
    """Norms with weights of both signs, so that every sign of every factor occurs."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data[...] = rng.standard_normal(parameter.shape)


def run(model, x, g, fused):
    """Output, gradient of the input, of the parameters, and buffers after one forward."""
    with nn.fusion(fused):
        y = model(x)
        model.zero_grad()
        grads = [model.backward(g), *(p.grad for p in model.parameters())]
    return y, grads, [b.copy() for b in model.buffers()]


@pytest.fixture(params=fastconv.isas())
def isa(request):
    with fastconv.use_isa(request.param):
        yield request.param


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("evaluating", [False, True], ids=["train", "eval"])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_fused_equals_layer_by_layer(network, dtype, form, evaluating):
    rng = np.random.default_rng(0)
    model = NETWORKS[network](0, dtype)
    randomise(model, rng)
    if evaluating:
        model.eval(backward=True)
    x = FORMATS[form](rng.standard_normal((4, 3, 12, 15)).astype(dtype))
    other = copy.deepcopy(model)
    g = rng.standard_normal(model.output_shape(x.shape)).astype(dtype)
    y, grads, buffers = run(model, x, g, True)
    expected, expected_grads, expected_buffers = run(other, x, g, False)
    np.testing.assert_array_equal(y, expected)
    for a, b in zip(buffers, expected_buffers, strict=True):
        np.testing.assert_array_equal(a, b)
    # Other orders of the sums over n * h * w <= 720 terms, through at most 6 layers whose norms
    # divide by standard deviations: relative to the largest entry.
    bound = 64 * np.finfo(dtype).eps * 720**0.5
    for a, b in zip(grads, expected_grads, strict=True):
        assert np.abs(a - b).max() <= bound * max(np.abs(b).max(), 1)
    assert all(module._saved is None for module in model.modules())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("network", NETWORKS)
def test_projected_gradient(network, form):
    """<u, J v> by central differences equals <J^T u, v>: input and parameters at once."""
    rng = np.random.default_rng(1)
    model = NETWORKS[network](1, np.float64)
    randomise(model, rng)
    x = FORMATS[form](rng.standard_normal((4, 3, 12, 15)))
    u = rng.standard_normal(model.output_shape(x.shape))
    model(x)
    model.zero_grad()
    grads = [model.backward(u), *(p.grad for p in model.parameters())]
    directions = [rng.standard_normal(x.shape)]
    directions += [rng.standard_normal(p.shape) for p in model.parameters()]
    values = [p.data.copy() for p in model.parameters()]
    step = 1e-7  # few of the entries are within 1e-7 of a kink; the rounding is 1e-16 / 1e-7

    def moved(t):
        for p, value, v in zip(model.parameters(), values, directions[1:], strict=True):
            p.data[...] = value + t * v
        return np.vdot(u, model(x + t * directions[0]))

    slope = (moved(step) - moved(-step)) / (2 * step)
    expected = sum(np.vdot(g, v) for g, v in zip(grads, directions, strict=True))
    assert abs(slope - expected) <= 1e-5 * abs(expected) + 1e-4


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 0.0, -0.0])
@pytest.mark.parametrize("network", ["conv_pool", "conv_norm"])
def test_special_values(network, special):
    rng = np.random.default_rng(2)
    model = NETWORKS[network](2, np.float32).eval(backward=True)
    x = channels_last(rng.standard_normal((2, 3, 12, 15)).astype(np.float32))
    x[1, 1, 4:7, 3:9] = special
    g = rng.standard_normal(model.output_shape(x.shape)).astype(np.float32)
    with np.errstate(all="ignore"):
        y, grads, _ = run(model, x, g, True)
        expected, expected_grads, _ = run(copy.deepcopy(model), x, g, False)
    np.testing.assert_array_equal(y, expected)
    for a, b in zip(grads, expected_grads, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        finite = np.isfinite(a) & np.isfinite(b)
        np.testing.assert_allclose(a[finite], b[finite], rtol=1e-4, atol=1e-4)


def test_what_is_fused_is_printed():
    model = models.resnet20(rng=0)
    assert repr(model).startswith("Sequential(fused: bn1+relu\n")
    assert repr(model["layer1"][0]).startswith("Residual(fused: bn1+relu, bn2+sum+activation\n")
    lenet = repr(models.lenet5(rng=0)).splitlines()[0]
    assert lenet == "Sequential(fused: conv1+relu1+pool1, conv2+relu2+pool2"
    with nn.fusion(False):
        assert "fused" not in repr(model)
    assert "fused" in repr(model)
    rows = models.summary(model, (3, 32, 32)).layers
    fused = {row.name for row in rows if row.fused}
    assert len(fused) == 1 + 9 * 2
    assert {"relu", "layer1.0.relu", "layer1.0.activation"} <= fused
    assert "ReLU (fused)" in str(models.summary(model, (3, 32, 32)))


def test_fusion_is_a_setting():
    nn.fusion(False)
    try:
        assert "fused" not in repr(models.lenet5())
    finally:
        nn.fusion(True)
    with pytest.raises(TypeError, match="fusion: enabled must be a bool, got int 1"):
        nn.fusion(1)


def test_layers_of_ones_own_are_not_fused():
    calls = []

    class Loud(nn.ReLU):
        def forward(self, x):
            calls.append("Loud")
            return super().forward(x)

    class Norm(nn.BatchNorm2d):
        def run(self, *args):
            calls.append("Norm")
            return super().run(*args)

    for layers in ([nn.BatchNorm2d(3), Loud()], [Norm(3), nn.ReLU()], [nn.BatchNorm2d(3), Loud()]):
        assert "fused" not in repr(nn.Sequential(*layers))
    assert "fused" not in repr(nn.Residual({"bn": Norm(3)}, None, nn.ReLU()))
    assert "fused" not in repr(nn.Residual({"bn": nn.BatchNorm2d(3)}, None, Loud()))
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    nn.Residual({"bn": nn.BatchNorm2d(3, dtype=np.float64)}, None, Loud())(x)
    assert calls == ["Loud"]
    model = nn.Sequential(nn.Conv2d(3, 4, 3, dtype=np.float64), nn.ReLU(), nn.MaxPool2d(2))
    assert "fused" in repr(model)
    relu = model[1]
    plain = relu.forward
    relu.forward = lambda x: (calls.append("replaced"), plain(x))[1]
    assert "fused" not in repr(model)
    model(x)
    assert calls == ["Loud", "replaced"]


def test_frozen_parameters_and_first_layers():
    rng = np.random.default_rng(3)
    model = conv_pool(3, np.float64)
    x = rng.standard_normal((2, 3, 12, 15))
    g = rng.standard_normal(model.output_shape(x.shape))
    _, grads, _ = run(model, x, g, True)
    model[0].bias.requires_grad = False
    model.zero_grad()
    model(x)
    model.backward_parameters(g)
    assert model[0].bias.grad is None
    np.testing.assert_array_equal(model[0].weight.grad, grads[1])
    model[0].requires_grad_(False)
    model.zero_grad()
    model(x)
    model.backward_parameters(g)
    np.testing.assert_array_equal(model[3].bias.grad, grads[4])
    assert model[0].weight.grad is None


def test_wrong_shapes_are_named():
    block = nn.Residual({"bn": nn.BatchNorm2d(3)}, nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match=r"body gives shape \(2, 3, 5, 5\), the shortcut"):
        block(np.zeros((2, 3, 5, 5), np.float32))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding_mode": "circular"}], ids=str)
def test_sum_of_gradients_has_the_same_bits(options, form):
    """What the gradient of the first convolution adds is what a sum of its own adds."""
    rng = np.random.default_rng(0)
    shortcut = conv(rng, 16, 16, **options) if "stride" in options else None
    model = nn.Residual({"conv": conv(rng, 16, 16, **options)}, shortcut)
    x = FORMATS[form](rng.standard_normal((2, 16, 9, 10), dtype=np.float32))
    g = FORMATS[form](rng.standard_normal(model.output_shape(x.shape), dtype=np.float32))
    for a, b in zip(run(model, x, g, True)[1], run(model, x, g, False)[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_sum_of_two_dtypes_is_not_fused():
    block = nn.Residual({"bn": nn.BatchNorm2d(3)}, nn.Identity(), nn.ReLU())
    block.shortcut.forward = lambda x: x.astype(np.float64)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    y = block(x)
    with nn.fusion(False):
        np.testing.assert_array_equal(block(x), y)


def train(steps, threads):
    with fastconv.num_threads(threads):
        rng = np.random.default_rng(4)
        model = models.resnet20(rng=4)
        x = channels_last(rng.standard_normal((20, 3, 32, 32)).astype(np.float32))
        labels = rng.integers(0, 10, 20)
        loss = nn.CrossEntropyLoss()
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        outputs = []
        for _ in range(steps):
            outputs.append(model(x))
            loss(outputs[-1], labels)
            optimizer.zero_grad()
            model.backward_parameters(loss.backward())
            optimizer.step()
    return model, outputs


def test_a_step_has_the_same_bits_on_any_number_of_threads():
    (one, outputs), (two, others) = train(2, 1), train(2, 2)
    for a, b in zip(outputs, others, strict=True):
        np.testing.assert_array_equal(a, b)
    for key, value in one.state_dict().items():
        np.testing.assert_array_equal(value, two.state_dict()[key])


def test_memory_of_a_step_is_used_again_but_never_what_somebody_holds():
    rng = np.random.default_rng(5)
    model = conv_norm(5, np.float32)
    x = channels_last(rng.standard_normal((16, 3, 32, 32)).astype(np.float32))
    g = rng.standard_normal(model.output_shape(x.shape)).astype(np.float32)
    kept, copies = [], []
    for i in range(6):
        kept += [model(x + i), model.backward(g)]
        copies += [array.copy() for array in kept[-2:]]
        if i == 2:
            settled = sum(model._buffers_of_steps.count())
    for array, original in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, original)
    held = sum(array.nbytes for array in kept[6:]) + 6 * (1 << 21)
    assert sum(model._buffers_of_steps.count()) <= 1.25 * (settled + held)
    del kept, array
    model.zero_grad()
    free, used = model._buffers_of_steps.count()
    assert used == 0
    assert free > 0
    model(x)
    assert sum(model._buffers_of_steps.count()) <= free
    model.eval()
    assert model._buffers_of_steps is None


def test_copies_and_pickles_have_memory_of_their_own():
    model = conv_norm(6, np.float32)
    x = np.random.default_rng(6).standard_normal((16, 3, 32, 32)).astype(np.float32)
    y = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model.eval()))):
        np.testing.assert_array_equal(other.train()(x), y)
        assert other._buffers_of_steps is not model._buffers_of_steps


@pytest.mark.parametrize("network", ["conv_pool", "conv_norm", "residual"])
def test_formats_at_the_boundary(network):
    """Same bits for both formats; images come back in the format they were given in."""
    rng = np.random.default_rng(7)
    model = NETWORKS[network](7, np.float32)
    x = rng.standard_normal((4, 3, 12, 15)).astype(np.float32)
    g = rng.standard_normal(model.output_shape(x.shape)).astype(np.float32)
    first = run(copy.deepcopy(model), x, g, True)
    last = run(copy.deepcopy(model), channels_last(x), channels_last(g), True)
    mixed = run(model, x, channels_last(g), True)
    for a, b, c in zip(
        (first[0], *first[1]), (last[0], *last[1]), (mixed[0], *mixed[1]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert first[0].flags.c_contiguous
    assert first[1][0].flags.c_contiguous
    assert last[0].transpose(0, 2, 3, 1).flags.c_contiguous
    assert last[1][0].transpose(0, 2, 3, 1).flags.c_contiguous


# ---- gradients written over what nobody else has -------------------------------------------------


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 17, 1, 1), (5, 33, 9, 4), (2, 64, 33, 32)])
@pytest.mark.parametrize("training", [True, False])
def test_a_norm_written_over_its_arguments_has_the_same_bits(shape, form, training):
    rng = np.random.default_rng(3)
    x, g, r = (FORMATS[form](rng.standard_normal(shape).astype(np.float32)) for _ in range(3))
    means, weight, bias = rng.standard_normal((3, shape[1])).astype(np.float32)
    statistics = means, np.abs(means) + 1
    for clamp in (_norm.NO_CLAMP, (0.0, np.inf), (0.0, 6.0)):
        for added in (None, r):
            options = *statistics, weight, bias, training, 0.0, 1e-5, clamp, added
            y, saved = _norm._batch_norm_saved(x, *options)
            over = x.copy(order="K")
            same, _ = _norm._batch_norm_saved(over, *options, over)
            assert same is over
            np.testing.assert_array_equal(same, y)
            given = saved, weight, bias, training, clamp, None if added is None else y
            expected = _norm._batch_norm_saved_backward(g, x, *given)
            for owns in ((True, False), (False, True), (True, True)):
                own_g, own_x = g.copy(order="K"), x.copy(order="K")
                found = _norm._batch_norm_saved_backward(own_g, own_x, *given, *owns)
                count = 3 if added is None else 4  # without a residual it has no gradient
                for a, b in zip(found[:count], expected[:count], strict=True):
                    np.testing.assert_array_equal(a, b)
                if owns[0]:
                    assert found[0] is own_x
                else:
                    np.testing.assert_array_equal(own_x, x)
                if not owns[1]:
                    np.testing.assert_array_equal(own_g, g)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("network", NETWORKS)
def test_what_the_caller_gives_is_never_written_over(network, form):
    rng = np.random.default_rng(4)
    model = NETWORKS[network](0, np.float32)
    x = FORMATS[form](rng.standard_normal((4, 3, 12, 15)).astype(np.float32))
    y = model(x)
    g = rng.standard_normal(y.shape).astype(np.float32)
    g = FORMATS[form](g) if g.ndim == 4 else g
    before = x.copy(), y.copy(), g.copy()
    model.backward(g)
    model.eval()(x)
    for array, kept in zip((x, y, g), before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_what_a_layer_of_ones_own_keeps_is_never_written_over():
    class Keeping(nn.Conv2d):
        def forward(self, x):
            self.output = super().forward(x)
            return self.output

        def backward(self, grad):
            self.grad = grad
            return grad_of(self, grad)

    def grad_of(layer, grad):
        layer.grad_x = nn.Conv2d.backward(layer, grad)
        return layer.grad_x

    rng = np.random.default_rng(5)
    keeping = Keeping(4, 4, 3, padding=1, rng=0)
    model = nn.Sequential(
        nn.BatchNorm2d(4), keeping, nn.BatchNorm2d(4), nn.ReLU(), conv(0, 4, 4), nn.BatchNorm2d(4)
    )
    replaced = model[4].forward  # a bound method: the object's own from here on
    outputs = []
    model[4].forward = lambda x: outputs.append(replaced(x)) or outputs[-1]
    x = channels_last(rng.standard_normal((3, 4, 9, 9)).astype(np.float32))
    y = model(x)
    kept = keeping.output.copy(), outputs[0].copy()
    model.backward(rng.standard_normal(y.shape).astype(np.float32))
    grad_x = keeping.grad_x.copy()
    np.testing.assert_array_equal(keeping.output, kept[0])
    np.testing.assert_array_equal(outputs[0], kept[1])
    np.testing.assert_array_equal(keeping.grad_x, grad_x)


def check_what_is_kept(make, training):
    """The model of make(keep), forward and backward: no array that `keep` got may change."""
    rng = np.random.default_rng(6)
    kept = []

    def keep(array):
        kept.append((array, array.copy()))
        return array

    model = make(keep)
    if not training:
        model.eval(backward=True)
    y = keep(model(keep(channels_last(rng.standard_normal((3, 4, 8, 8)).astype(np.float32)))))
    keep(model.backward(keep(channels_last(rng.standard_normal(y.shape).astype(np.float32)))))
    assert len(kept) > 4
    for array, before in kept:
        np.testing.assert_array_equal(array, before)


def identity_backward(layer):
    layer.backward = lambda grad: grad
    return layer


def tap(keep):
    class Tap(nn.Module):
        def forward(self, x):
            return keep(x)

        def backward(self, grad):
            return keep(grad)

    return Tap()


def logging(keep, kind, *arguments, **options):
    """A class of one's own that keeps what the library's layer returns, by a mixin."""

    class Log:
        def forward(self, x):
            return keep(super().forward(x))

        def backward(self, grad):
            return keep(super().backward(grad))

    class Logging(Log, kind):
        pass

    return Logging(*arguments, **options)


def replaced(keep, layer):
    forward, backward = layer.forward, layer.backward
    layer.forward = lambda x: keep(forward(x))
    layer.backward = lambda grad: keep(backward(grad))
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda k: nn.Sequential(conv(0, 4, 4), nn.ReLU(), tap(k), conv(1, 4, 4)),
        lambda k: nn.Sequential(nn.Identity(), nn.BatchNorm2d(4), tap(k), conv(0, 4, 4)),
        lambda k: nn.Sequential(tap(k), nn.BatchNorm2d(4), nn.ReLU(), tap(k), conv(0, 4, 4)),
        lambda k: nn.Sequential(logging(k, nn.Conv2d, 4, 4, 1), nn.BatchNorm2d(4)),
        lambda k: nn.Sequential(
            nn.BatchNorm2d(4), nn.ReLU(), logging(k, nn.Conv2d, 4, 4, 1), nn.BatchNorm2d(4)
        ),
        lambda k: nn.Sequential(nn.BatchNorm2d(4), replaced(k, conv(0, 4, 4)), nn.BatchNorm2d(4)),
        lambda k: nn.Sequential(
            tap(k), nn.BatchNorm2d(4), nn.ReLU(), identity_backward(conv(0, 4, 4)), tap(k)
        ),
        lambda k: nn.Residual({"a": replaced(k, conv(0, 4, 4)), "b": replaced(k, conv(1, 4, 4))}),
        lambda k: nn.Residual({"a": identity_backward(conv(0, 4, 4)), "b": tap(k)}, tap(k)),
        lambda k: nn.Residual(
            {"a": logging(k, nn.Conv2d, 4, 4, 1), "b": nn.BatchNorm2d(4)}, activation=nn.ReLU()
        ),
        lambda k: nn.Residual(
            {"a": replaced(k, conv(0, 4, 4, stride=2))}, SubsampleAndPad(4, stride=2), nn.ReLU()
        ),
        lambda k: nn.Residual({"a": conv(0, 4, 4), "b": tap(k)}, nn.BatchNorm2d(4), tap(k)),
    ],
)
def test_arrays_that_others_keep_are_never_written_over(make, training):
    check_what_is_kept(make, training)


def test_a_method_replaced_in_a_class_is_called(monkeypatch):
    calls = []
    original = nn.Conv2d.backward
    monkeypatch.setattr(nn.Conv2d, "backward", lambda s, g: calls.append(s) or original(s, g))
    model = nn.Sequential(conv(0, 4, 4), nn.ReLU(), conv(1, 4, 4))
    x = channels_last(np.ones((1, 4, 5, 5), np.float32))
    model.backward(model(x))
    assert len(calls) == 2


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_residual_with_a_pool_at_the_end_of_its_body(norm, mode):
    rng = np.random.default_rng(7)
    layers = {"c": nn.Conv2d(2, 2, 1, rng=0, dtype=np.float64), "r": nn.ReLU()}
    layers["p"] = nn.MaxPool2d(3, 1, 1)
    if norm:
        layers["b"] = nn.BatchNorm2d(2, dtype=np.float64)
    model = nn.Residual(layers)
    if mode == "eval":
        model.eval(backward=True)
    x = rng.standard_normal((2, 2, 6, 6))
    grad = rng.standard_normal(x.shape)
    results = []
    for enabled in (False, True):
        with nn.fusion(enabled):
            model(x)
            results.append(model.backward(grad))
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-10)


def test_a_gradient_in_a_file_is_not_written(tmp_path):
    model = nn.Residual({"c": conv(0, 4, 4), "b": nn.BatchNorm2d(4)}, nn.BatchNorm2d(4))
    x = np.random.default_rng(8).standard_normal((2, 4, 6, 6)).astype(np.float32)
    grad = np.memmap(tmp_path / "grad", np.float32, "w+", shape=x.shape)
    grad[...] = x
    model(x)
    model.backward(grad)
    np.testing.assert_array_equal(grad, x)


@pytest.mark.parametrize("dtype", ["f2", "i4", ">f4", "c8"])
def test_option_a_shortcut_of_other_dtypes(dtype):
    x = channels_last(np.arange(64).reshape(1, 4, 4, 4).astype(dtype))
    y = SubsampleAndPad(8, stride=2)(x)
    np.testing.assert_array_equal(y[:, :4], x[:, :, ::2, ::2])
    assert not y[:, 4:].any()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [8, 9])
def test_option_a_shortcut_in_a_block(size, dtype, form):
    rng = np.random.default_rng(6)
    body = {"conv": conv(rng, 5, 19, stride=2, dtype=dtype), "bn": nn.BatchNorm2d(19, dtype=dtype)}
    model = nn.Residual(body, SubsampleAndPad(19), nn.ReLU())
    x = FORMATS[form](rng.standard_normal((3, 5, size, size)).astype(dtype))
    g = rng.standard_normal(model.output_shape(x.shape)).astype(dtype)
    y, grads, _ = run(model, x, g, True)
    expected, expected_grads, _ = run(model, x, g, False)
    np.testing.assert_array_equal(y, expected)
    for a, b in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
