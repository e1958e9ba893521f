"""What a user reads after a mistake: each row is a call, the exception, and words of its message.

Every message begins with the function's name; the words are the argument, the value and the rule.
"""

import re

import numpy as np
import pytest

import fastconv.functional as F

f64, f32 = np.zeros, lambda *shape: np.zeros(*shape, dtype=np.float32)
image, signal = f64((1, 3, 8, 8)), f64((1, 3, 8))
kernel2, kernel1 = f64((4, 3, 3, 3)), f64((4, 3, 3))
index = np.zeros((1, 3, 4, 4), np.int64)
frozen = f64((2, 3))
frozen.flags.writeable = False
V, T, M = ValueError, TypeError, MemoryError

PADDING = [
    (lambda: F.pad([1.0], (1, 1)), T, "pad: input numpy.ndarray list asarray"),
    (lambda: F.pad(np.zeros(3, complex), (1, 1)), T, "pad: input real complex128"),
    (lambda: F.pad(np.zeros(3, object), (1, 1)), T, "pad: input real object"),
    (lambda: F.pad(f64(3), 1), T, "pad: pad tuple int 1"),
    (lambda: F.pad(f64(3), (1,)), V, "pad: pad two entries 1"),
    (lambda: F.pad(f64(3), (1, 1, 1, 1)), V, "pad: pad at most 2 (3,) 4"),
    (lambda: F.pad(f64(3), (1.0, 1)), T, "pad: pad int float 1.0"),
    (lambda: F.pad(f64(3), (True, 1)), T, "pad: pad int bool"),
    (lambda: F.pad(f64(3), (1, 1), "mirror"), V, "pad: mode 'reflect' 'mirror'"),
    (lambda: F.pad(f64(3), (1, 1), None), T, "pad: mode str NoneType"),
    (
        lambda: F.pad(f64(3), (3, 0), "reflect"),
        V,
        "pad: pad (3, 0) 'reflect' axis 0 size 3 at most 2",
    ),
    (lambda: F.pad(f64(3), (0, 4), "circular"), V, "pad: pad (0, 4) 'circular' at most 3"),
    (lambda: F.pad(f64(3), (4, 0), "symmetric"), V, "pad: pad (4, 0) 'symmetric' at most 3"),
    (lambda: F.pad(f64(0), (1, 0), "replicate"), V, "pad: pad (1, 0) 'replicate' size 0"),
    (lambda: F.pad(f64(3), (-1, 0), "reflect"), V, "pad: pad at least 0 -1"),
    (lambda: F.pad(f64(3), (-2, -2)), V, "pad: pad (-2, -2) crops 3 axis 0"),
    (lambda: F.pad(f64(3), (2**63, 0)), V, "pad: pad at most 9223372036854775808"),
    (lambda: F.pad(f64((2, 2, 2)), (2**31 - 1,) * 6), M, "pad: shape bytes"),
    (lambda: F.pad(f64((4, 4)), (2**24,) * 4), M, "pad: (33554436, 33554436) bytes"),
    (lambda: F.pad(f64(3), (1, 1), value="0"), T, "pad: value number str '0'"),
    (lambda: F.pad(np.zeros(3, np.uint8), (1, 1), value=256), V, "pad: value 0 255 uint8 256"),
    (lambda: F.pad(np.zeros(3, np.int32), (1, 1), value=0.5), V, "pad: value integer int32 0.5"),
    (lambda: F.pad(f64(3), (1, 1), out=f64(4)), V, "pad: out (5,) (4,)"),
    (lambda: F.pad(f64(3), (1, 1), out=f32(5)), T, "pad: out float64 float32"),
    (lambda: F.pad(f64((2, 1)), (1, 1), out=frozen), V, "pad: out read-only"),
    (lambda: F.pad(image, (0, 0), out=image), V, "pad: out shares memory input"),
    (
        lambda: F.pad_backward(f64(4), (3,), (1, 1)),
        V,
        "pad_backward: grad_output (5,) (3,) (1, 1) (4,)",
    ),
    (lambda: F.pad_backward(f64(5), 3, (1, 1)), T, "pad_backward: input_shape tuple int 3"),
    (lambda: F.pad_backward(f64(5), (-3,), (4, 4)), V, "pad_backward: input_shape at least 0 -3"),
    (
        lambda: F.pad_backward(np.zeros(5, int), (3,), (1, 1)),
        T,
        "pad_backward: grad_output float32 float64 int64",
    ),
]

FOLD = [
    (lambda: F.unfold(f64((8, 8)), 2), V, "unfold: input (N, C, H, W) (8, 8)"),
    (lambda: F.unfold(image, 0), V, "unfold: kernel_size at least 1 0"),
    (lambda: F.unfold(image, (2, 2, 2)), V, "unfold: kernel_size 2 (2, 2, 2)"),
    (lambda: F.unfold(image, 2.0), T, "unfold: kernel_size int float"),
    (lambda: F.unfold(image, 9), V, "unfold: kernel H 8 9"),
    (lambda: F.unfold(image, 2, stride=0), V, "unfold: stride at least 1 0"),
    (lambda: F.unfold(image, 2, dilation=2**31), V, "unfold: dilation at most 2147483648"),
    (lambda: F.unfold(image, 2, padding=-1), V, "unfold: padding at least 0 -1"),
    (lambda: F.unfold(image, 2, padding="reflect"), V, "unfold: padding 'same' 'reflect'"),
    (lambda: F.unfold(image, 2**30, padding=2**30), M, "unfold: shape bytes"),
    (lambda: F.unfold(image, 2, out=f64((1, 12, 48))), V, "unfold: out (1, 12, 49) (1, 12, 48)"),
    (lambda: F.fold(f64((1, 12, 48)), 8, 2), V, "fold: input C * 4 49 (1, 12, 48)"),
    (lambda: F.fold(f64((1, 11, 49)), 8, 2), V, "fold: input C * 4 49 (1, 11, 49)"),
    (lambda: F.fold(f64(49), 8, 2), V, "fold: input C * 4 49 (49,)"),
    (lambda: F.fold(f64((1, 12, 49)), 0, 2), V, "fold: output_size at least 1 0"),
    (lambda: F.fold(np.zeros((1, 12, 49), int), 8, 2), T, "fold: input float32 int64"),
    (
        lambda: F.unfold_backward(f64((1, 12, 48)), (1, 3, 8, 8), 2),
        V,
        "unfold_backward: grad_output (1, 12, 49) (1, 3, 8, 8) (1, 12, 48)",
    ),
    (
        lambda: F.unfold_backward(f64((1, 12, 49)), (8, 8), 2),
        V,
        "unfold_backward: input_shape (N, C, H, W) (8, 8)",
    ),
    (lambda: F.fold_backward(image, 7, 2), V, "fold_backward: grad_output output_size (7, 7)"),
]

LINEAR = [
    (lambda: F.linear(f64((2, 3)), f64((4, 5))), V, "linear: weight 5 features (2, 3) (4, 5)"),
    (lambda: F.linear(f64(()), f64((4, 5))), V, "linear: weight 5 features ()"),
    (lambda: F.linear(f64((2, 3)), f64(3)), V, "linear: weight (out_features, in_features) (3,)"),
    (lambda: F.linear(f64((2, 3)), f32((4, 3))), T, "linear: weight float32 input float64 astype"),
    (
        lambda: F.linear(f64((2, 3)), f64((4, 3)), f64(3)),
        V,
        "linear: bias (4,) (3,)",
    ),
    (lambda: F.linear([[1.0]], f64((4, 1))), T, "linear: input numpy.ndarray list"),
    (
        lambda: F.linear(f64((2, 3)), f64((4, 3)), out=f64((2, 3))),
        V,
        "linear: out (2, 4) (2, 3)",
    ),
    (
        lambda: F.linear_backward(f64((2, 3)), f64((2, 3)), f64((4, 3))),
        V,
        "linear_backward: grad_output (2, 4) (2, 3)",
    ),
]

logits, classes = f64((2, 3)), np.zeros(2, int)
BCE, BCE_BACKWARD = "binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits_backward"
LOSS = [
    (lambda: F.cross_entropy(logits, [0, 3]), V, "cross_entropy: target 0..2 -100 3"),
    (lambda: F.cross_entropy(logits, [0, -1]), V, "cross_entropy: target 0..2 -100 -1"),
    (lambda: F.cross_entropy(logits, [0]), V, "cross_entropy: target (2,) (1,)"),
    (lambda: F.cross_entropy(logits, [True, False]), T, "cross_entropy: target integer bool"),
    (lambda: F.cross_entropy(logits, [0.0, 1.0]), V, "cross_entropy: target (2, 3) (2,) integer"),
    (lambda: F.cross_entropy(logits, f32((2, 3))), T, "cross_entropy: target float32 float64"),
    (lambda: F.cross_entropy(logits, ["a", "b"]), T, "cross_entropy: target integer"),
    (lambda: F.cross_entropy(f64(()), 0), V, "cross_entropy: input (N, C) ()"),
    (lambda: F.cross_entropy(f64((2, 0)), [0, 0]), V, "cross_entropy: input C >= 1 (2, 0)"),
    (lambda: F.cross_entropy(np.zeros((2, 3), int), [0, 0]), T, "cross_entropy: input int64"),
    (lambda: F.cross_entropy(logits, classes, f64(2)), V, "cross_entropy: weight (3,) (2,)"),
    (lambda: F.cross_entropy(logits, classes, f32(3)), T, "cross_entropy: weight float32"),
    (
        lambda: F.cross_entropy(logits, classes, reduction="average"),
        V,
        "cross_entropy: reduction 'mean' 'average'",
    ),
    (
        lambda: F.cross_entropy(logits, classes, label_smoothing=1.5),
        V,
        "cross_entropy: label_smoothing 0 to 1 1.5",
    ),
    (
        lambda: F.cross_entropy(logits, classes, label_smoothing="0.1"),
        T,
        "cross_entropy: label_smoothing float str",
    ),
    (
        lambda: F.cross_entropy(logits, classes, ignore_index=1.0),
        T,
        "cross_entropy: ignore_index int float",
    ),
    (
        lambda: F.cross_entropy(logits, logits, ignore_index=0),
        V,
        "cross_entropy: ignore_index negative probabilities 0",
    ),
    (
        lambda: F.cross_entropy_backward(f64(2), logits, classes),
        V,
        "cross_entropy_backward: grad_output one number 'mean' (2,)",
    ),
    (
        lambda: F.cross_entropy_backward(1.0, logits, classes, reduction="none"),
        V,
        "cross_entropy_backward: grad_output (2,) 'none' ()",
    ),
    (
        lambda: F.cross_entropy_backward("1", logits, classes),
        T,
        "cross_entropy_backward: grad_output number str",
    ),
    (lambda: F.nll_loss(logits, logits), T, "nll_loss: target integer float64"),
    (lambda: F.nll_loss(logits, [0, 3]), V, "nll_loss: target 0..2 3"),
    (
        lambda: F.nll_loss_backward(1.0, logits, [0, 3]),
        V,
        "nll_loss_backward: target 0..2 3",
    ),
    (lambda: F.mse_loss(logits, f64((2, 1))), V, "mse_loss: target (2, 3) (2, 1) broadcast"),
    (lambda: F.mse_loss(logits, f32((2, 3))), T, "mse_loss: target float32 input float64"),
    (lambda: F.mse_loss(logits, logits, True), T, "mse_loss: reduction str bool"),
    (
        lambda: F.mse_loss_backward(f64((2, 1)), logits, logits, "none"),
        V,
        "mse_loss_backward: grad_output (2, 3) (2, 1)",
    ),
    (lambda: getattr(F, BCE)(logits, f64(3)), V, f"{BCE}: target (2, 3) (3,)"),
    (lambda: getattr(F, BCE)(logits, logits, f64(2)), V, f"{BCE}: weight (2, 3) (2,)"),
    (
        lambda: getattr(F, BCE)(logits, logits, pos_weight=f64((2, 2, 3))),
        V,
        f"{BCE}: pos_weight (2, 3) (2, 2, 3)",
    ),
    (
        lambda: getattr(F, BCE_BACKWARD)(None, logits, logits),
        T,
        f"{BCE_BACKWARD}: grad_output NoneType",
    ),
]

SIGNAL = [
    (lambda: F.convolve([1j], [1.0]), T, "convolve: a real complex128"),
    (lambda: F.convolve([1.0], [1j]), T, "convolve: v real complex128"),
    (lambda: F.convolve(["a"], [1.0]), T, "convolve: a"),
    (lambda: F.convolve(np.zeros(2, np.float16), [1.0]), T, "convolve: a float16"),
    (lambda: F.convolve([], [1.0]), V, "convolve: a at least one entry (0,)"),
    (lambda: F.convolve(1.0, [1.0]), V, "convolve: a at least one entry ()"),
    (lambda: F.convolve([1.0], [1.0], "ful"), V, "convolve: mode 'full' 'ful'"),
    (lambda: F.convolve([1.0], [1.0], 2), T, "convolve: mode str int"),
    (lambda: F.convolve([1.0], [1.0], method="dft"), V, "convolve: method 'fft' 'dft'"),
    (lambda: F.convolve(f64((2, 5)), f64((3, 2))), V, "convolve: batch a (2, 5) v (3, 2)"),
    (lambda: F.correlate([1.0], []), V, "correlate: v at least one entry (0,)"),
    (lambda: F.convolve2d([1.0], [[1.0]]), V, "convolve2d: in1 two axes (1,)"),
    (
        lambda: F.correlate2d(f64((5, 2)), f64((2, 5)), "valid"),
        V,
        "correlate2d: 'valid' (5, 2) (2, 5)",
    ),
]

CONV = [
    (lambda: F.conv2d(f64((8, 8)), kernel2), V, "conv2d: input (N, C, H, W) (8, 8)"),
    (lambda: F.conv2d([[1.0]], kernel2), T, "conv2d: input numpy.ndarray list"),
    (lambda: F.conv2d(image.astype(int), kernel2), T, "conv2d: input float32 int64 astype"),
    (lambda: F.conv2d(image, kernel1), V, "conv2d: weight out_channels kH (4, 3, 3)"),
    (lambda: F.conv2d(image, f32((4, 3, 3, 3))), T, "conv2d: weight float32 input float64 astype"),
    (
        lambda: F.conv2d(image, f64((4, 4, 3, 3))),
        V,
        "conv2d: weight 4 input channels 3 (1, 3, 8, 8) (4, 4, 3, 3) groups 1",
    ),
    (lambda: F.conv2d(image, kernel2, groups=2), V, "conv2d: weight groups 2 (1, 3, 8, 8)"),
    (lambda: F.conv2d(image, kernel2, groups=0), V, "conv2d: groups at least 1 0"),
    (lambda: F.conv2d(image, f64((4, 1, 3, 3)), groups=3), V, "conv2d: groups divide 3"),
    (lambda: F.conv2d(image, kernel2, f64(3)), V, "conv2d: bias (4,) (3,)"),
    (lambda: F.conv2d(image, kernel2, f32(4)), T, "conv2d: bias float32 float64"),
    (lambda: F.conv2d(image, kernel2, stride=0), V, "conv2d: stride at least 1 0"),
    (lambda: F.conv2d(image, kernel2, stride=(-1, 1)), V, "conv2d: stride at least 1 -1"),
    (lambda: F.conv2d(image, kernel2, stride=1.5), T, "conv2d: stride int float 1.5"),
    (lambda: F.conv2d(image, kernel2, stride=True), T, "conv2d: stride int bool"),
    (lambda: F.conv2d(image, kernel2, stride=(1, 1, 1)), V, "conv2d: stride 2 ints (1, 1, 1)"),
    (lambda: F.conv2d(image, kernel2, padding=2**63 - 1), V, "conv2d: padding at most 2147483647"),
    (lambda: F.conv2d(image, kernel2, padding=2**31 - 1), M, "conv2d: shape bytes"),
    (lambda: F.conv2d(image, kernel2, padding="causal"), V, "conv2d: padding 'same' 'causal'"),
    (lambda: F.conv2d(image, kernel2, dilation=2**31), V, "conv2d: dilation at most 2147483648"),
    (lambda: F.conv2d(image, kernel2, dilation=4), V, "conv2d: kernel axis H 8 dilation 4"),
    (lambda: F.conv2d(image, f64((4, 3, 3, 9))), V, "conv2d: kernel axis W 8 9"),
    (
        lambda: F.conv2d(image, kernel2, padding=1, padding_mode="mirror"),
        V,
        "conv2d: padding_mode 'reflect' 'mirror'",
    ),
    (lambda: F.conv2d(image, kernel2, algorithm="fast"), V, "conv2d: algorithm 'auto' 'fast'"),
    (lambda: F.conv2d(image, kernel2, out=image), V, "conv2d: out (1, 4, 6, 6) (1, 3, 8, 8)"),
    (lambda: F.conv2d(image, kernel2, out=f32((1, 4, 6, 6))), T, "conv2d: out float64 float32"),
    (lambda: F.conv2d(image, f64((3, 3, 1, 1)), out=image), V, "conv2d: out memory input"),
    (lambda: F.conv2d(image, f64((0, 3, 3, 3))), V, "conv2d: weight size 0 (0, 3, 3, 3)"),
    (lambda: F.conv2d(f64((1, 3, 0, 8)), kernel2), V, "conv2d: input empty (1, 3, 0, 8)"),
    (
        lambda: F.conv2d_backward(f64((1, 4, 5, 6)), image, kernel2),
        V,
        "conv2d_backward: grad_output (1, 4, 6, 6) (1, 4, 5, 6)",
    ),
    (
        lambda: F.conv2d_backward(f64((1, 4, 6, 6)), image, kernel2, output_mask=(True,)),
        V,
        "conv2d_backward: output_mask three (True,)",
    ),
    (lambda: F.conv1d(image, kernel1), V, "conv1d: input (N, C, L) (1, 3, 8, 8)"),
    (lambda: F.conv1d(signal, f64((4, 3, 9))), V, "conv1d: kernel axis L 8 9"),
    (
        lambda: F.conv_transpose2d(f64((1, 4, 5, 5)), kernel2, stride=2, output_padding=2),
        V,
        "conv_transpose2d: output_padding less 2 stride dilation",
    ),
    (
        lambda: F.conv_transpose2d(image, kernel2),
        V,
        "conv_transpose2d: weight 4 input channels 3 (1, 3, 8, 8)",
    ),
    (
        lambda: F.conv_transpose2d(f64((1, 4, 2, 2)), kernel2, padding=3),
        V,
        "conv_transpose2d: output -2 padding",
    ),
    (
        lambda: F.conv_transpose2d(f64((1, 4, 5, 5)), kernel2, padding="same"),
        V,
        "conv_transpose2d: padding 'valid' 'same'",
    ),
    (
        lambda: F.conv_transpose2d(f64((1, 4, 5, 5)), kernel2, stride=2**31 - 1),
        M,
        "conv_transpose2d: shape bytes",
    ),
    (
        lambda: F.conv_transpose1d(f64((1, 4, 5)), kernel1, f64(4)),
        V,
        "conv_transpose1d: bias (3,) (4,)",
    ),
    (
        lambda: F.conv_transpose2d_backward(image, f64((1, 4, 5, 5)), kernel2),
        V,
        "conv_transpose2d_backward: grad_output (1, 3, 7, 7) (1, 3, 8, 8)",
    ),
]

pooled = f64((1, 3, 4, 4))
POOL = [
    (lambda: F.max_pool2d(image, 3, padding=2), V, "max_pool2d: padding half (2, 2) 3"),
    (lambda: F.max_pool2d(image, 0), V, "max_pool2d: kernel_size at least 1 0"),
    (lambda: F.max_pool2d(image, 9), V, "max_pool2d: window axis 8 9"),
    (lambda: F.max_pool2d(image, 3, stride=0), V, "max_pool2d: stride at least 1 0"),
    (lambda: F.max_pool2d(image, 3, dilation=(4, 1)), V, "max_pool2d: window dilation 4"),
    (lambda: F.max_pool2d(image * 1j, 3), T, "max_pool2d: input complex128"),
    (lambda: F.max_pool1d(image, 3), V, "max_pool1d: input (N, C, L) (1, 3, 8, 8)"),
    (lambda: F.max_pool2d(f64((1, 3, 0, 4)), 1), V, "max_pool2d: size at least 1 (0, 4)"),
    (lambda: F.max_pool2d(image, 2, out=f64(3)), V, "max_pool2d: out (1, 3, 4, 4) (3,)"),
    (
        lambda: F.max_pool2d_backward(pooled, index + 64, image.shape),
        V,
        "max_pool2d_backward: indices 0..63 64",
    ),
    (
        lambda: F.max_pool2d_backward(pooled, index - 1, image.shape),
        V,
        "max_pool2d_backward: indices 0..63 -1",
    ),
    (
        lambda: F.max_pool2d_backward(pooled, pooled, image.shape),
        T,
        "max_pool2d_backward: indices int64 float64",
    ),
    (
        lambda: F.max_pool2d_backward(pooled, index[..., 1:], image.shape),
        V,
        "max_pool2d_backward: indices (1, 3, 4, 4) (1, 3, 4, 3)",
    ),
    (
        lambda: F.max_pool2d_backward(pooled, index, (1, 2, 8, 8)),
        V,
        "max_pool2d_backward: grad_output input_shape (1, 2, 8, 8) (1, 3, 4, 4)",
    ),
    (
        lambda: F.max_pool2d_backward(pooled, index, (8, 8)),
        V,
        "max_pool2d_backward: input_shape (8, 8)",
    ),
    (lambda: F.max_unpool2d(pooled, index + 64, 2), V, "max_unpool2d: indices 0..63 64"),
    (
        lambda: F.max_unpool2d(pooled, index, 2, output_size=(11, 8)),
        V,
        "max_unpool2d: output_size between 6 10 11",
    ),
    (
        lambda: F.avg_pool2d(image, 2, divisor_override=0),
        V,
        "avg_pool2d: divisor_override at least 1 0",
    ),
    (lambda: F.avg_pool2d(image, 2, padding=2), V, "avg_pool2d: padding half (2, 2)"),
    (lambda: F.avg_pool2d(image.astype(int), 2), T, "avg_pool2d: input float32 int64"),
    (
        lambda: F.avg_pool2d_backward(f64((1, 3, 4, 5)), image.shape, 2),
        V,
        "avg_pool2d_backward: grad_output (4, 4) (4, 5)",
    ),
    (lambda: F.adaptive_avg_pool2d(image, 0), V, "adaptive_avg_pool2d: output_size at least 1 0"),
    (
        lambda: F.adaptive_avg_pool2d(image, (1, 2, 3)),
        V,
        "adaptive_avg_pool2d: output_size 2 ints (1, 2, 3)",
    ),
    (
        lambda: F.adaptive_max_pool1d(signal, -1),
        V,
        "adaptive_max_pool1d: output_size at least 1 -1",
    ),
    (
        lambda: F.adaptive_avg_pool2d_backward(f64((1, 2, 4, 4)), image.shape),
        V,
        "adaptive_avg_pool2d_backward: grad_output (1, 3, 8, 8) (1, 2, 4, 4)",
    ),
]

ALL = [
    pytest.param(*row, id=f"{row[2]}"[:60])
    for row in [*PADDING, *FOLD, *LINEAR, *LOSS, *SIGNAL, *CONV, *POOL]
]


@pytest.mark.parametrize(("call", "exception", "words"), ALL)
def test_message(call, exception, words):
    with pytest.raises(exception) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is exception
    assert message.startswith(words.split()[0]), message
    for word in re.findall(r"\([^)]*\)|\S+", words):
        assert word in message, message
    assert "\n" not in message
    assert len(message) < 300, message
