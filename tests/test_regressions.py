"""Bugs that were found once, each with the call that showed it."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import fastconv
import fastconv.functional as F
from fastconv import nn, reference
from fastconv.data.npz import read_npy, read_npz

ONES = np.ones((1, 2, 4, 4))
HUGE = 10**5000  # an int that no float holds, and that str() refuses
VIRTUAL = np.broadcast_to(np.float32(1), (2**20, 2**20))  # 4 TiB in the memory of one element


def test_explain_conv2d_of_an_empty_batch():
    """A dilation above 1 divided by the number of images: SIGFPE."""
    found = fastconv.explain_conv2d((0, 2, 7, 5), (32, 1, 3, 3), 1, "same", 2, 2)
    one = fastconv.explain_conv2d((1, 2, 7, 5), (32, 1, 3, 3), 1, "same", 2, 2)
    assert (found.algorithm, found.reason) == (one.algorithm, one.reason)
    assert found.scratch_bytes == found.macs == 0 < one.scratch_bytes


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "relu", "tanh"])
def test_no_room_is_found_before_anything_is_read(name):
    """softmax took the maximum of 2**40 elements first: it did not come back."""
    options = {"dim": 1} if name.endswith("softmax") else {}
    with pytest.raises(MemoryError):
        getattr(F, name)(VIRTUAL, **options)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">c8", "g"])
def test_signals_refuse_byte_swapped_float16(dtype):
    with pytest.raises(TypeError, match="convolve: a must hold"):
        F.convolve(np.ones(3).astype(dtype), np.ones(2))


@pytest.mark.parametrize("strides", [(8, 8), (16, 8), (-8, 8), (8, 0)])
def test_out_that_is_folded_over_itself(strides):
    """Only a stride of 0 was seen: two threads then wrote to one element."""
    out = as_strided(np.zeros(64)[20:], (3, 4), strides)
    with pytest.raises(ValueError, match="out overlaps itself"):
        F.relu(np.ones((3, 4)), out=out)
    with pytest.raises(ValueError, match="out overlaps itself"):
        F.pad(np.ones((3, 2)), (1, 1), out=out)


def test_out_with_gaps_is_no_fold():
    base = np.zeros((6, 8, 2))
    for out in (base[::2, ::2, 0], base[::-2, 1::2, 1], base[0:3, :4, 0].T.copy().T):
        assert F.relu(np.ones((3, 4)), out=out) is out
        assert out.min() == 1


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_of_an_empty_batch_of_volumes(training):
    x, c = np.ones((0, 3, 2, 2, 2)), np.ones(3)
    assert F.batch_norm(x, c, c, c, c, training).shape == x.shape
    assert F.batch_norm_backward(x, x, c, c, c, c, training)[0].shape == x.shape


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.adaptive_avg_pool2d(np.ones((0, 3, 2, 2)), 2**31 - 1),
        lambda: F.fold_backward(np.ones((0, 3, 9, 9)), 9, 2, 1, 2**31 - 1),
        lambda: F.conv2d(np.ones((0, 3, 9, 9)), np.ones((2**12, 3, 1, 1)), padding=2**29),
        lambda: nn.Conv2d(4, 4, (2**31 - 1, 2**31 - 1)),
    ],
)
def test_absurd_sizes_are_a_memory_error_with_the_function_name(call):
    """NumPy said "array is too big" in a ValueError, also where there are 0 images."""
    with pytest.raises(MemoryError, match=r"^(adaptive|fold_backward|conv2d|Conv2d).*: .*bytes"):
        call()


@pytest.mark.parametrize("value", [HUGE, -HUGE, 10**400], ids=["huge", "negative", "10**400"])
def test_integers_that_no_float_holds_are_infinite(value):
    """float() raised OverflowError."""
    x = np.ones((2, 3), np.float32)
    sign = 1 if value > 0 else -1
    assert F.leaky_relu(-x, value)[0, 0] == -sign * np.inf
    assert F.pad(x, (1, 0), value=value)[0, 0] == sign * np.inf
    assert np.isnan(F.mse_loss_backward(value, x, x)).all()  # 0 * inf
    with pytest.raises(ValueError, match="Dropout: p must be between 0 and 1"):
        nn.Dropout(value)


@pytest.mark.parametrize("value", ["0.5", b"1", True, None, 1j])
def test_what_is_no_number(value):
    """float() took the str "0.5"."""
    with pytest.raises(TypeError, match="leaky_relu: negative_slope must be a number"):
        F.leaky_relu(ONES, value)
    with pytest.raises(TypeError, match="batch_norm: momentum must be a number"):
        F.batch_norm(ONES, None, None, training=True, momentum=value)


LONG = {"int": HUGE, "list": [0] * 10**5, "str": "x" * 10**5, "lines": ("a\nb",) * 3}


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_messages_are_short_whatever_the_value(value):
    """The whole value was printed; for an int of 5,000 digits Python's own message came."""
    calls = {
        "conv2d": lambda: F.conv2d(ONES, ONES, stride=value),
        "max_pool2d": lambda: F.max_pool2d(ONES, value),
        "softmax": lambda: F.softmax(ONES, value),
        "Conv2d": lambda: nn.Conv2d(value, 4, 3),
        "set_num_threads": lambda: fastconv.set_num_threads(value),
    }
    for name, call in calls.items():
        if name == "set_num_threads" and value == HUGE:
            continue  # as many as there may be
        with pytest.raises((ValueError, TypeError), match=f"^{name}: ") as caught:
            call()
        assert len(str(caught.value)) < 300
        assert "\n" not in str(caught.value)


LAYERS = [
    nn.MaxPool2d(2),
    nn.AvgPool2d(2),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Dropout(),
    nn.BatchNorm2d(2),
    nn.CrossEntropyLoss(),
    nn.Conv2d(2, 2, 1),
    nn.Linear(4, 4),
    nn.ReLU(),
]


@pytest.mark.parametrize("layer", LAYERS, ids=[type(layer).__name__ for layer in LAYERS])
def test_layers_refuse_what_is_no_array(layer):
    """Some said AttributeError: 'list' object has no attribute 'shape'."""
    more = ([0],) if isinstance(layer, nn.CrossEntropyLoss) else ()
    for value in ([[1.0]], None, 3, ONES.astype(int)):
        with pytest.raises(TypeError, match=r": input must be"):
            layer(value, *more)


def test_an_adaptive_pool_takes_a_tuple_of_one_for_all_axes():
    assert nn.AdaptiveAvgPool2d((1,))(ONES).shape == (1, 2, 1, 1)


def test_infinities_and_nan_are_no_warnings():
    x = np.full((2, 3), np.inf, np.float32)
    with warnings.catch_warnings(action="error"):
        F.linear(x, np.zeros_like(x))
        F.linear_backward(x[:, :2], x, -x)
        F.pad(x, (1, 1), value=1e300)
        F.pad_backward(np.array([np.inf, 0, -np.inf]), (1,), (1, 1), "replicate")
        F.fold(np.array([[np.inf, -np.inf]] * 4), (2, 3), 2)
        nn.Dropout(0.5, rng=0)(x)
        nn.BCEWithLogitsLoss(weight=1e300)(x, x)


class Elsewhere(np.ndarray):
    """A subclass that tells another shape than it has."""

    shape = property(lambda self: (1, 1, 2**20, 2**20))


@pytest.mark.parametrize("kind", [np.ma.MaskedArray, np.matrix, Elsewhere])
def test_subclasses_are_taken_as_the_arrays_they_are(kind):
    x, w = np.arange(12.0).reshape(3, 4), np.ones((2, 3, 3))
    given = np.ma.masked_array(x, np.ones_like(x)) if kind is np.ma.MaskedArray else x.view(kind)
    y = F.conv1d(given, w, padding=1)
    assert type(y) is np.ndarray
    assert np.array_equal(y, F.conv1d(x, w, padding=1))
    assert np.array_equal(F.relu(given), x)


def test_the_reference_takes_what_the_functions_take():
    x = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(reference.pad(x, (-1, 1)), F.pad(x, (-1, 1)))
    grad = np.ones((3, 4))
    back = reference.pad_backward(grad, (3, 4), (-1, 1))
    assert np.array_equal(back, F.pad_backward(grad, (3, 4), (-1, 1)))
    none, index = np.ones((0, 3, 2, 2)), np.zeros((0, 3, 2, 2), int)
    assert reference.max_unpool2d(none, index, 2).shape == (0, 3, 4, 4)
    assert reference.max_pool2d_backward(none, index, (0, 3, 4, 4)).shape == (0, 3, 4, 4)
    assert reference.max_unpool2d_backward(np.ones((0, 3, 4, 4)), index).shape == (0, 3, 2, 2)
    assert reference.unfold(ONES, 2, stride=(2,)).shape == F.unfold(ONES, 2, stride=(2,)).shape


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("FASTCONV_ISA", "sse9", "unknown or unavailable instruction set 'sse9'"),
        ("FASTCONV_NUM_THREADS", "many", "must be a positive integer, got 'many'"),
        ("FASTCONV_NUM_THREADS", "0", "must be a positive integer, got '0'"),
    ],
)
def test_a_wrong_variable_is_one_line_of_the_command(monkeypatch, variable, value, rule):
    """It was a traceback; `import fastconv` still raises."""
    monkeypatch.setenv(variable, value)
    run = {"capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-m", "fastconv", "info"], **run)
    assert done.returncode == 2
    assert done.stderr.startswith(f"fastconv: error: {variable}: {rule}")
    assert done.stderr.count("\n") == 1
    done = subprocess.run([sys.executable, "-c", "import fastconv"], **run)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ValueError: {variable}: {rule}")


def test_an_npy_header_that_is_no_python(tmp_path):
    """tokenize.TokenError, and a traceback of `fastconv predict`."""
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((6, 4), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(6, 4)", b"(6( 4)"))
    size = path.stat().st_size
    with path.open("rb") as stream, pytest.raises(ValueError, match=r"a\.npy: not a readable"):
        read_npy(stream, size, str(path))


def test_an_archive_whose_directory_lies_before_the_file(tmp_path):
    """OSError: Invalid argument, without the file's name."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(4))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x05\x06") + 16  # where the end record tells the directory's place
    for place in (0x7FFFFFFF, 0xFFFFFFF0, 3):
        content[at : at + 4] = place.to_bytes(4, "little")
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz: corrupt or unsupported"):
            read_npz(path)


@pytest.mark.parametrize(("stride", "after"), [(1, 1), (2, 2), (3, 2)])
def test_pointwise_gradient_with_padding_behind(stride, after, isa, rng):
    """A row of few pixels ran as a linear layer over as many rows as grad_output has."""
    x = rng.standard_normal((1, 4, 64)).astype(np.float32).transpose(0, 2, 1)
    w = rng.standard_normal((64, 64, 1)).astype(np.float32)
    options = {"stride": stride, "padding": ((0, after),)}
    y = F.conv1d(x, w, **options)
    g = rng.standard_normal((1, y.shape[2], 64)).astype(np.float32).transpose(0, 2, 1)
    got = F.conv1d_backward(g, x, w, **options)[0]
    buffer = np.full((2, 4, 64), np.nan, np.float32)  # what lies behind an output of few pixels
    F.conv1d(x, w, out=buffer[:1].transpose(0, 2, 1))
    assert np.isnan(buffer[1]).all()
    want = np.einsum("nkl,kc->ncl", g[:, :, : -(-4 // stride)].astype(np.float64), w[:, :, 0])
    np.testing.assert_allclose(got[:, :, ::stride], want, rtol=0, atol=1e-4)


def test_averages_of_whole_planes_that_share_memory(isa, rng):
    """One plane broadcast to channels or images was read as channels that are neighbours."""
    plane = rng.standard_normal((1, 1, 8, 8)).astype(np.float32)
    for shape in ((1, 64, 8, 8), (5, 1, 8, 8), (3, 7, 8, 8)):
        got = F.adaptive_avg_pool2d(np.broadcast_to(plane, shape), 1)
        np.testing.assert_allclose(
            got, np.full(shape[:2], plane.mean())[..., None, None], atol=1e-6
        )


def test_averages_of_whole_planes_into_part_of_an_array(isa, rng):
    """Outputs of one channel lie as far apart as `out` says."""
    x = rng.standard_normal((4, 1, 6, 5)).astype(np.float32)
    want = x.mean((2, 3), dtype=np.float64)
    buffer = np.full((4, 2, 1, 1), np.nan, np.float32)
    for out in (buffer[:, :1], np.full((4, 1, 1, 1), np.nan, np.float32)[::-1]):
        F.adaptive_avg_pool2d(x, 1, out=out)
        np.testing.assert_allclose(out[..., 0, 0], want, atol=1e-6)
    assert np.isnan(buffer[:, 1]).all()


def test_huge_dilation_of_a_depthwise_convolution():
    """Phases of a row were counted up to the dilation."""
    x = np.ones((1, 4, 8, 8), np.float32)
    w = np.ones((4, 1, 3, 3), np.float32)
    y = F.conv2d(x, w, padding=10**6, dilation=10**6, groups=4)
    np.testing.assert_array_equal(y, x)
