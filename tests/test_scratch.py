"""A convolution that finds no scratch memory: MemoryError, and out= is as it was; or the result."""

import numpy as np
import problems
import pytest
from helpers import same_bits
from test_conv_nonfinite import same

import fastconv
import fastconv.functional as F
from fastconv import _core, nn

# Calls that consist of others: residues of a dilation, copies of planes, sums over inputs, whole
# images, each within the phases of a stride.
COMPOSITES = {
    "dilated planes": ((5, 17, 24, 23), (33, 17, 3, 3), {"dilation": 3, "padding": 3}),
    "dilated inputs": ((3, 80, 20, 21), (40, 2, 3, 3), {"groups": 40, "dilation": 4}),
    "inputs": ((3, 80, 20, 21), (40, 2, 3, 3), {"groups": 40, "padding": 1}),
    "few outputs, dilated": ((3, 5, 24, 23), (3, 5, 3, 3), {"dilation": 3, "padding": 3}),
    "heavy": ((3, 72, 5, 6), (80, 72, 3, 3), {"padding": 1}),
    "heavy, dilated": ((3, 72, 7, 8), (80, 72, 3, 3), {"padding": 3, "dilation": 3}),
    "heavy 1-D": ((3, 72, 12), (80, 72, 5), {"padding": 2}),
}
TRANSPOSED_COMPOSITES = {
    "dilated": ((3, 24, 12, 11), (24, 40, 3, 3), {"stride": 2, "dilation": 3}),
    "dilated, 5 taps": ((3, 24, 12, 11), (24, 40, 5, 5), {"stride": 2, "dilation": 5}),
    "inputs": ((3, 80, 12, 11), (80, 1, 3, 3), {"stride": 2, "groups": 40}),
    "inputs, dilated": ((3, 80, 12, 11), (80, 1, 5, 5), {"stride": 2, "groups": 40, "dilation": 3}),
    "together": ((3, 64, 12, 11), (64, 40, 4, 4), {"stride": 2, "padding": 1}),
    "together, 1-D": ((3, 64, 70), (64, 48, 9), {"stride": 3, "padding": 1}),
    "gaps": ((3, 24, 9, 8), (24, 40, 2, 2), {"stride": 3}),
    "one window": ((3, 64, 1, 1), (64, 40, 7, 7), {"stride": 2, "padding": 2}),
    "a whole image each": ((3, 64, 3, 3), (64, 40, 6, 6), {"stride": 2, "padding": 4}),
}
NAMES = [*problems.PROBLEMS, *problems.TRANSPOSED, *COMPOSITES]
NAMES += [f"transposed {name}" for name in TRANSPOSED_COMPOSITES]


def arrays(name, dtype, layout):
    """The forward and backward functions, x, weight, bias, grad_output and the arguments."""
    if name in problems.PROBLEMS or name in problems.TRANSPOSED:
        return (*problems.functions(name), *problems.arrays(name, dtype, layout))
    transposed = name.startswith("transposed ")
    x_shape, w_shape, arguments = (
        TRANSPOSED_COMPOSITES[name[len("transposed ") :]] if transposed else COMPOSITES[name]
    )
    kind = f"conv{'_transpose' * transposed}{len(x_shape) - 2}d"
    forward, backward = getattr(F, kind), getattr(F, f"{kind}_backward")
    rng = np.random.default_rng(list(name.encode()))
    x, w = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
    y = forward(x, w, **arguments)
    b, g = (rng.standard_normal(s).astype(dtype) for s in (y.shape[1], y.shape))
    x, g = (problems.to_format(a, layout) for a in (x, g))
    return forward, backward, x, w, b, g, arguments


def attempts(call):
    """call() with 0, 1, ... blocks until it wants no more: its result or MemoryError, for each."""
    left, blocks = 0, 0
    while left == 0:
        fastconv.clear_workspace()
        _core.limit_scratch(blocks)
        try:
            result = call()
        except MemoryError:
            result = MemoryError
        finally:
            left = _core.limit_scratch(-1)
        yield result
        blocks += 1


def check(forward, backward, x, w, b, g, arguments, exact):
    """Returns how often there was a MemoryError, and how often a result."""
    out = forward(x, w, b, **arguments)
    want, gradients = out.copy(), backward(g, x, w, **arguments)
    poison = np.full_like(want, -7)
    terms = 4 * max(w[0].size, g[:, 0].size, x[:, 0].size)
    tried = [0, 0]
    out[...] = poison
    for result in attempts(lambda: forward(x, w, b, out=out, **arguments)):
        tried[result is not MemoryError] += 1
        if result is MemoryError:
            assert same_bits(out, poison)
        elif exact:
            assert same_bits(out, want)
        else:
            same(out, want, terms)
        out[...] = poison
    for result in attempts(lambda: backward(g, x, w, **arguments)):  # has no out=
        if result is not MemoryError:
            for a, b in zip(result, gradients, strict=True):
                same(a, b, terms)
    return np.array(tried)


@pytest.mark.parametrize(
    ("threads", "dtype", "layout"),
    [(1, np.float64, "channels_last"), (3, np.float32, "channels_first")],
)
@pytest.mark.parametrize("name", NAMES)
def test_no_scratch(name, threads, dtype, layout, trust_counts):
    """Each of the blocks that a call wants is the first that it does not get."""
    *functions, x, w, b, g, arguments = arrays(name, dtype, layout)
    nonfinite_x, nonfinite_w = x.copy(), w.copy()
    nonfinite_x[-1, 0, ..., x.shape[-1] // 2] = np.inf
    nonfinite_w[0, 0, ..., -1] = np.nan
    with fastconv.num_threads(threads):
        tried = check(*functions, x, w, b, g, arguments, exact=True)
        tried += check(*functions, nonfinite_x, w, b, g, arguments, exact=False)
        tried += check(*functions, x, nonfinite_w, b, g, arguments, exact=False)
    failed, done = tried
    assert failed > 0 or name == "one pixel"  # which reads its weight where it lies
    assert done >= 3
    trust_counts["calls without scratch memory"] += int(failed + done)


def test_a_chain_lends_what_its_steps_take():
    """Bands of other heights than the one that was asked about copied where that one did not."""
    options = {"rng": 0}
    model = nn.Sequential(
        nn.Sigmoid(),
        nn.Conv2d(24, 64, 3, (3, 1), 1, **options),
        nn.ReLU6(),
        nn.Conv2d(64, 64, 3, 1, 1, groups=64, **options),
        nn.ReLU6(),
        nn.Conv2d(64, 16, 1, **options),
    ).eval()
    plan = fastconv.compile(model, (1, 24, 47, 132))
    assert any(node.chain for node in plan.nodes)
    x = np.ones((1, 24, 47, 132), np.float32)
    with fastconv.num_threads(1):
        wanted = plan(x)
        without, *with_one_or_more = attempts(lambda: plan(x))
    assert without is MemoryError
    assert all(same_bits(result, wanted) for result in with_one_or_more)
