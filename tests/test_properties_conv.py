"""What is true of every convolution: identities between calls, over the whole argument space."""

import numpy as np
from helpers import integers, same_bits, to_format
from strategies import Conv, convs, flat_pad, holds, normal, spread, st, tiled

import fastconv.functional as F
from fastconv import reference as R


def equal(a, b):
    np.testing.assert_array_equal(a, b)


def other_layout(x, layout):
    return to_format(x, "channels_last" if layout == "channels_first" else "channels_first")


@holds(case=convs())
def test_equals_the_reference(case):
    x, w, b, g = case.arrays()
    arguments = case.arguments
    equal(case.forward(x, w, b), getattr(R, f"conv{case.axes}d")(x, w, b, **arguments))
    want = getattr(R, f"conv{case.axes}d_backward")(g, x, w, **arguments)
    for result, expected in zip(case.backward(g, x, w), want, strict=True):
        equal(result, expected)


@holds(case=convs(), scale=st.integers(-3, 3))
def test_linear_in_input_weight_and_bias(case, scale):
    x, w, b, _ = case.arrays()
    rng = np.random.default_rng(case.seed + 1)
    x2, w2 = integers(rng, x.shape, case.dtype), integers(rng, w.shape, case.dtype)
    y = case.forward(x, w)
    equal(case.forward(x * scale + x2, w), y * scale + case.forward(x2, w))
    equal(case.forward(x, w * scale + w2), y * scale + case.forward(x, w2))
    equal(case.forward(x, w, b), y + b.reshape(-1, *[1] * case.axes))


@holds(case=convs())
def test_adjoint(case):
    """<conv(x, w), g> == <x, grad_x> == <w, grad_w>, exactly."""
    x, w, b, g = (a.astype(np.float64) for a in case.arrays())
    grad_x, grad_w, grad_b = case.backward(g, x, w)
    product = (case.forward(x, w) * g).sum()
    assert product == (x * grad_x).sum() == (w * grad_w).sum()
    assert (b * grad_b).sum() == (b.reshape(-1, *[1] * case.axes) * g).sum()


@holds(case=convs())
def test_groups_are_convolutions_side_by_side(case):
    x, w, b, g = case.arrays()
    groups = case.arguments["groups"]
    pieces = zip(
        *(np.split(a, groups, axis) for a, axis in ((x, 1), (w, 0), (b, 0), (g, 1))), strict=True
    )
    results = []
    for x1, w1, b1, g1 in pieces:
        grads = case.backward(g1, x1, w1, groups=1)
        results.append((case.forward(x1, w1, b1, groups=1), *grads))
    whole = case.forward(x, w, b), *case.backward(g, x, w)
    for result, parts, axis in zip(whole, zip(*results, strict=True), (1, 1, 0, 0), strict=True):
        equal(result, np.concatenate(parts, axis))


@holds(case=convs())
def test_dilation_is_a_kernel_with_zeros_between(case):
    x, w, b, g = case.arrays()
    dilation = spread(case.arguments["dilation"], case.axes)
    sizes = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    stuffed = np.zeros((*w.shape[:2], *sizes), w.dtype)
    taps = (..., *(slice(None, None, d) for d in dilation))
    stuffed[taps] = w
    equal(case.forward(x, w, b), case.forward(x, stuffed, b, dilation=1))
    grad_x, grad_w, _ = case.backward(g, x, w)
    want_x, want_w, _ = case.backward(g, x, stuffed, dilation=1)
    equal(grad_x, want_x)
    equal(grad_w, want_w[taps])


@holds(case=convs(words=False))
def test_stride_takes_every_nth_output(case):
    x, w, b, g = case.arrays()
    every = (..., *(slice(None, None, s) for s in spread(case.arguments["stride"], case.axes)))
    dense = case.forward(x, w, b, stride=1)
    equal(case.forward(x, w, b), dense[every])
    sparse = np.zeros_like(dense)
    sparse[every] = g
    for result, want in zip(
        case.backward(g, x, w), case.backward(sparse, x, w, stride=1), strict=True
    ):
        equal(result, want)


@holds(case=convs(words=False, modes=()))
def test_transposed_is_the_gradient_of_the_input(case):
    """And the gradients of the one are the other's forward and weight gradient: the same calls."""
    x, w, _, g = case.arrays()
    arguments = {k: v for k, v in case.arguments.items() if k != "padding_mode"}
    steps = [spread(arguments[k], case.axes) for k in ("stride", "dilation")]
    extra = tuple(
        (n + sum(pads) - (k - 1) * d - 1) % s
        for n, k, pads, s, d in zip(x.shape[2:], w.shape[2:], case.pairs(), *steps, strict=True)
    )
    up = getattr(F, f"conv_transpose{case.axes}d")
    grad_x, grad_w, _ = case.backward(g, x, w, "auto")
    assert same_bits(up(g, w, output_padding=extra, **arguments), grad_x)
    back = getattr(F, f"conv_transpose{case.axes}d_backward")
    of_g, of_w, of_b = back(x, g, w, output_padding=extra, **arguments)
    assert same_bits(of_g, case.forward(x, w, None, "auto"))
    assert same_bits(of_w, grad_w)
    equal(of_b, x.sum(axis=(0, *range(2, x.ndim))))


@holds(case=convs(axes=1))
def test_one_dimension_is_an_image_of_height_1(case):
    x, w, b, g = case.arrays(normal)
    arguments = dict(case.arguments)
    for name in ("stride", "dilation"):
        arguments[name] = (1, *spread(arguments[name], 1))
    if arguments["padding"] == "causal":
        reach = (w.shape[2] - 1) * arguments["dilation"][1]
        arguments["padding"] = ((0, 0), (reach, 0))
    elif not isinstance(arguments["padding"], str):
        arguments["padding"] = ((0, 0), *case.pairs())
    flat = [a[:, :, np.newaxis] for a in (x, w, g)]
    y = F.conv2d(*flat[:2], b, **arguments)
    assert same_bits(case.forward(x, w, b, "auto"), y[:, :, 0])
    grads = case.backward(g, x, w, "auto")
    grad_x, grad_w, grad_b = F.conv2d_backward(flat[2], *flat[:2], **arguments)
    for result, want in zip(grads, (grad_x[:, :, 0], grad_w[:, :, 0], grad_b), strict=True):
        assert same_bits(result, want)


@holds(case=tiled() | convs())
def test_memory_format_does_not_change_bits(case):
    x, w, b, g = case.arrays(normal)
    other = [other_layout(a, case.layout) for a in (x, g)]
    assert same_bits(case.forward(x, w, b, "auto"), case.forward(other[0], w, b, "auto"))
    grads = case.backward(g, x, w, "auto")
    for x2, g2 in ((other[0], g), (x, other[1]), other):
        for result, want in zip(case.backward(g2, x2, w, "auto"), grads, strict=True):
            assert same_bits(result, want)


@holds(case=tiled() | convs(), cut=st.sampled_from((1, 2, 3, 0)))
def test_batch_split_does_not_change_bits(case, cut):
    x, w, b, g = case.arrays(normal)
    y, grad_x = case.forward(x, w, b, "auto"), case.backward(g, x, w, "auto")[0]
    for part in (slice(cut), slice(cut, None)):
        assert same_bits(case.forward(x[part], w, b, "auto"), y[part])
        assert same_bits(case.backward(g[part], x[part], w, "auto")[0], grad_x[part])


@holds(case=convs(words=False, modes=()), steps=st.integers(0, 5))
def test_translation(case, steps):
    """Zeros before the image by `steps` strides move the output by `steps`."""
    x, w, b, _ = case.arrays()
    stride = spread(case.arguments["stride"], case.axes)[-1]
    moved = F.pad(x, (stride * steps, 0))
    equal(case.forward(moved, w, b)[..., steps:], case.forward(x, w, b))


@holds(case=convs(words=False))
def test_padding_is_a_larger_image(case):
    x, w, b, g = case.arrays()
    mode = case.arguments["padding_mode"]
    mode, pads = "constant" if mode == "zeros" else mode, flat_pad(case.pairs())
    larger = F.pad(x, pads, mode)
    zeros = {"padding": 0, "padding_mode": "zeros"}
    equal(case.forward(x, w, b), case.forward(larger, w, b, **zeros))
    grad_x, grad_w, _ = case.backward(g, x, w)
    want_x, want_w, _ = case.backward(g, larger, w, **zeros)
    equal(grad_x, F.pad_backward(want_x, x.shape, pads, mode))
    equal(grad_w, want_w)


@holds(case=convs(), order=st.randoms(use_true_random=False))
def test_channels_may_be_reordered(case, order):
    """Inputs within one group together with the weights; outputs, in one group, with the bias."""
    x, w, b, _ = case.arrays()
    if case.arguments["groups"] == 1:
        inputs, outputs = list(range(w.shape[1])), list(range(w.shape[0]))
        order.shuffle(inputs)
        order.shuffle(outputs)
        y = case.forward(x, w, b)
        equal(case.forward(x[:, inputs], w[:, inputs], b), y)
        equal(case.forward(x, w[outputs], b[outputs]), y[:, outputs])


@st.composite
def unfoldable(draw):
    case = draw(convs(axes=2, words=False, modes=()))
    padding = draw(st.integers(0, 3))
    sizes = [max(n, w * 3) for n, w in zip(case.x_shape[2:], case.w_shape[2:], strict=True)]
    arguments = {**case.arguments, "padding": padding, "groups": 1}
    return Conv(
        (*case.x_shape[:1], case.w_shape[1], *sizes),
        case.w_shape, arguments, case.dtype, case.layout, case.seed,
    )  # fmt: skip


@holds(case=unfoldable())
def test_unfold_and_a_product(case):
    """Convolution is a product with the columns of `unfold`; `fold` is the adjoint of `unfold`."""
    x, w, _, g = case.arrays()
    arguments = {k: case.arguments[k] for k in ("dilation", "padding", "stride")}
    columns = F.unfold(x, w.shape[2:], **arguments)
    y = w.reshape(len(w), -1) @ columns
    equal(y.reshape(g.shape), case.forward(x, w))
    back = integers(np.random.default_rng(case.seed), columns.shape, case.dtype)
    folded = F.fold(back, x.shape[2:], w.shape[2:], **arguments)
    assert (columns.astype(float) * back).sum() == (x.astype(float) * folded).sum()
