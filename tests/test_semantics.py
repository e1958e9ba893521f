"""docs/semantics.md: its examples as they stand, and the statements on arrays and convolution.

`@section(title)` names the section that a test holds. Pools, norm, activations and losses are in
test_semantics_values.py.
"""

import doctest
import re

import numpy as np
import pytest
from helpers import FORMATS, integers, is_channels_last, same_bits, to_format
from semantics_page import PAGE, SECTIONS, held, section

import fastconv.functional as F
from fastconv import reference as R

INF, NAN = np.inf, np.nan


def examples(title):
    blocks = re.findall(r"^```pycon\n(.*?)^```$", SECTIONS[title], re.MULTILINE | re.DOTALL)
    return "".join(blocks)


@pytest.mark.parametrize("title", [title for title in SECTIONS if examples(title)])
def test_examples(title):
    names = {}
    exec(re.sub("^>>> ", "", examples("Semantics"), flags=re.MULTILINE), names)
    exec("taps = np.array([[[1.0, 10.0]]])", names)
    text = examples(title)
    test = doctest.DocTestParser().get_doctest(text, names, title, str(PAGE), 0)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted
    assert not result.failed


def signal(*values):
    return np.array([values], float)


def test_every_section_is_held():
    """The last one by test_onnx.py and test_torch_grid.py, where those packages are installed."""
    assert held() | {"Where others differ"} == set(SECTIONS)


@section("Semantics")
def test_reference_has_the_same_functions():
    assert set(F.__all__) - set(R.__all__) == {"explain_conv2d"}


@section("Arrays")
def test_dtypes():
    x, w = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3))
    with pytest.raises(TypeError, match=r"weight\.astype"):
        F.conv2d(x, w)
    for dtype in (np.float16, np.int64, np.bool_, np.complex64, object):
        with pytest.raises(TypeError, match="float32 or float64"):
            F.max_pool2d(x.astype(dtype), 2)
    for dtype in (np.float16, np.int64, np.bool_, np.uint8):
        assert F.pad(x.astype(dtype), (1, 1)).dtype == dtype
        assert F.unfold(x.astype(dtype), 2).dtype == dtype
    assert F.max_pool2d(x, 2, return_indices=True)[1].dtype == np.int64


@section("Arrays")
@pytest.mark.parametrize("layout", FORMATS)
def test_output_follows_the_format(layout):
    x = to_format(np.ones((2, 3, 6, 6)), layout)
    last = layout == "channels_last"
    for y in (F.conv2d(x, np.ones((3, 3, 2, 2))), F.max_pool2d(x, 2), F.avg_pool2d(x, 2)):
        assert is_channels_last(y) == last
    assert is_channels_last(F.conv_transpose2d(x, np.ones((3, 2, 2, 2)))) == last
    assert is_channels_last(F.pad(x, (1, 1))) == last


@section("Arrays")
def test_integers():
    x = signal(1, 2, 3, 4)
    assert F.max_pool1d(x, np.uint8(2), np.int64(2)).shape == (1, 2)
    for wrong in (True, np.True_, 2.0, np.float64(2), "2", None):
        with pytest.raises(TypeError, match="kernel_size must be an int"):
            F.max_pool1d(x, wrong)
    with pytest.raises(ValueError, match="out shares memory with input"):
        F.max_pool1d(x, 1, out=x)
    np.testing.assert_array_equal(F.leaky_relu(-x, 2.0, out=x), signal(-2, -4, -6, -8))
    assert F.relu(x, out=x) is x


@section("Empty arrays")
def test_empty():
    x, w = np.ones((0, 3, 5, 5)), np.ones((4, 3, 3, 3))
    y = F.conv2d(x, w)
    assert y.shape == (0, 4, 3, 3)
    grads = F.conv2d_backward(y, x, w)
    assert [g.shape for g in grads] == [x.shape, w.shape, (4,)]
    assert not grads[1].any()
    assert not grads[2].any()
    assert np.isnan(F.mse_loss(x, x))
    assert F.mse_loss(x, x, "sum") == 0
    none = np.zeros((0, 3)), np.zeros(0, int)
    assert np.isnan(F.cross_entropy(*none))
    assert F.cross_entropy(*none, reduction="sum") == 0
    mean, var = np.zeros(3), np.ones(3)
    assert F.batch_norm(x, mean, var, training=True).shape == x.shape
    assert not mean.any()
    assert (var == 1).all()
    for wrong in ((np.ones((1, 3, 0, 5)), w), (np.ones((1, 3, 5, 5)), w[:0])):
        with pytest.raises(ValueError, match=r"empty|size 0"):
            F.conv2d(*wrong)


@section("Convolution")
def test_formula_and_sizes(isa, rng):
    """The formula of the page, written out."""
    x, w, b = integers(rng, (2, 3, 7, 8)), integers(rng, (4, 3, 2, 3)), integers(rng, (4,))
    (sh, sw), (dh, dw), (top, left) = (2, 3), (3, 2), (1, 2)
    y = F.conv2d(x, w, b, (2, 3), (1, 2), (3, 2), algorithm="direct")
    axes = zip((7, 8), (1, 2), (3, 2), (2, 3), (2, 3), strict=True)
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in axes]
    assert y.shape == (2, 4, *sizes)
    want = np.zeros(y.shape) + b[:, None, None]
    for n, o, i, j, c, u, v in np.ndindex(*y.shape, *w.shape[1:]):
        row, column = i * sh + u * dh - top, j * sw + v * dw - left
        if 0 <= row < 7 and 0 <= column < 8:
            want[n, o, i, j] += w[o, c, u, v] * x[n, c, row, column]
    np.testing.assert_array_equal(y, want)
    with pytest.raises(ValueError, match="does not fit"):
        F.conv2d(x, w, dilation=7)
    np.testing.assert_array_equal(F.convolve(signal(1, 2), [3.0, 4.0]), [[3, 10, 8]])  # flipped


@section("Convolution")
def test_unused_inputs_have_gradient_plus_zero(isa):
    x, w = np.ones((1, 1, 8)), -np.ones((1, 1, 2))
    grad, _, _ = F.conv1d_backward(np.ones((1, 1, 2)), x, w, stride=4, dilation=2)
    assert same_bits(grad, np.array([[[-1.0, 0, -1, 0, -1, 0, -1, 0]]]))


@section("Padding")
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_by_its_formula(isa, rng, stride):
    for size, kernel, dilation in [(5, 2, 1), (6, 3, 1), (7, 4, 2), (2, 5, 1), (9, 1, 1)]:
        x, w = integers(rng, (1, 2, size)), integers(rng, (3, 2, kernel))
        outputs, reach = -(-size // stride), dilation * (kernel - 1)
        total = max((outputs - 1) * stride + reach + 1 - size, 0)
        small, large = total // 2, total - total // 2
        for word, pads in (("same", (small, large)), ("same_lower", (large, small)),
                           ("full", (reach, reach)), ("causal", (reach, 0))):  # fmt: skip
            y = F.conv1d(x, w, None, stride, word, dilation, algorithm="direct")
            want = F.conv1d(x, w, None, stride, (pads,), dilation, algorithm="direct")
            np.testing.assert_array_equal(y, want)
            if word.startswith("same"):
                assert y.shape[2] == outputs


@section("Padding")
def test_who_takes_which_padding():
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
    assert F.conv2d(x, w, padding=9).shape == (1, 1, 21, 21)
    assert F.unfold(x, 2, padding="full").shape == (1, 4, 25)
    for call in (
        lambda: F.conv2d(x, w, padding=-1),
        lambda: F.conv2d(x, w, padding="causal"),
        lambda: F.max_pool2d(x, 2, padding="full"),
        lambda: F.conv_transpose2d(x, w, padding="same"),
        lambda: F.max_unpool2d(x, np.zeros(x.shape, np.int64), 2, padding="same"),
    ):
        with pytest.raises(ValueError, match="padding must be"):
            call()


PICTURES = {
    "constant": "---abcd---", "reflect": "dcbabcdcba", "symmetric": "cbaabcddcb",
    "replicate": "aaaabcdddd", "circular": "bcdabcdabc",
}  # fmt: skip


@section("Padding modes")
@pytest.mark.parametrize("mode", PICTURES)
def test_pictures_of_the_page(mode):
    assert f"`{' '.join(PICTURES[mode])}`" in SECTIONS["Padding modes"]
    letters = F.pad(np.arange(1, 5), (3, 3), mode)
    assert "".join("-abcd"[n] for n in letters) == PICTURES[mode]
    most = {"reflect": 3, "symmetric": 4, "circular": 4}.get(mode)
    if most is not None:
        F.pad(np.arange(4), (most, most), mode)
        with pytest.raises(ValueError, match="too large"):
            F.pad(np.arange(4), (most + 1, 0), mode)
    if mode == "replicate":
        with pytest.raises(ValueError, match="size 0"):
            F.pad(np.zeros(0), (1, 0), mode)
    if mode == "constant":
        np.testing.assert_array_equal(F.pad(np.arange(4), (-1, -2)), [1])
    else:
        x, w = np.arange(1.0, 5).reshape(1, 1, 4), np.ones((1, 1, 1))
        y = F.conv1d(x, w, padding=3, padding_mode=mode)
        np.testing.assert_array_equal(y[0, 0], letters)


@section("NaN and infinities in convolutions")
def test_infinite_weight_over_the_border(isa):
    w = np.array([[[INF, 1.0, INF]]])
    y = F.conv1d(np.array([[[2.0]]]), w, padding=1, algorithm="direct")
    np.testing.assert_array_equal(y, [[[2]]])


@section("NaN and infinities in convolutions")
def test_a_special_pixel_reaches_its_windows(isa):
    x, w = np.ones((1, 16, 9, 9)), np.ones((16, 16, 3, 3))
    x[0, 0, 4, 4] = NAN
    want = np.zeros((9, 9), bool)
    want[3:6, 3:6] = True
    for algorithm in ("direct", "winograd"):
        y = F.conv2d(x, w, padding=1, algorithm=algorithm)
        np.testing.assert_array_equal(np.isnan(y), np.broadcast_to(want, y.shape))


@section("Transposed convolution")
def test_sizes_and_bias(isa, rng):
    x, w, b = integers(rng, (2, 3, 4)), integers(rng, (3, 5, 2)), integers(rng, (5,))
    y = F.conv_transpose1d(x, w, b, stride=4, padding=((1, 0),), output_padding=2)
    assert y.shape == (2, 5, 3 * 4 - 1 + 1 + 1 + 2)
    for position in (1, 2, 5, 6, 13, 14):  # between the copies of the kernel, and the end
        np.testing.assert_array_equal(y[:, :, position], np.broadcast_to(b, (2, 5)))
    with pytest.raises(ValueError, match="output_padding must be less than"):
        F.conv_transpose1d(x, w, stride=2, output_padding=2)
