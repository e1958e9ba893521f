"""Arguments that have broken convolution libraries: an error that says what is wrong, or a result.

Ids as in test_corner_cases.py. Every message names the function, the argument and the value.
"""

import re

import numpy as np
import pytest

import fastconv.functional as F
from fastconv import reference as R

pytestmark = pytest.mark.usefixtures("corner_case")

IMAGE, WEIGHT = np.ones((1, 4, 6, 7), np.float32), np.ones((4, 4, 3, 3), np.float32)
SIGNAL, TAPS = IMAGE[:, :, 0], WEIGHT[:, :, 0]
TOO_MANY = np.broadcast_to(np.float32(1), (2**20, 4, 6, 7))
V, T, M = ValueError, TypeError, MemoryError

# arguments of conv2d and conv1d, the exception, words of the message
REFUSED = {
    "pytorch-161875-padding-2-to-63": ({"padding": 2**63 - 1}, V, "padding at most 92233720"),
    "pytorch-161875-padding-2-to-64": ({"padding": 2**64}, V, "padding at most 18446744073"),
    "tracker-padding-2-to-31": ({"padding": 2**31}, V, "padding at most 2147483648"),
    "pytorch-143480-dilation-2-to-31": ({"dilation": 2**31}, V, "dilation at most 2147483648"),
    "pytorch-9264-dilation-2-to-31-minus-1": ({"dilation": 2**31 - 1}, V, "fit 4294967295"),
    "tracker-stride-0": ({"stride": 0}, V, "stride at least 1 0"),
    "tracker-stride-negative": ({"stride": -2}, V, "stride at least 1 -2"),
    "tracker-stride-negative-2-to-63": ({"stride": -(2**63)}, V, "stride at least 1"),
    "tracker-stride-float": ({"stride": 1.0}, T, "stride int float 1.0"),
    "tracker-stride-nan": ({"stride": float("nan")}, T, "stride int float nan"),
    "tracker-stride-bool": ({"stride": True}, T, "stride int bool True"),
    "tracker-stride-numpy-bool": ({"stride": np.True_}, T, "stride int bool True"),
    "tracker-dilation-0": ({"dilation": 0}, V, "dilation at least 1 0"),
    "tracker-groups-bool": ({"groups": True}, T, "groups int bool"),
    "tracker-groups-0": ({"groups": 0}, V, "groups at least 1 0"),
    "tracker-groups-do-not-divide": ({"groups": 3}, V, "input channels groups 3"),
    "openxla-48713-negative-padding": ({"padding": -1}, V, "padding at least 0 -1"),
    "onnx-unknown-padding": ({"padding": "SAME_UPPER"}, V, "padding 'same' 'SAME_UPPER'"),
}  # fmt: skip
CALLS = {
    "conv2d": lambda a: F.conv2d(IMAGE, WEIGHT, **a),
    "conv2d_backward": lambda a: F.conv2d_backward(IMAGE, IMAGE, WEIGHT, **a),
    "conv1d": lambda a: F.conv1d(SIGNAL, TAPS, **a),
    "conv1d_backward": lambda a: F.conv1d_backward(SIGNAL, SIGNAL, TAPS, **a),
}


def check(call, error, words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for word in re.split(r" (?![^']*'(?: |$))", words):
        assert word in message, f"{word!r} is not in {message!r}"


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, function):
    arguments, error, words = REFUSED[case]
    check(lambda: CALLS[function](arguments), error, f"{function}: {words}")


LARGE = {
    "pytorch-143480-kernel-larger-than-padded-input": (
        lambda: F.conv2d(IMAGE, np.ones((4, 4, 9, 3), np.float32), padding=1), V,
        "conv2d: does not fit 6 (1, 1) 9"),
    "pytorch-9404-big-dilated-kernel": (
        lambda: F.conv1d(SIGNAL, TAPS, dilation=2**30), V, "conv1d: does not fit 2147483649"),
    "tracker-groups-do-not-divide-outputs": (
        lambda: F.conv2d(IMAGE, WEIGHT[:3, :2], groups=2), V, "conv2d: groups out_channels 2"),
    "tracker-empty-image": (lambda: F.conv2d(IMAGE[:, :, :0], WEIGHT), V, "conv2d: empty"),
    "tracker-empty-image-with-padding": (
        lambda: F.conv2d(IMAGE[:, :, :0], WEIGHT, padding=2), V, "conv2d: empty"),
    "tracker-no-channels": (
        lambda: F.conv2d(IMAGE[:, :0], WEIGHT[:, :0]), V, "conv2d: weight axis of size 0"),
    "tracker-no-outputs": (lambda: F.conv2d(IMAGE, WEIGHT[:0]), V, "conv2d: weight axis of size 0"),
    "xnnpack-size-overflow-of-padded-image": (
        lambda: F.conv2d(IMAGE, WEIGHT, padding=2**31 - 1), M, "conv2d: bytes padding"),
    "xnnpack-size-overflow-of-a-gradient": (
        lambda: F.conv2d_backward(IMAGE, IMAGE, WEIGHT, padding=2**31 - 1), M,
        "conv2d_backward: bytes padding"),
    "tracker-absurd-output-of-conv": (
        lambda: F.conv2d(TOO_MANY, WEIGHT, padding=2**15), M, "conv2d: bytes"),
    "tracker-absurd-output-of-conv-transpose": (
        lambda: F.conv_transpose2d(IMAGE, WEIGHT, stride=2**31 - 1), M, "conv_transpose2d: bytes"),
    "tracker-absurd-output-of-pad": (
        lambda: F.pad(IMAGE, (2**31 - 1,) * 4), M, "pad: bytes"),
    "tracker-absurd-output-of-unfold": (
        lambda: F.unfold(TOO_MANY, 3, padding=2**14), M, "unfold: bytes"),
    "tracker-absurd-output-of-adaptive-pool": (
        lambda: F.adaptive_avg_pool2d(IMAGE, 2**31 - 1), M, "adaptive_avg_pool2d: bytes"),
    "tracker-absurd-output-of-unpool": (
        lambda: F.max_unpool2d(IMAGE, np.zeros(IMAGE.shape, np.int64), 2**30), M,
        "max_unpool2d: bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", LARGE)
def test_refused_shape(case):
    """Nothing is allocated before it is refused: the peak is that of the arguments."""
    check(*LARGE[case])


ACCEPTED = {
    "tracker-numpy-ints": {"stride": np.int8(2), "padding": np.uint64(1), "dilation": np.int64(1)},
    "tracker-numpy-ints-in-tuples": {"stride": (np.int32(2), 1), "padding": (0, np.uint8(1))},
    "tracker-lists": {"stride": [2, 1], "padding": [[1, 0], [0, 2]], "dilation": [1, 2]},
    "tracker-index-method": {"groups": type("Two", (), {"__index__": lambda self: 2})()},
    "tracker-stride-larger-than-image": {"stride": 2**31 - 1},
    "tracker-dilation-of-one-tap": {"dilation": 1, "stride": (2**20, 1)},
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(isa, rng, case):
    arguments = ACCEPTED[case]
    w = WEIGHT[:, :2] if "groups" in arguments else WEIGHT
    x = rng.integers(-3, 4, IMAGE.shape).astype(np.float32)
    y = F.conv2d(x, w, algorithm="direct", **arguments)
    np.testing.assert_array_equal(y, R.conv2d(x, w, **arguments))
    grads = F.conv2d_backward(y, x, w, algorithm="direct", **arguments)
    for result, want in zip(grads, R.conv2d_backward(y, x, w, **arguments), strict=True):
        np.testing.assert_array_equal(result, want)


def test_tracker_dilation_2_to_31_minus_1_of_one_tap(isa):
    y = F.conv2d(IMAGE, WEIGHT[:, :, :1, :1], dilation=2**31 - 1)
    np.testing.assert_array_equal(y, R.conv2d(IMAGE, WEIGHT[:, :, :1, :1]))
