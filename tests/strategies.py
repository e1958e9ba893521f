"""Random problems for the property tests, and the decorator that makes such a test.

Arrays follow from a seed: Hypothesis shrinks shapes and arguments, which say what went wrong, and
not the values. Whole numbers make every sum exact, so that `algorithm="direct"` is held to
equality; where only bits are compared the data are normal and the algorithm is "auto".
"""

from dataclasses import dataclass, field
from functools import wraps

import numpy as np
import pytest
from helpers import DTYPES, FORMATS, integers, to_format

import fastconv.functional as F

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_EVERY = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=30, derandomize=True, **_EVERY)
settings.register_profile("long", max_examples=3000, **_EVERY)

channel_counts = st.one_of(st.integers(1, 9), st.sampled_from((15, 16, 17, 31, 33)))
seeds = st.integers(0, 2**32 - 1)
MODES = ("reflect", "replicate", "circular", "symmetric")
WORDS = ("valid", "same", "same_lower", "full")


def holds(**drawn):
    """A test of `check` under every instruction set, for 30 problems, or 2,000 with `-m long`."""

    def make(check):
        @pytest.mark.parametrize(
            "length", ["default", pytest.param("long", marks=pytest.mark.long)]
        )
        def test(isa, length, trust_counts):
            @wraps(check)
            def counted(**problem):
                trust_counts[
                    f"properties, {check.__module__.removeprefix('test_properties_')}"
                ] += 1
                check(**problem)

            settings(settings.get_profile(length))(given(**drawn)(counted))()

        test.__doc__ = check.__doc__
        return test

    return make


@dataclass(frozen=True)
class Conv:
    """One call of conv1d or conv2d."""

    x_shape: tuple
    w_shape: tuple
    arguments: dict
    dtype: type
    layout: str
    seed: int
    axes: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "axes", len(self.x_shape) - 2)

    def forward(self, x, w, b=None, algorithm="direct", **changes):
        function = getattr(F, f"conv{self.axes}d")
        return function(x, w, b, algorithm=algorithm, **{**self.arguments, **changes})

    def backward(self, g, x, w, algorithm="direct", **changes):
        function = getattr(F, f"conv{self.axes}d_backward")
        return function(g, x, w, algorithm=algorithm, **{**self.arguments, **changes})

    def arrays(self, draw=integers):
        """x and g in the layout of the problem, w and b."""
        rng = np.random.default_rng(self.seed)
        x, w, b = (draw(rng, s, self.dtype) for s in (self.x_shape, self.w_shape, self.w_shape[:1]))
        g = draw(rng, self.forward(x, w).shape, self.dtype)
        return to_format(x, self.layout), w, b, to_format(g, self.layout)

    def pairs(self):
        """`padding` as pairs (before, after), if it is not a word."""
        return as_pairs(self.arguments["padding"], self.axes)


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def as_pairs(padding, axes):
    if isinstance(padding, int):
        padding = (padding,) * axes
    return tuple((p, p) if isinstance(p, int) else p for p in padding)


def flat_pad(pairs):
    """Pairs of axes as the argument of `pad`: from the last axis backward."""
    return tuple(p for pair in reversed(pairs) for p in pair)


def per_axis(axes, low, high):
    """An int, or one for each axis."""
    one = st.integers(low, high)
    return st.one_of(one, st.tuples(*[one] * axes))


def numbers(axes, most):
    """Every form of padding that is not a word."""
    pair = st.tuples(st.integers(0, most), st.integers(0, most))
    return st.one_of(per_axis(axes, 0, most), st.tuples(*[pair] * axes))


def spread(value, axes):
    return (value,) * axes if isinstance(value, int) else value


@st.composite
def tiled(draw, modes=MODES):
    """What "auto" runs by Winograd's method: squares and lines, stride 1, enough channels."""
    channels = st.sampled_from((8, 9, 16, 17, 33))
    kernel = draw(st.sampled_from(((3, 3), (3, 3), (4, 4), (5, 5), (1, 3), (3, 1), (1, 4), (5, 1))))
    c_in, c_out = draw(channels), draw(channels)
    sizes = draw(st.tuples(*[st.sampled_from((6, 7, 8, 11, 12, 15))] * 2))
    arguments = {"stride": 1, "padding": draw(numbers(2, 2)), "dilation": 1, "groups": 1}
    return Conv(
        (draw(st.sampled_from((3, 2, 1))), c_in, *sizes),
        (c_out, c_in, *kernel),
        {**arguments, "padding_mode": draw(st.sampled_from(("zeros", *modes)))},
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(FORMATS)),
        draw(seeds),
    )


@st.composite
def convs(draw, axes=None, words=True, modes=MODES, batch=3):
    """Any call that is valid: every argument, channels around the widths of vectors."""
    if axes is None and draw(st.integers(0, 2)) == 0:
        return draw(tiled(modes))
    axes = draw(st.sampled_from((1, 2))) if axes is None else axes
    groups = draw(st.sampled_from((1, 1, 1, 2, 3, "depthwise")))
    if groups == "depthwise":
        groups = draw(channel_counts)
        c_in, c_out = 1, draw(st.integers(1, 2))
    else:
        c_in, c_out = draw(channel_counts), draw(channel_counts)
    kernel = draw(st.tuples(*[st.integers(1, 5)] * axes))
    stride, dilation = draw(per_axis(axes, 1, 4)), draw(per_axis(axes, 1, 3))
    forms = [numbers(axes, 4)]
    if words:
        forms.append(st.sampled_from(WORDS + ("causal",) * (axes == 1)))
    padding = draw(st.one_of(forms))
    mode = draw(st.sampled_from(("zeros", "zeros", *modes)))
    sizes = []
    for axis in range(axes):
        reach = (kernel[axis] - 1) * spread(dilation, axes)[axis]
        if isinstance(padding, str):
            least = reach + 1 if padding == "valid" or mode != "zeros" else 1
        else:
            before, after = as_pairs(padding, axes)[axis]
            least = max(1, reach + 1 - before - after)
            if mode != "zeros":
                least = max(least, max(before, after) + 1)
        sizes.append(least + draw(st.integers(0, 12)))
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Conv(
        (draw(st.integers(0 if batch > 1 else 1, batch)), c_in * groups, *sizes),
        (c_out * groups, c_in, *kernel),
        {**arguments, "padding_mode": mode},
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(FORMATS)),
        draw(seeds),
    )


@dataclass(frozen=True)
class Pool:
    """One call of a max or average pool."""

    shape: tuple
    arguments: dict
    dtype: type
    layout: str
    seed: int
    axes: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "axes", len(self.shape) - 2)

    def call(self, name, *arrays, **changes):
        function = getattr(F, name.replace("pool", f"pool{self.axes}d"))
        return function(*arrays, **{**self.arguments, **changes})

    def x(self, draw=integers):
        rng = np.random.default_rng(self.seed)
        return to_format(draw(rng, self.shape, self.dtype), self.layout)

    def like(self, y, draw=integers):
        """Another array of the shape of `y`."""
        rng = np.random.default_rng(self.seed + 1)
        return to_format(draw(rng, y.shape, self.dtype), self.layout)


@st.composite
def pools(draw, axes=None, dilated=True, ceil=True, words=True):
    """Any pool whose windows all hold an element; with `dilated`, of max_pool only."""
    axes = draw(st.sampled_from((1, 2))) if axes is None else axes
    kernel = draw(st.tuples(*[st.integers(1, 5)] * axes))
    dilation = draw(st.tuples(*[st.integers(1, 3 if dilated else 1)] * axes))
    arguments = {"kernel_size": kernel, "stride": draw(st.one_of(st.none(), per_axis(axes, 1, 4)))}
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if words and draw(st.integers(0, 3)) == 0:
        arguments["padding"] = draw(st.sampled_from(("valid", "same", "same_lower")))
    else:
        one = [st.tuples(*[st.integers(0, extent // 2)] * 2) for extent in extents]
        arguments["padding"] = draw(st.tuples(*one))
    if dilated:
        arguments["dilation"] = dilation
    arguments["ceil_mode"] = draw(st.booleans()) if ceil else False
    sizes = [extent + draw(st.integers(0, 12)) for extent in extents]
    return Pool(
        (draw(st.integers(0, 3)), draw(channel_counts), *sizes),
        arguments,
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(FORMATS)),
        draw(seeds),
    )
