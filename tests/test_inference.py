"""Inference plans: the same values as the model in eval mode, in one arena, from many threads."""

import importlib
import math
import threading
import weakref

import numpy as np
import pytest
from helpers import poisoned, randomized, same_bits, to_format, tolerance

import fastconv
from fastconv import models, nn
from fastconv.inference.arena import Pages, aligned, place
from fastconv.inference.graph import Buffer
from fastconv.models.resnet import SubsampleAndPad

MODELS = {
    "logistic_regression": (3, 1, 28, 28),
    "softmax_regression": (1, 3, 28, 28),
    "mlp": (3, 1, 28, 28),
    "lenet5": (2, 1, 28, 28),
    "resnet8": (2, 3, 9, 9),
    "resnet20": (2, 3, 32, 32),
    "resnet18": (1, 3, 64, 64),
    "resnet50": (1, 3, 64, 64),
    "mobilenet_v2": (2, 3, 64, 64),
    "resnet1d": (2, 2, 50),
}
WINOGRAD = 4  # its errors over those of a direct sum of the same products


def build(name, shape, dtype=np.float32):
    """A model for that shape whose norms have statistics, weights and biases of their own."""
    options = {"in_channels": shape[1], "rng": 0, "dtype": dtype}
    model = models.create(name, **options)
    return randomized(model)


def statistics_from_data(model, shape, dtype):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    model.train()
    model(np.random.default_rng(5).standard_normal((4, *shape[1:])).astype(dtype))
    model.release()
    return model.eval()


def bound(plan, y):
    """Each layer adds errors of a sum of its terms; two computations of it are compared."""
    terms = [node.macs // math.prod(node.y.shape) for node in plan.nodes if node.macs]
    layers = sum(tolerance(count, y.dtype) for count in terms) + 4 * tolerance(1, y.dtype)
    return 2 * WINOGRAD * layers * max(1.0, np.abs(y).max())


def normal(shape, dtype=np.float64, seed=2):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(plan, x, expected):
    y = plan(x)
    assert y.shape == expected.shape == plan.output_shape
    assert y.dtype == expected.dtype
    assert np.abs(y - expected).max() <= bound(plan, expected)
    return y


# --- the models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MODELS)
def test_models(name, dtype):
    shape = MODELS[name]
    model = statistics_from_data(build(name, shape, dtype), shape, dtype)
    x = normal(shape, dtype)
    expected = model(x)
    plan = fastconv.compile(model, shape, dtype=dtype)
    close(plan, x, expected)
    for layout in ("channels_last", "strided"):
        close(plan, to_format(x, layout), expected)


def test_vgg(monkeypatch):
    vgg = importlib.import_module("fastconv.models.vgg")
    monkeypatch.setattr(vgg, "WIDTHS", (8, 16, 16, 32, 32))
    monkeypatch.setattr(vgg, "HIDDEN", 48)
    for name in ("vgg11", "vgg11_bn", "vgg16"):
        for batch, side in ((1, 32), (2, 32), (1, 224), (2, 71)):
            shape = (batch, 3, side, side)
            model = build(name, shape).eval()
            x = normal(shape, np.float32)
            close(fastconv.compile(model, shape), x, model(x))


def test_resnets_are_convolutions_and_pools_only():
    plan = fastconv.compile(build("resnet18", (1, 3, 64, 64)), (1, 3, 64, 64))
    kinds = [node.kind for node in plan.nodes]
    assert (kinds.count("conv"), kinds.count("max_pool"), kinds.count("avg_pool")) == (21, 1, 1)
    assert len(kinds) == 23
    assert sum(node.other is not None for node in plan.nodes) == 8
    plan = fastconv.compile(build("mobilenet_v2", (1, 3, 64, 64)), (1, 3, 64, 64))
    assert {node.kind for node in plan.nodes} == {"conv", "avg_pool"}
    assert len(plan.nodes) == 54


def test_under_every_instruction_set(isa):
    shape = MODELS["resnet20"]
    model = build("resnet20", shape).eval()
    x = normal(shape, np.float32)
    close(fastconv.compile(model, shape), x, model(x))


# --- single layers and trees ----------------------------------------------------------------------


class Double(nn.Module):
    """A layer without a rule."""

    def forward(self, x):
        return np.concatenate([x, x], axis=1)


class Shifted(nn.ReLU):
    """Replaces the forward of a layer that has a rule."""

    def forward(self, x):
        return super().forward(x) + 1


class Doubled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


class Scale(nn.Module):
    """A layer without a rule that has parameters and a float buffer."""

    def __init__(self, channels):
        self.weight = nn.Parameter(np.linspace(1, 2, channels))
        self.register_buffer("shift", np.linspace(-1, 1, channels))

    def forward(self, x):
        extra = (1,) * (x.ndim - 2)
        return x * self.weight.data.reshape(-1, *extra) + self.shift.reshape(-1, *extra)


def conv(inputs, outputs, kernel=3, padding=1, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, rng=0, dtype=np.float64, **options)


def conv1(inputs, outputs, kernel=3, **options):
    return nn.Conv1d(inputs, outputs, kernel, rng=0, dtype=np.float64, **options)


def norm(channels, **options):
    return nn.BatchNorm2d(channels, dtype=np.float64, **options)


def linear(inputs, outputs, **options):
    return nn.Linear(inputs, outputs, rng=0, dtype=np.float64, **options)


IMAGE, SIGNAL, ROWS = (6, 9, 8), (5, 20), (12,)
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


@pytest.mark.parametrize("weight", [0.5, np.inf, np.nan])
def test_nan_reaches_what_it_reaches_in_the_model(weight):
    block = nn.Residual({"c": conv(16, 12, 5, 2)}, conv(16, 12, 1, 0))
    model = randomized(nn.Sequential(conv(6, 16), norm(16), nn.ReLU(), block)).eval()
    block.c.weight.data[4, 2, 1, 1] = weight
    x = normal((2, 6, 30, 30))
    x[0, 3, 11, 17] = np.nan
    expected = model(x)
    y = fastconv.compile(model, x.shape, dtype=np.float64)(x)
    spoilt = np.isnan(y) != np.isnan(expected)
    near = np.zeros(spoilt.shape, bool)
    near[0, :, 4:20, 10:26] = True  # the first layer's Winograd tile, and what the others see of it
    assert not (spoilt & ~near).any()
    assert np.isnan(y)[np.isnan(expected)].all()
    finite = np.isfinite(expected) & ~spoilt
    assert 0 < finite.sum() < finite.size
    np.testing.assert_allclose(y[finite], expected[finite], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_linear_weights_have_the_bits_of_any_batch(isa, monkeypatch, dtype):
    """Read where they are for up to four rows, laid out for more: one order of sums."""
    for module in ("weights", "rules"):
        monkeypatch.setattr(f"fastconv.inference.{module}.LARGE", 100)
    sizes = (300, 97), (97, 33)
    layers = [nn.Linear(*size, rng=seed, dtype=dtype) for seed, size in enumerate(sizes)]
    model = nn.Sequential(nn.Identity(), layers[0], nn.ReLU(), layers[1]).eval()
    x = normal((7, 300), dtype)
    want = fastconv.compile(model, x.shape, dtype=dtype)(x)
    for rows in (1, 2, 4, 5):
        plan = fastconv.compile(model, (rows, 300), dtype=dtype)
        assert plan(x[:rows]).tobytes() == want[:rows].tobytes(), rows
    np.testing.assert_array_equal(model(x), want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 4, 5])
def test_large_linear_weights_are_shared(monkeypatch, batch, dtype):
    for module in ("weights", "rules"):
        monkeypatch.setattr(f"fastconv.inference.{module}.LARGE", 100)

    def dense(inputs, outputs, bias=True):
        return nn.Linear(inputs, outputs, bias, rng=0, dtype=dtype)

    layers = nn.Conv2d(3, 5, 3, rng=0, dtype=dtype), nn.Flatten(), dense(245, 97), nn.ReLU6()
    rest = dense(97, 80, False), nn.Residual({"a": dense(80, 80)}), dense(80, 33)
    model = nn.Sequential(*layers, *rest).eval()
    x = 8 * normal((batch, 3, 9, 9), dtype)
    plan = fastconv.compile(model, x.shape, dtype=dtype)
    shared = [weights.shared is not None for weights in plan._weights]
    assert sum(shared) == (3 if batch < 5 else 0)
    if batch < 5:
        assert np.shares_memory(plan._weights[2].shared, model[2].weight.data)
    y = close(plan, x, model(x))
    with fastconv.num_threads(1):
        assert same_bits(plan(x), y)
    single = fastconv.compile(model, x.shape, dtype=np.float32)  # one rounding of each weight more
    np.testing.assert_allclose(single(x.astype(np.float32)), y, rtol=0, atol=1e-5 * np.abs(y).max())
    x[0, 0, 0, 0] = np.nan
    assert np.isnan(plan(x)[0]).all()


# --- memory ---------------------------------------------------------------------------------------


def test_nothing_stale_is_read():
    for name in ("resnet20", "lenet5", "resnet1d"):
        shape = MODELS[name]
        plan = fastconv.compile(build(name, shape), shape)
        x = normal(shape, np.float32)
        first = plan(x)
        (arena,) = plan._arenas
        arena.view(np.float32)[...] = np.nan
        plan._arenas.append(arena)
        assert same_bits(plan(x), first)


def test_results_are_the_callers_own():
    shape = MODELS["resnet8"]
    plan = fastconv.compile(build("resnet8", shape), shape)
    x = normal(shape, np.float32)
    one = plan(x)
    kept = one.copy()
    two = plan(2 * x)
    assert not np.shares_memory(one, two)
    np.testing.assert_array_equal(one, kept)
    assert plan(poisoned(*shape)).shape == (2, 10)


@pytest.mark.parametrize("seed", range(5))
def test_arena_has_no_overlaps(seed):
    rng = np.random.default_rng(seed)
    buffers = []
    for _ in range(60):
        first = int(rng.integers(0, 40))
        last = first + int(rng.integers(0, 6))
        buffers.append(Buffer(int(rng.integers(1, 5000)), first=first, last=last))
    total = place(buffers, 4)
    for i, a in enumerate(buffers):
        assert a.offset % 64 == 0
        assert a.offset + 4 * a.elements <= total
        for b in buffers[:i]:
            together = a.first <= b.last and b.first <= a.last
            apart = a.offset + 4 * a.elements <= b.offset or b.offset + 4 * b.elements <= a.offset
            assert apart or not together
    live = max(sum(4 * b.elements for b in buffers if b.first <= t <= b.last) for t in range(46))
    assert live <= total <= 1.5 * live


def test_arena_is_the_peak_of_a_chain():
    model = nn.Sequential(*(conv(6, 6) for _ in range(9)))
    plan = fastconv.compile(model, (1, 6, 16, 16), dtype=np.float64)
    assert plan.arena_bytes == 2 * 6 * 16 * 16 * 8  # eight activations, two of them alive
    assert aligned(10).ctypes.data % 64 == 0


@pytest.mark.parametrize("expected", [0, 5000, 4 << 20])
@pytest.mark.parametrize("sizes", [[1, 64, 65, 3000, 5000], [10, 3 << 20, 100, 1 << 20, 5 << 20]])
def test_weights_share_blocks_of_memory(sizes, expected):
    pages, arrays = Pages(expected), []
    for number, size in enumerate(sizes):
        arrays.append(pages.take(size))
        assert arrays[-1].shape == (size,)
        assert arrays[-1].ctypes.data % 64 == 0
        arrays[-1][:] = number
    del pages
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_refused_weights_take_no_memory():
    """One is not finite, so nothing can be prepared of it, whatever the layout of the input."""
    x = normal((1, *IMAGE), np.float32)
    taken = []
    for value in (0.5, np.nan):
        model = nn.Sequential(conv(6, 64)).eval()
        model[0].weight.data[5, 2, 1, 1] = value
        plan = fastconv.compile(model, x.shape, dtype=np.float32)
        for image in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
            plan(image)
        taken.append(plan._weights[0]._pages._taken)
    assert taken[0] > 0 == taken[1]


def test_plan_is_a_snapshot():
    shape = MODELS["lenet5"]
    model = build("lenet5", shape)
    model.train()
    plan = fastconv.compile(model, shape)
    assert all(module.training for module in model.modules())
    x = normal(shape, np.float32)
    before = plan(x)
    for parameter in model.parameters():
        parameter.data[...] = 7
    assert same_bits(plan(x), before)


def test_release_takes_the_weights_over():
    model = nn.Sequential(conv(6, 5), norm(5), Scale(5), nn.Flatten(), linear(360, 7)).eval()
    x = normal((2, *IMAGE))
    expected = model(x)
    weight = weakref.ref(model[0].weight.data)
    plan = fastconv.compile(model, x.shape, dtype=np.float64, release=True)
    close(plan, x, expected)
    assert weight() is None
    assert all(parameter.size == 0 for parameter in model.parameters())
    with pytest.raises(ValueError, match="conv2d: weight must not have an axis of size 0"):
        model(x)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet18"])
def test_weights_are_kept_once(name):
    # a last Linear kept both its weight and what the kernel reads of it: 16 MiB of VGG-16
    shape = MODELS[name]
    plan = fastconv.compile(build(name, shape), shape)
    plan(normal(shape, np.float32))
    kept = [weights for weights in plan._weights if weights.nbytes]
    assert all((weights.raw is None) != (weights.prepared is None) for weights in kept)
    last = kept[-1]
    assert last.shape[2:] == (1, 1)
    assert last.raw is None


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_eight_threads_one_plan(name):
    shape = MODELS[name]
    plan = fastconv.compile(build(name, shape), shape)
    inputs = [normal(shape, np.float32, seed) for seed in range(8)]
    with fastconv.num_threads(1):
        expected = [plan(x) for x in inputs]
    barrier, found = threading.Barrier(8), [[] for _ in inputs]

    def run(i):
        barrier.wait()
        for _ in range(5):
            found[i].append(plan(inputs[i]))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, one in zip(found, expected, strict=True):
        assert len(results) == 5
        assert all(same_bits(y, one) for y in results)


# --- errors and printing --------------------------------------------------------------------------


def test_errors():
    model = models.lenet5(rng=0)
    plan = fastconv.compile(model, (1, 1, 28, 28))
    x = np.zeros((1, 1, 28, 28), np.float32)
    with pytest.raises(
        ValueError, match=r"plan: x must have .* \(1, 1, 28, 28\), got \(2, 1, 28, 28\)"
    ):
        plan(np.zeros((2, 1, 28, 28), np.float32))
    with pytest.raises(TypeError, match=r"plan: x is float64 but .* float32; use x.astype"):
        plan(x.astype(np.float64))
    with pytest.raises(TypeError, match=r"plan: x must be a numpy.ndarray, got list"):
        plan(x.tolist())
    with pytest.raises(TypeError, match="compile: model must be a Module, got type"):
        fastconv.compile(nn.ReLU, (1, 2))
    with pytest.raises(TypeError, match="compile: input_shape must be a tuple of ints, got int 3"):
        fastconv.compile(model, 3)
    with pytest.raises(TypeError, match="compile: dtype must be float32 or float64"):
        fastconv.compile(model, (1, 1, 28, 28), dtype=np.float16)
    with pytest.raises(ValueError, match=r"no axis of size 0, got \(0, 1, 28, 28\)"):
        fastconv.compile(model, (0, 1, 28, 28))
    with pytest.raises(ValueError, match="Conv2d: input must have 4 axes and 1 channels"):
        fastconv.compile(model, (1, 3, 28, 28))
    with pytest.raises(ValueError, match="Linear: the last axis of the input must be 400"):
        fastconv.compile(model, (1, 1, 40, 28))
    with pytest.raises(ValueError, match="Residual: the body gives shape"):
        fastconv.compile(nn.Residual({"a": conv(6, 5)}), (1, *IMAGE))
    with pytest.raises(MemoryError, match="compile: "):
        fastconv.compile(nn.Tanh(), (2**31, 2**31))
    with pytest.raises(MemoryError):
        fastconv.compile(conv(1, 1), (2**20, 1, 2**20, 2**20))


def test_a_plan_has_the_dtype_of_the_model():
    shape = MODELS["resnet8"]
    model = build("resnet8", shape).eval()
    assert fastconv.compile(model, shape).dtype == np.float32
    x = normal(shape)
    model.double()
    plan = fastconv.compile(model, shape)
    assert plan.dtype == np.float64
    close(plan, x, model(x))
    assert fastconv.compile(model, shape, dtype=np.float32).dtype == np.float32
    assert fastconv.compile(nn.Sequential(nn.ReLU()), shape).dtype == np.float32  # no parameters
    with pytest.raises(ValueError, match="half_linear rounds float32 weights, got dtype float64"):
        fastconv.compile(model, shape, half_linear=True)
    mixed = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5).double())
    with pytest.raises(ValueError, match="compile: model has float32 and float64 parameters; give"):
        fastconv.compile(mixed, (2, 3))
    x = normal((2, 3), np.float32)
    close(fastconv.compile(mixed, (2, 3), dtype=np.float32), x, mixed.float()(x))


def test_instruction_set_of_the_plan():
    isas = fastconv.isas()
    if len(isas) < 2:
        pytest.skip("one instruction set only")
    plan = fastconv.compile(models.lenet5(rng=0), (1, 1, 28, 28))
    with fastconv.use_isa(isas[-1]), pytest.raises(RuntimeError, match="compiled for instruction"):
        plan(np.zeros((1, 1, 28, 28), np.float32))


def test_explain(capsys):
    shape = MODELS["resnet18"]
    model = build("resnet18", shape)
    plan = fastconv.compile(model, shape)
    rows = plan.explain()
    text = capsys.readouterr().out.splitlines()
    assert text[0].split() == [
        "step",
        "algorithm",
        "output",
        "MMACs",
        "KiB",
        "ms",
        "share",
        "roofline",
    ]
    assert len(rows) == len(plan.nodes) == len(text) - 6
    assert rows[0].name == "conv1"
    assert rows[0].fused == ("bn1", "relu")
    assert rows[3].fused == ("layer1.0.bn2", "layer1.0.sum", "layer1.0.activation")
    assert text[2 + 3].startswith("layer1.0.conv2+bn2+sum+activation  ")
    assert rows[0].output_shape == (1, 64, 32, 32)
    outputs = rows[-1].bytes / 4 - (512 + 1000 + 1000)  # the weight, in whole vectors of outputs
    assert outputs % 512 == 0
    assert 1000 <= outputs / 512 < 1016
    assert sum(row.macs for row in rows) == models.summary(model, shape[1:]).macs
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert all(row.seconds > 0 and row.roofline > 0 for row in rows)
    assert {row.algorithm for row in rows} <= {"direct", "winograd", "max_pool", "avg_pool"}
    stated = plan.explain(peak_gflops=1e-3, bandwidth_gbs=1e9)
    expected = 2 * stated[0].macs / 1e6 / stated[0].seconds
    assert stated[0].roofline == pytest.approx(expected)
    assert repr(plan).startswith("Plan(input (1, 3, 64, 64) float32, output (1, 1000), 23 steps, ")


def test_explain_own_layers(capsys):
    model = nn.Sequential(conv(6, 32), Double(), nn.Tanh())
    rows = fastconv.compile(model, (1, *IMAGE), dtype=np.float64).explain()
    assert [row.algorithm for row in rows] == ["direct", "Double", "map", "copy"]
    assert [row.name for row in rows] == ["0", "1", "2", "output"]


def test_nan_in_an_image_where_rows_of_the_kernel_are_cut_off(isa):
    """5x3 on 2 rows is 3x3; a prepared call has no weight to run a spoilt image again with."""
    model = nn.Sequential(nn.Conv2d(64, 64, (5, 3), padding=(2, 1), rng=0)).eval()
    x = np.ones((1, 64, 2, 32), np.float32)
    x[0, 3, 1, 9] = np.nan
    y = fastconv.compile(model, x.shape)(x)
    assert np.isnan(y[0, :, :, 8:11]).all()
    assert np.isfinite(y[0, :, :, 16:]).all()
