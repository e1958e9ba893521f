"""What is true of every pool, of padding and of batch norm: identities between calls."""

import numpy as np
from helpers import eps, integers, same_bits, to_format
from strategies import MODES, channel_counts, flat_pad, holds, normal, pools, seeds, spread, st

import fastconv.functional as F
from fastconv import nn
from fastconv import reference as R


def equal(a, b):
    np.testing.assert_array_equal(a, b)


def with_nan(rng, shape, dtype):
    x = integers(rng, shape, dtype)
    x[rng.random(shape) < 0.08] = np.nan
    return x


def average(case, **changes):
    """The same problem for avg_pool, which has no dilation."""
    arguments = {k: v for k, v in case.arguments.items() if k != "dilation"}
    return {**arguments, **changes}


def avg_pool(case, x, **changes):
    return getattr(F, f"avg_pool{case.axes}d")(x, **average(case, **changes))


def avg_pool_backward(case, g, **changes):
    return getattr(F, f"avg_pool{case.axes}d_backward")(g, case.shape, **average(case, **changes))


def max_pool_backward(case, g, indices):
    return getattr(F, f"max_pool{case.axes}d_backward")(g, indices, case.shape)


@holds(case=pools())
def test_max_pool_equals_the_reference(case):
    """Values, indices and gradient, with ties and NaN."""
    x = case.x(with_nan)
    y, indices = case.call("max_pool", x, return_indices=True)
    reference = getattr(R, f"max_pool{case.axes}d")
    want, where = reference(x, **case.arguments, return_indices=True)
    equal(y, want)
    equal(indices, where)
    equal(case.call("max_pool", x), want)
    g = case.like(y)
    want = getattr(R, f"max_pool{case.axes}d_backward")(g, where, case.shape)
    equal(max_pool_backward(case, g, indices), want)
    layer = getattr(nn, f"MaxPool{case.axes}d")(**case.arguments)
    equal(layer(x), y)
    equal(layer.backward(g), want)  # by one byte for each window instead of indices


@holds(
    case=pools(dilated=False),
    include=st.booleans(),
    divisor=st.one_of(st.none(), st.integers(1, 9)),
)
def test_avg_pool_equals_the_reference(case, include, divisor):
    """Sums of whole numbers are exact: one rounding of the divisor and one of the product."""
    x = case.x()
    arguments = average(case, count_include_pad=include, divisor_override=divisor)
    y = getattr(F, f"avg_pool{case.axes}d")(x, **arguments)
    want = getattr(R, f"avg_pool{case.axes}d")(x.astype(np.float64), **arguments)
    sums = getattr(R, f"avg_pool{case.axes}d")(abs(x).astype(np.float64), **arguments)
    assert (abs(y - want) <= 2 * eps(case.dtype) * sums).all()
    g = case.like(y)
    back = getattr(F, f"avg_pool{case.axes}d_backward")(g, case.shape, **arguments)
    reference = getattr(R, f"avg_pool{case.axes}d_backward")
    want = reference(g.astype(np.float64), case.shape, **arguments)
    sums = reference(abs(g).astype(np.float64), case.shape, **arguments)
    windows = np.prod(arguments["kernel_size"])  # at most so many hold one element
    assert (abs(back - want) <= (2 + windows) * eps(case.dtype) * sums).all()


@holds(case=pools(dilated=False, ceil=False, words=False))
def test_avg_pool_is_a_depthwise_convolution(case):
    x = case.x()
    arguments = average(case)
    kernel, channels = arguments["kernel_size"], case.shape[1]
    ones = np.ones((channels, 1, *kernel), case.dtype)
    layer = {
        "stride": kernel if arguments["stride"] is None else arguments["stride"],
        "padding": arguments["padding"],
        "groups": channels,
        "algorithm": "direct",
    }
    y = avg_pool(case, x, divisor_override=1)
    equal(y, getattr(F, f"conv{case.axes}d")(x, ones, **layer))
    g = case.like(y)
    grad, _, _ = getattr(F, f"conv{case.axes}d_backward")(g, x, ones, **layer)
    equal(avg_pool_backward(case, g, divisor_override=1), grad)


@holds(case=pools())
def test_max_pool_backward_preserves_sums(case):
    """And <max_pool(x), g> == <x, grad>: each value is one of the input's."""
    x = case.x()
    y, indices = case.call("max_pool", x, return_indices=True)
    g = case.like(y)
    grad = max_pool_backward(case, g, indices)
    equal(grad.sum(axis=tuple(range(2, x.ndim))), g.sum(axis=tuple(range(2, x.ndim))))
    assert (y * g).sum() == (x * grad).sum()


@holds(case=pools(dilated=False))
def test_avg_pool_adjoint(case):
    x = case.x()
    y = avg_pool(case, x, divisor_override=1)
    g = case.like(y)
    assert (y * g).sum() == (x * avg_pool_backward(case, g, divisor_override=1)).sum()


@holds(case=pools(), shift=st.integers(-9, 9))
def test_max_pool_of_shifted_values(case, shift):
    """max(x + s) = max(x) + s at the same place: padding has no value of its own."""
    x = case.x()
    y, indices = case.call("max_pool", x, return_indices=True)
    moved, where = case.call("max_pool", x + case.dtype(shift), return_indices=True)
    equal(moved, y + case.dtype(shift))
    equal(where, indices)


@holds(case=pools())
def test_indices_lead_to_the_values(case):
    """max_unpool_backward gathers; max_unpool of distinct positions scatters."""
    x = case.x(normal)
    y, indices = case.call("max_pool", x, return_indices=True)
    assert same_bits(getattr(F, f"max_unpool{case.axes}d_backward")(x, indices), y)
    flat = x.reshape(*x.shape[:2], np.prod(x.shape[2:]))
    gathered = np.take_along_axis(flat, indices.reshape(*y.shape[:2], np.prod(y.shape[2:])), 2)
    equal(gathered.reshape(y.shape), y)


@holds(case=pools())
def test_window_of_one_is_the_identity(case):
    x = case.x(with_nan)
    once = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
    equal(case.call("max_pool", x, **once), x)
    once.pop("dilation")
    equal(avg_pool(case, x, **once), x)


@holds(case=pools(axes=1))
def test_one_dimension_is_an_image_of_height_1(case):
    x = case.x(normal)
    image, arguments = x[:, :, np.newaxis], dict(case.arguments)
    arguments["kernel_size"] = (1, *arguments["kernel_size"])
    arguments["dilation"] = (1, *arguments["dilation"])
    if arguments["stride"] is not None:
        arguments["stride"] = (1, *spread(arguments["stride"], 1))
    if not isinstance(arguments["padding"], str):
        arguments["padding"] = ((0, 0), *arguments["padding"])
    y, indices = case.call("max_pool", x, return_indices=True)
    y2, indices2 = F.max_pool2d(image, return_indices=True, **arguments)
    assert same_bits(y, y2[:, :, 0])
    equal(indices, indices2[:, :, 0])
    if case.arguments["dilation"] == (1,):
        arguments.pop("dilation")
        assert same_bits(avg_pool(case, x), F.avg_pool2d(image, **arguments)[:, :, 0])


@holds(case=pools(dilated=False), include=st.booleans(), cut=st.integers(0, 3))
def test_memory_format_and_batch_split_do_not_change_bits(case, include, cut):
    x = case.x(normal)

    def results(x, g=None):
        y, indices = case.call("max_pool", x, return_indices=True)
        g = case.like(y, normal) if g is None else g
        back = getattr(F, f"max_pool{case.axes}d_backward")(g, indices, x.shape)
        mean = avg_pool(case, x, count_include_pad=include)
        arguments = average(case, count_include_pad=include)
        mean_back = getattr(F, f"avg_pool{case.axes}d_backward")(g, x.shape, **arguments)
        return g, y, indices, back, mean, mean_back

    g, *first = results(x)
    for layout in ("channels_first", "channels_last"):
        for result, want in zip(results(to_format(x, layout), g)[1:], first, strict=True):
            assert same_bits(result, want)
    for part in (slice(cut), slice(cut, None)):
        for result, want in zip(results(x[part], g[part])[1:], first, strict=True):
            assert same_bits(result, want[part])


@holds(
    shape=st.tuples(st.integers(0, 3), channel_counts, st.integers(1, 4), st.integers(1, 4)),
    windows=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=seeds,
)
def test_adaptive_pools_of_equal_windows(shape, windows, seed):
    """Where the output size divides the input's, they are pools without overlap."""
    x = integers(
        np.random.default_rng(seed), (*shape[:2], shape[2] * windows[0], shape[3] * windows[1])
    )
    y, indices = F.adaptive_max_pool2d(x, shape[2:], return_indices=True)
    want, where = F.max_pool2d(x, windows, return_indices=True)
    equal(y, want)
    equal(indices, where)
    mean = F.adaptive_avg_pool2d(x, shape[2:])
    bound = 2 * eps(np.float64) * F.avg_pool2d(abs(x), windows)
    assert (abs(mean - F.avg_pool2d(x, windows)) <= bound).all()


@holds(
    shape=st.tuples(st.integers(0, 3), channel_counts, st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from((np.float32, np.float64)),
    seed=seeds,
)
def test_adaptive_pools_equal_the_reference(shape, size, dtype, seed):
    """Any sizes, larger ones too; ties and NaN in the maximum."""
    rng = np.random.default_rng(seed)
    x = with_nan(rng, shape, dtype)
    y, indices = F.adaptive_max_pool2d(x, size, return_indices=True)
    want, where = R.adaptive_max_pool2d(x, size, return_indices=True)
    equal(y, want)
    equal(indices, where)
    x, g = integers(rng, shape, dtype), integers(rng, y.shape, dtype)
    equal(
        F.adaptive_max_pool2d_backward(g, indices, shape),
        R.adaptive_max_pool2d_backward(g, where, shape),
    )
    for function, argument, rest in (
        ("adaptive_avg_pool2d", x, size),
        ("adaptive_avg_pool2d_backward", g, shape),
    ):
        result = getattr(F, function)(argument, rest)
        want = getattr(R, function)(argument.astype(np.float64), rest)
        sums = getattr(R, function)(abs(argument).astype(np.float64), rest)
        windows = np.prod([-(-n // m) + 1 for n, m in zip(size, shape[2:], strict=True)])
        assert (abs(result - want) <= (2 + windows) * eps(dtype) * sums).all()


@st.composite
def padded(draw):
    axes = draw(st.integers(1, 3))
    mode = draw(st.sampled_from(("constant", *MODES)))
    shape = draw(st.tuples(*[st.integers(1, 6)] * (axes + 1)))
    pairs = []
    for size in shape[1:]:
        most = {"reflect": size - 1, "symmetric": size, "circular": size}.get(mode, 7)
        least = -(size // 2) if mode == "constant" else 0
        pairs.append(draw(st.tuples(st.integers(least, most), st.integers(least, most))))
    return shape, flat_pad(pairs), mode


@holds(case=padded(), seed=seeds)
def test_pad_adjoint(case, seed):
    shape, pads, mode = case
    rng = np.random.default_rng(seed)
    x = integers(rng, shape)
    y = F.pad(x, pads, mode)
    equal(y, R.pad(x, pads, mode))
    g = integers(rng, y.shape)
    assert (y * g).sum() == (x * F.pad_backward(g, shape, pads, mode)).sum()


@holds(
    shape=st.tuples(st.integers(2, 4), channel_counts, st.integers(1, 9), st.integers(1, 9)),
    training=st.booleans(),
    dtype=st.sampled_from((np.float32, np.float64)),
    seed=seeds,
)
def test_batch_norm_memory_format_does_not_change_bits(shape, training, dtype, seed):
    rng = np.random.default_rng(seed)
    x, g = normal(rng, shape, dtype), normal(rng, shape, dtype)
    mean, w, b = (normal(rng, shape[1:2], dtype) for _ in range(3))

    def results(layout):
        running = mean.copy(), np.ones_like(mean)
        arrays = to_format(x, layout), *running, w, b, training
        y = F.batch_norm(*arrays)
        return y, *running, *F.batch_norm_backward(to_format(g, layout), *arrays)

    for result, want in zip(results("channels_last"), results("channels_first"), strict=True):
        assert same_bits(result, want)
