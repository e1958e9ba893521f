"""Arguments of convolutions that must be refused: which exception, and what its message says."""

import numpy as np
import pytest
from helpers import same_bits, to_format

import fastconv.functional as F

FORWARD = {
    "conv1d": (F.conv1d, (2, 4, 9), (6, 4, 3)),
    "conv2d": (F.conv2d, (2, 4, 9, 8), (6, 4, 3, 3)),
    "conv_transpose1d": (F.conv_transpose1d, (2, 4, 9), (4, 6, 3)),
    "conv_transpose2d": (F.conv_transpose2d, (2, 4, 9, 8), (4, 6, 3, 3)),
}
BACKWARD = {
    f"{name}_backward": (getattr(F, f"{name}_backward"), x, w)
    for name, (_, x, w) in FORWARD.items()
}
BAD_NUMBERS = {
    "zero": (0, ValueError),
    "negative": (-1, ValueError),
    "2**31": (2**31, ValueError),
    "2**63 - 1": (2**63 - 1, ValueError),
    "2**63": (2**63, ValueError),
    "2**64 + 1": (2**64 + 1, ValueError),
    "-2**63": (-(2**63), ValueError),
    "float": (1.0, TypeError),
    "nan": (float("nan"), TypeError),
    "bool": (True, TypeError),
    "numpy bool": (np.True_, TypeError),
    "numpy float": (np.float32(1), TypeError),
    "complex": (1j, TypeError),
    "str": ("1", (TypeError, ValueError)),
    "bytes": (b"1", TypeError),
    "None": (None, TypeError),
    "array": (np.array([1, 1]), TypeError),
    "dict": ({}, TypeError),
    "too many": ((1, 1, 1), ValueError),
    "none of them": ((), ValueError),
}


def call(name, arguments):
    function, x, w = {**FORWARD, **BACKWARD}[name]
    x, w = np.ones(x), np.ones(w)
    if name.endswith("_backward"):
        y = FORWARD[name.removesuffix("_backward")][0](x, w)
        return function(y, x, w, **arguments)
    return function(x, w, **arguments)


def refused():
    """(function, argument, bad number) where the function has the argument and must refuse it."""
    for name in (*FORWARD, *BACKWARD):
        for argument in ("stride", "dilation", "padding", "groups", "output_padding"):
            if argument == "output_padding" and "transpose" not in name:
                continue
            for bad in BAD_NUMBERS:
                if bad != "zero" or "padding" not in argument:
                    yield name, argument, bad


@pytest.mark.parametrize(("name", "argument", "bad"), list(refused()))
def test_bad_number(name, argument, bad):
    """The message names the function and the argument."""
    value, error = BAD_NUMBERS[bad]
    if argument == "groups" and isinstance(value, tuple):
        error = TypeError
    with pytest.raises(error, match=rf"^{name}: .*{argument}"):
        call(name, {argument: value})
    if argument == "groups" or isinstance(value, tuple):
        return
    axes = 1 if "1d" in name else 2
    inside = (1,) * (axes - 1) + (value,)
    if isinstance(value, str):
        error = TypeError
    with pytest.raises(error, match=rf"^{name}: .*{argument}"):
        call(name, {argument: inside})


@pytest.mark.parametrize("value", [np.int8(2), np.uint8(2), np.int64(2), np.uint64(2), np.array(2)],
                         ids=["int8", "uint8", "int64", "uint64", "0-d array"])  # fmt: skip
def test_numpy_integers_are_integers(value):
    x, w = np.arange(64.0).reshape(1, 1, 8, 8), np.ones((2, 1, 3, 3))
    wanted = F.conv2d(x, w, None, 2, 2, 2)
    assert same_bits(F.conv2d(x, w, None, value, value, value), wanted)
    assert same_bits(F.conv2d(x, w, None, (value, 2), (2, value), [value, value]), wanted)
    assert same_bits(F.conv2d(x, w, None, 2, ((2, value), (value, 2)), 2), wanted)


PADDINGS = {
    "unknown word": ("SAME", ValueError),
    "causal in two dimensions": ("causal", ValueError),
    "three pairs": (((0, 0),) * 3, ValueError),
    "a triple": (((0, 0, 0), (0, 0)), ValueError),
    "pair and number": (((0, 0), 1), ValueError),
    "negative in a pair": (((0, -1), (0, 0)), ValueError),
    "float in a pair": (((0, 1.0), (0, 0)), TypeError),
    "bool in a pair": (((0, True), (0, 0)), TypeError),
    "2**63 in a pair": (((0, 2**63), (0, 0)), ValueError),
}


@pytest.mark.parametrize("bad", PADDINGS)
@pytest.mark.parametrize("name", ["conv2d", "conv2d_backward", "conv_transpose2d"])
def test_bad_padding(name, bad):
    value, error = PADDINGS[bad]
    with pytest.raises(error, match=f"^{name}: .*padding"):
        call(name, {"padding": value})


ONES = np.ones


def test_out_may_not_share_memory_with_an_input():
    x = np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match="out shares memory with input"):
        F.conv2d(x, np.ones((1, 1, 1, 1)), out=x)
    w = np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match="out shares memory with weight"):
        F.conv2d(x, w, padding=1, out=w)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_out_may_lie_between_the_input(layout):
    """Other channels of the same array, as a dense block writes them (arXiv:1608.06993)."""
    rng = np.random.default_rng(0)
    x = to_format(rng.standard_normal((2, 7, 5, 6)), layout)
    w = rng.standard_normal((3, 4, 3, 3))
    before, want = x.copy(), F.conv2d(x[:, :4].copy(), w, padding=1)
    F.conv2d(x[:, :4], w, padding=1, out=x[:, 4:])
    np.testing.assert_array_equal(x[:, :4], before[:, :4])
    np.testing.assert_array_equal(x[:, 4:], want)
    with pytest.raises(ValueError, match="out shares memory with input"):
        F.conv2d(x[:, :4], w, padding=1, out=x[:, 3:6])


L = 2**31 - 1
WRAPPING = {
    "image": lambda: F.conv2d(ONES((1, 4, 1, 1)), ONES((3, 4, 2, 2)), None, 1, ((L, 0), (L, 0)), L),
    "grad": lambda: F.conv2d_backward(
        ONES((1, 3, 1, 1)), ONES((1, 4, 1, 1)), ONES((3, 4, 2, 2)), 1, ((L, 0), (L, 0)), L
    ),
    "depthwise": lambda: F.conv2d(
        ONES((1, 4, 1, 1)), ONES((4, 1, 2, 2)), None, 1, ((L, 0), (L, 0)), L, 4
    ),
    "transposed": lambda: F.conv_transpose2d(
        ONES((1, 4, 1, 1)), ONES((4, 3, 2, 2)), None, 1, ((L, 0), (L, 0)), 0, 1, L
    ),
    "transposed grad": lambda: F.conv_transpose2d_backward(
        ONES((1, 3, 1, 1)), ONES((1, 4, 1, 1)), ONES((4, 3, 2, 2)), 1, ((L, 0), (L, 0)), 0, 1, L
    ),
    "stride": lambda: F.conv2d(ONES((1, 4, 2, 2)), ONES((3, 4, 2, 2)), None, L, L, L),
    "weight": lambda: F.conv2d(
        np.broadcast_to(1.0, (1, 2**18, 1, 1)),
        np.broadcast_to(1.0, (2, 2**18, 2**20, 2**20)),
        padding=((2**20 - 1, 0), (2**20 - 1, 0)),
    ),
}


@pytest.mark.parametrize("name", WRAPPING)
def test_sizes_whose_product_wraps_64_bits(name):
    """(2**31)**2 pixels of 4 channels of 4 bytes are 0 modulo 2**64: MemoryError, no crash."""
    with pytest.raises(MemoryError):
        WRAPPING[name]()
