"""Inference plans: the same values as the model in eval mode, in one arena, from many threads."""

import importlib
import threading

import numpy as np
import pytest
from helpers import poisoned, randomized, same_bits, to_format
from plans import (
    IMAGE,
    MODELS,
    Double,
    build,
    close,
    conv,
    norm,
    normal,
    statistics_from_data,
)

import fastconv
from fastconv import models, nn
from fastconv.inference.arena import aligned, place
from fastconv.inference.graph import Buffer

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


# --- NaN ------------------------------------------------------------------------------------------


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


def test_nan_in_an_image_where_rows_of_the_kernel_are_cut_off(isa):
    """5x3 on 2 rows is 3x3; a prepared call has no weight to run a spoilt image again with."""
    model = nn.Sequential(nn.Conv2d(64, 64, (5, 3), padding=(2, 1), rng=0)).eval()
    x = np.ones((1, 64, 2, 32), np.float32)
    x[0, 3, 1, 9] = np.nan
    y = fastconv.compile(model, x.shape)(x)
    assert np.isnan(y[0, :, :, 8:11]).all()
    assert np.isfinite(y[0, :, :, 16:]).all()


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


def test_rows_of_explain_are_plain(capsys):
    """At a prompt the list below the table is a line."""
    rows = fastconv.compile(models.lenet5(rng=0), (1, 1, 28, 28)).explain()
    assert repr(rows) == f"<{len(rows)} StepReports>"
    assert {type(row.seconds) for row in rows} == {type(row.share) for row in rows} == {float}
