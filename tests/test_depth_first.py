"""Expansion, depthwise convolution and projection by bands of rows; planes of color before."""

from pathlib import Path

import numpy as np
import pytest
from helpers import poisoned, randomized, same_bits, to_format

import fastconv
from fastconv import models, nn


def normal(shape, dtype):
    return np.random.default_rng(2).standard_normal(shape).astype(dtype)


def block(inputs, wide, outputs, kernel=3, stride=1, head=1, residual=False, dtype=np.float32):
    """Expansion, depthwise convolution, projection."""
    padding = kernel // 2
    options = {"rng": 0, "dtype": dtype}
    layers = [
        nn.Conv2d(inputs, wide, head, 1, head // 2, **options),
        nn.BatchNorm2d(wide, dtype=dtype), nn.ReLU6(),
        nn.Conv2d(wide, wide, kernel, stride, padding, groups=wide, bias=False, **options),
        nn.BatchNorm2d(wide, dtype=dtype), nn.ReLU6(),
        nn.Conv2d(wide, outputs, 1, bias=False, **options), nn.BatchNorm2d(outputs, dtype=dtype),
    ]  # fmt: skip
    return nn.Residual(nn.Sequential(*layers)) if residual else nn.Sequential(*layers)


def has_small_cache():
    """A second-level cache smaller than the chains below are made for."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text()
    except OSError:
        return False
    return size.strip().endswith("K") and int(size.strip()[:-1]) < 1024


def chains(plan):
    """0: alone, 1: with a place in the arena for what lies between, 2: without."""
    between = [node.y.buffer.place for node in plan.nodes if node.chain]
    return [1 if place == fastconv._core.IN_ARENA else 2 for place in between]


CHAINS = {
    # shape of x; arguments of block; in the arena or not
    "odd": ((1, 5, 13, 11), (5, 35, 17), 1),
    "stride 2": ((1, 8, 15, 17), (8, 33, 12, 3, 2), 1),
    "stride 2, even": ((2, 8, 16, 18), (8, 48, 24, 3, 2), 1),
    "5x5": ((1, 8, 12, 12), (8, 48, 16, 5), 1),
    "5x5, pixels 1 KiB apart": ((1, 24, 12, 12), (24, 256, 16, 5), 1),
    "5x5, stride 2": ((2, 7, 21, 19), (7, 40, 16, 5, 2), 1),
    "stride 3": ((1, 7, 20, 20), (7, 40, 16, 3, 3), 1),
    "kernel 1": ((1, 7, 9, 9), (7, 40, 16, 1, 2), 1),
    "residual": ((3, 16, 9, 10), (16, 96, 16, 3, 1, 1, True), 1),
    "two rows": ((1, 16, 2, 20), (16, 96, 16), 1),
    "large": ((1, 24, 81, 83), (24, 200, 24, 3, 1, 1, True), 2),
    "large, stride 2": ((1, 24, 90, 77), (24, 200, 32, 3, 2), 2),
    "large, two images": ((2, 20, 63, 64), (20, 200, 32, 5, 2), 2),
    # tiles of AVX-512 that are known to start at 0, be clamped and stay in the caches
    "2 inputs": ((1, 2, 24, 24), (2, 48, 16), 1),
    "3 inputs, a partial vector": ((1, 3, 22, 23), (3, 60, 60), 1),
    "7x7, 2 inputs": ((1, 2, 22, 24), (2, 60, 24, 3, 2, 7), 1),
    "14 rows of a tile": ((1, 64, 6, 14), (64, 380, 64, 3, 1, 1, True), 1),
    "12 and 13 rows": ((1, 48, 7, 7), (48, 284, 60), 1),
    "many images": ((9, 40, 14, 14), (40, 240, 40, 3, 1, 1, True), 2),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CHAINS)
def test_depth_first_has_the_bits_of_step_by_step(isa, name, dtype):
    shape, arguments, kind = CHAINS[name]
    model = nn.Sequential(nn.Sigmoid(), block(*arguments, dtype=dtype), nn.Tanh())
    model = randomized(model).eval()
    x = normal(shape, dtype)
    with fastconv.num_threads(1):
        want = fastconv.compile(model, shape, dtype=dtype, depth_first=False)(x)
        plan = fastconv.compile(model, shape, dtype=dtype)
    found = chains(plan)
    if not found and (kind == 2 or has_small_cache()):
        pytest.skip("rows too long for the cache of this machine")
    assert found == [kind] or (found == [2] and has_small_cache())
    for threads in (1, 2, 3, 16):
        with fastconv.num_threads(threads):
            assert same_bits(plan(x), want), threads
            assert same_bits(plan(x), want), threads
    x[0, 1, shape[2] // 4 * 2, 4] = np.nan
    spoilt = plan(x)
    with fastconv.num_threads(1):
        want = fastconv.compile(model, shape, dtype=dtype, depth_first=False)(x)
    np.testing.assert_array_equal(np.isnan(spoilt), np.isnan(want))
    assert 0 < np.isnan(want).sum() < want.size


@pytest.mark.parametrize(("size", "kind"), [(20, 1), (90, 2)])
def test_depth_first_adds_a_residual_that_is_the_whole_epilogue(isa, size, kind):
    block = nn.Sequential(
        nn.Conv2d(8, 48, 1, rng=0),
        nn.Conv2d(48, 48, 3, padding=1, groups=48, rng=1),
        nn.Conv2d(48, 8, 1, bias=False, rng=2),
    )
    model = nn.Sequential(nn.Sigmoid(), nn.Residual(block)).eval()
    x = normal((1, 8, size, size), np.float32)
    plan = fastconv.compile(model, x.shape)
    assert chains(plan) in ([kind], [1])  # by the size of the cache
    want = fastconv.compile(model, x.shape, depth_first=False)(x)
    np.testing.assert_allclose(want, model(x), rtol=0, atol=1e-5)
    for threads in (1, 2):
        with fastconv.num_threads(threads):
            assert same_bits(plan(x), want)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last", "strided"])
def test_depth_first_from_input_to_output(isa, layout):
    """A first layer of 3x3, stride 2; the chain reads the caller's array and writes the result."""
    head = nn.Conv2d(3, 32, 3, 2, 1, rng=0)
    rest = nn.Conv2d(32, 32, 3, 1, 1, groups=32, rng=1), nn.ReLU(), nn.Conv2d(32, 17, 1, rng=2)
    model = nn.Sequential(head, nn.ReLU6(), *rest).eval()
    x = to_format(normal((2, 3, 131, 217), np.float32), layout)
    with fastconv.num_threads(1):
        want = fastconv.compile(model, x.shape, depth_first=False)(x)
    plan = fastconv.compile(model, x.shape)
    assert chains(plan) == [2]
    assert plan.arena_bytes == 0
    for threads in (1, 2, 5):
        with fastconv.num_threads(threads):
            assert same_bits(plan(x), want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_color_planes_to_pixels(isa, dtype):
    for channels in (2, 3, 4):
        for width in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50):
            x = normal((2, channels, 3, width), dtype)
            guarded = poisoned(2 * 3 * width * channels + 64, dtype=dtype)
            y = guarded[32:-32].reshape(2, 3, width, channels).transpose(0, 3, 1, 2)
            fastconv._core.copy(x, y)
            np.testing.assert_array_equal(y, x)
            assert np.isnan(guarded[:32]).all()
            assert np.isnan(guarded[-32:]).all()


def test_what_does_not_run_depth_first():
    def chain(*layers, shape=(1, 8, 24, 24)):
        return chains(fastconv.compile(nn.Sequential(nn.Tanh(), *layers).eval(), shape))

    def wide(kernel=3, padding=1, dilation=1):
        return nn.Conv2d(48, 48, kernel, 1, padding, dilation, groups=48, rng=0)

    up, down = nn.Conv2d(8, 48, 1, rng=0), nn.Conv2d(48, 16, 1, rng=0)
    assert chain(up, wide(), down) == [1]
    assert chain(up, wide(), nn.ReLU(), down, up_again := nn.Conv2d(16, 48, 1, rng=0)) == [1]
    assert chain(up, wide(), down, up_again, wide(), down) == [1, 1]
    assert chain(up, nn.SiLU(), wide(), down) == []
    assert chain(up, nn.Residual({"a": wide()}), down) == []
    assert chain(up, wide(dilation=2, padding=2), down) == []
    assert chain(up, wide(padding=3), down) == []  # rows of nothing but padding
    assert chain(up, wide(), nn.Conv2d(48, 16, 1, 2, rng=0)) == []
    assert chain(up, wide(), nn.Conv2d(48, 16, 1, padding=1, rng=0)) == []
    assert chain(up, wide(), down, shape=(1, 8, 24, 5)) == []  # laid on its side
    assert chain(up, wide(), down, shape=(1, 8, 6, 40000)) == []  # rows too long for any cache
    up.weight.data[0, 0] = np.inf
    assert chain(up, wide(), down) == []


def test_depth_first_needs_less_memory():
    shape = (1, 3, 224, 224)
    model = randomized(models.create("mobilenet_v2", rng=0)).eval()
    plan = fastconv.compile(model, shape)
    plain = fastconv.compile(model, shape, depth_first=False)
    assert len(chains(plan)) == 17
    assert plan.arena_bytes < plain.arena_bytes / 2
    x = normal(shape, np.float32)
    assert same_bits(plan(x), plain(x))
    rows = plan.explain()
    assert len(rows) == len(plan.nodes) - 2 * 17
    assert rows[1].name == "features.2.conv.0.0"
    assert rows[1].algorithm == "direct > depthwise > direct"
    assert rows[1].fused[2:4] == ("features.2.conv.1.0", "features.2.conv.1.1")
    assert sum(row.macs for row in rows) == models.summary(model, shape[1:]).macs
