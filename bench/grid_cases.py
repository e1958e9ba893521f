"""Awkward and plain shapes that nobody tuned for: the rows of `grid.py`, in families.

A family lists its shapes as products of channels, sizes and kernels, small enough that most calls
take 0.3 to 5 ms; where one image is less work than that, the batch is larger. A name is
"family: shape", built from all fields, so that it is unique.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from cases import Conv, Pool, Sizes

Pair = int | Sizes

# one core's speed, roughly, and the work that makes a cell count in `grid.py`, with some room
_FLOPS, _BANDWIDTH, _WORK = 2e11, 2e10, 0.3e-3


def _pair(value: Pair) -> Sizes:
    return value if isinstance(value, tuple) else (value, value)


def _text(sizes: Sizes) -> str:
    return "x".join(map(str, sizes))


def _describe(case: Conv) -> str:
    ones, zeros = (1,) * case.axes, (0,) * case.axes
    text = f"{_text(case.kernel)} {case.channels}->{case.outputs} @ {_text(case.sizes)}"
    text += f" s{_text(case.stride)}" if case.stride != ones else ""
    text += f" d{_text(case.dilation)}" if case.dilation != ones else ""
    text += f" p{_text(case.padding)}" if case.padding != zeros else ""
    text += f" g{case.groups}" if case.groups > 1 else ""
    return text + f" b{case.batch}"


def _named(family: str, case: Conv) -> Conv:
    """With a name, and a batch that makes a call take about `_WORK` seconds or more."""
    elements = sum(math.prod(s) for s in (case.input_shape, case.weight_shape, case.output_shape))
    seconds = case.flops / _FLOPS + elements * np.dtype(case.dtype).itemsize / _BANDWIDTH
    grown = replace(case, batch=case.batch * math.ceil(_WORK / seconds))
    return replace(grown, name=f"{family}: {_describe(grown)}")


def conv(
    channels: int,
    outputs: int,
    sizes: Pair,
    kernel: Pair,
    stride: Pair = 1,
    dilation: Pair = 1,
    padding: Pair | None = None,
    *,
    batch: int = 1,
    **others: Any,
) -> Conv:
    """A nameless 2-D convolution; padding None keeps the size (stride 1, odd kernel)."""
    window, gaps = _pair(kernel), _pair(dilation)
    same = tuple((k - 1) * d // 2 for k, d in zip(window, gaps, strict=True))
    edge = same if padding is None else _pair(padding)
    return Conv(
        "", batch, channels, outputs, _pair(sizes), window, _pair(stride), edge, gaps, **others
    )


def line(
    channels: int,
    outputs: int,
    length: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    *,
    batch: int = 1,
    **others: Any,
) -> Conv:
    """The same in one dimension."""
    edge = (kernel - 1) * dilation // 2 if padding is None else padding
    geometry = ((length,), (kernel,), (stride,), (edge,), (dilation,))
    return Conv("", batch, channels, outputs, *geometry, **others)


def depthwise(channels: int, sizes: Pair, kernel: Pair, *rest: Any, **others: Any) -> Conv:
    return conv(channels, channels, sizes, kernel, *rest, groups=channels, **others)


def _plain() -> Iterator[Conv]:
    for channels, outputs, sizes in (
        *((48, 80, 40), (80, 48, 40), (24, 72, 57), (100, 100, 33), (20, 40, 65), (36, 36, 50)),
        *((72, 120, 25), (200, 100, 17), (40, 56, (30, 70)), (320, 160, 10), (192, 384, 13)),
        *((384, 256, 13), (18, 90, (96, 20)), (44, 260, 22)),
    ):
        yield conv(channels, outputs, sizes, 3)
        yield conv(channels, outputs, sizes, 1, batch=4)
    for batch, size in ((2, 17), (3, 33), (5, 57), (32, 9), (64, 5), (100, 6), (13, 11)):
        yield conv(32, 48, size, 3, batch=batch)
        yield conv(60, 96, size, 3, 2, batch=batch)


def _primes() -> Iterator[Conv]:
    for channels, outputs, size in (
        *((7, 13, 112), (13, 7, 112), (17, 23, 80), (23, 29, 64), (31, 37, 57), (37, 53, 47)),
        *((53, 61, 33), (61, 67, 33), (97, 101, 23), (127, 131, 17), (251, 127, 11)),
    ):
        yield conv(channels, outputs, size, 3)
        yield conv(channels, outputs, size, 3, 2, batch=3)
        yield conv(channels, outputs, size, 1, batch=3)
        yield conv(channels, outputs, size, 5)


def _few_inputs() -> Iterator[Conv]:
    for channels in (1, 2, 3, 4, 5):
        yield conv(channels, 32, 112, 3)
        yield conv(channels, 64, 112, 3, 2, batch=2)
        yield conv(channels, 24, 97, 5)
        yield conv(channels, 96, (60, 130), 1, batch=2)
    yield conv(3, 48, (180, 240), 7, 2)


def _few_outputs() -> Iterator[Conv]:
    for outputs in (1, 2, 3, 4, 5):
        yield conv(32, outputs, 112, 3)
        yield conv(48, outputs, 112, 3, 2, batch=2)
        yield conv(64, outputs, 57, 5)
        yield conv(64, outputs, 128, 1, batch=2)


def _few_both() -> Iterator[Conv]:
    for channels, outputs in ((1, 1), (1, 3), (2, 2), (3, 1), (3, 3), (4, 5), (5, 2), (8, 8)):
        yield conv(channels, outputs, 256, 3)
        yield conv(channels, outputs, (129, 250), 5)
    yield conv(3, 3, 224, 11)
    yield conv(1, 1, 224, 15)


def _asymmetric() -> Iterator[Conv]:
    kernels = ((1, 7), (7, 1), (1, 3), (3, 1), (1, 5), (5, 1), (3, 5), (5, 3), (1, 15), (15, 1))
    for kernel in kernels:
        yield conv(128, 96, 17, kernel, batch=2)
        yield conv(24, 40, (33, 70), kernel)
    for kernel in ((2, 3), (3, 2), (2, 2), (4, 4), (6, 6), (1, 2), (4, 1), (9, 3)):
        yield conv(40, 40, 41, kernel)


def _large_kernels() -> Iterator[Conv]:
    for kernel, channels, outputs, size in (
        *((5, 48, 64, 27), (5, 96, 128, 17), (5, 16, 32, 57), (7, 32, 48, 33), (7, 64, 64, 17)),
        *((7, 20, 20, 57), (9, 64, 32, 17), (9, 3, 64, 57), (9, 16, 16, 40), (13, 12, 20, 33)),
        *((21, 4, 8, 64), (31, 4, 4, 64)),
    ):
        yield conv(channels, outputs, size, kernel)
    yield conv(3, 64, 224, 11, 4, 1, 2)
    yield conv(3, 96, 227, 11, 4, 1, 0, batch=2)
    yield conv(16, 64, 64, 7, 2)
    yield conv(48, 64, 33, 5, 2)
    yield conv(12, 24, 100, 9, 4)


def _dilated() -> Iterator[Conv]:
    for dilation in (2, 3, 4, 6, 12):
        yield conv(64, 64, 33, 3, 1, dilation)
        yield conv(48, 80, (28, 60), 3, 1, dilation)
        yield conv(24, 24, 57, 3, 1, dilation, batch=2)
    for dilation in (2, 4):
        yield conv(32, 64, 57, 3, 2, dilation)
        yield conv(32, 32, 40, 5, 1, dilation)
        yield conv(3, 32, 100, 3, 1, dilation)
        yield conv(64, 3, 64, 3, 1, dilation)
        yield conv(40, 40, 50, (1, 5), 1, dilation)
        yield conv(40, 40, 50, (5, 1), 1, dilation)


def _grouped() -> Iterator[Conv]:
    for groups, channels, outputs, size in (
        *((2, 96, 128, 27), (2, 64, 64, 33), (3, 96, 96, 29), (4, 64, 96, 33), (8, 128, 128, 28)),
        *((16, 64, 64, 40), (32, 128, 128, 56), (32, 256, 256, 28), (32, 512, 512, 14)),
        *(
            (32, 64, 64, 57),
            (32, 1024, 1024, 7),
            (64, 128, 128, 33),
            (5, 65, 35, 33),
            (7, 77, 91, 25),
        ),
        *((32, 32, 64, 57), (64, 64, 128, 28), (24, 24, 96, 33), (48, 96, 48, 33)),
    ):
        yield conv(channels, outputs, size, 3, groups=groups)
    for groups, channels, size in ((32, 256, 56), (32, 512, 28), (4, 96, 33), (64, 256, 20)):
        yield conv(channels, channels, size, 3, 2, groups=groups)
    for groups, channels, outputs, size in ((3, 240, 60, 28), (8, 384, 96, 14), (4, 96, 192, 28)):
        yield conv(channels, outputs, size, 1, groups=groups, batch=4)
    yield conv(64, 64, 33, 5, groups=16)
    yield conv(64, 64, 33, 3, 1, 2, groups=32)
    yield conv(64, 64, 33, (1, 7), groups=8)


def _strided() -> Iterator[Conv]:
    for stride in (2, 3, (1, 2), (2, 1), 4):
        yield conv(32, 64, 57, 3, stride, batch=2)
        yield conv(64, 96, 40, 5, stride)
        yield conv(64, 128, 56, 1, stride, batch=4)
    for kernel, stride in ((2, 2), (2, 3), (4, 2), (4, 3), (6, 3), (3, 5), (7, 3)):
        yield conv(48, 64, 60, kernel, stride, 1, 0, batch=2)


def _patches() -> Iterator[Conv]:
    for kernel, channels, outputs, size in (
        *((16, 3, 192, 224), (16, 3, 384, 224), (16, 3, 768, 224), (14, 3, 384, 224)),
        *((32, 3, 768, 224), (8, 3, 256, 160), (4, 3, 96, 224), (4, 3, 48, 100), (2, 96, 192, 56)),
        *((2, 192, 384, 28), (2, 384, 768, 14), (16, 1, 128, 160), (7, 3, 64, 224)),
    ):
        yield conv(channels, outputs, size, kernel, kernel, 1, 0)


def _depthwise() -> Iterator[Conv]:
    for kernel in (3, 5, 7, 9, 13, 31):
        yield depthwise(32, 64, kernel)
        yield depthwise(192, 28, kernel)
    for channels, size in ((37, 57), (61, 33), (127, 17), (5, 150), (1000, 9), (17, (40, 130))):
        yield depthwise(channels, size, 3, batch=2)
        yield depthwise(channels, size, 5)
    for stride in (2, 3, (1, 2)):
        yield depthwise(72, 57, 3, stride, batch=2)
        yield depthwise(72, 57, 7, stride)
    for dilation in (2, 4):
        yield depthwise(96, 40, 3, 1, dilation)
        yield depthwise(96, 40, 5, 1, dilation)
    for kernel in ((1, 7), (7, 1), (1, 21), (21, 1), (2, 2), (4, 4)):
        yield depthwise(64, 57, kernel)


def _thin_images() -> Iterator[Conv]:
    for sizes in ((1, 1000), (1000, 1), (3, 1000), (1000, 3), (2, 3000), (3000, 2), (500, 7)):
        yield conv(32, 64, sizes, 3)
        yield conv(64, 64, sizes, 1, batch=2)
        yield conv(16, 48, sizes, 5)
        yield depthwise(64, sizes, 3)
    yield conv(8, 16, (1, 20000), 3)
    yield conv(8, 16, (20000, 1), 3)
    yield conv(64, 64, (1000, 3), 3, 2)
    yield conv(64, 64, (3, 1000), 3, 2)


def _whole_image_kernels() -> Iterator[Conv]:
    for channels, outputs, size, batch in (
        *(
            (256, 512, 4, 8),
            (512, 128, 7, 4),
            (64, 1000, 5, 16),
            (256, 4096, 6, 1),
            (16, 120, 5, 64),
        ),
        *((512, 1000, 1, 32), (2048, 1000, 1, 1), (1280, 1000, 1, 16), (33, 65, 3, 128)),
    ):
        yield conv(channels, outputs, size, size, 1, 1, 0, batch=batch)
    for channels, outputs, size, batch in ((512, 24, 7, 1), (1000, 24, 7, 2), (24, 1000, 7, 1)):
        yield conv(channels, outputs, size, 3, batch=batch)


def _padding() -> Iterator[Conv]:
    for padding in (0, 2, 5, (0, 3), (4, 0)):
        yield conv(48, 64, 33, 3, 1, 1, padding)
        yield conv(3, 64, 64, 5, 1, 1, padding)
        yield conv(64, 64, 28, 1, 1, 1, padding)


def _lines() -> Iterator[Conv]:
    for kernel in (512, 601, 1024, 2048):
        yield line(1, 16, 16000, kernel, 8)
        yield line(1, 1, 8000, kernel)
        yield line(4, 8, 3000, kernel, 1, 1, 0)
        yield line(16, 16, 16000, kernel, kernel // 4, 1, 0)
    for channels, outputs, length, kernel, batch in (
        *((37, 41, 1000, 3, 4), (3, 64, 4000, 7, 4), (64, 3, 4000, 7, 4), (128, 128, 333, 5, 4)),
        *((256, 256, 100, 3, 4), (32, 32, 2000, 11, 2), (16, 16, 8000, 9, 1), (64, 128, 17, 3, 32)),
        *((80, 256, 500, 5, 1), (1, 32, 16000, 25, 2), (512, 512, 33, 3, 2), (8, 8, 20000, 4, 1)),
        *((128, 256, 1000, 1, 2), (96, 96, 700, 2, 4), (48, 48, 1500, 31, 1)),
    ):
        yield line(channels, outputs, length, kernel, batch=batch)
    for dilation in (2, 4, 16, 128):
        yield line(64, 64, 2000, 3, 1, dilation, batch=2)
        yield line(32, 64, 3000, 2, 1, dilation, 0, batch=2)
    for stride, kernel in ((2, 4), (3, 3), (4, 8), (5, 10), (8, 16), (160, 400)):
        yield line(32, 64, 8000, kernel, stride)
    for kernel in (3, 15, 63, 501):
        yield line(128, 128, 1000, kernel, groups=128, batch=2)
    yield line(64, 64, 2000, 9, groups=8, batch=2)
    yield line(96, 96, 1000, 5, groups=32, batch=4)


def _transposed() -> Iterator[Conv]:
    for channels, outputs, size, kernel, stride, padding, batch in (
        *((64, 32, 28, 2, 2, 0, 4), (128, 64, 14, 2, 2, 0, 4), (37, 19, 33, 2, 2, 0, 2)),
        *((64, 48, 20, 3, 2, 1, 2), (48, 64, 33, 3, 1, 1, 1), (100, 128, 1, 4, 1, 0, 16)),
        *((128, 64, 16, 4, 2, 1, 2), (64, 3, 32, 4, 2, 1, 4), (64, 1, 28, 5, 2, 2, 4)),
        *((32, 32, 33, 5, 2, 2, 1), (24, 24, 40, 5, 3, 1, 1), (64, 64, 17, 7, 4, 2, 1)),
        *((192, 3, 14, 16, 16, 0, 1), (21, 21, 16, 16, 8, 4, 1), (32, 16, 40, 2, 3, 0, 2)),
    ):
        yield conv(
            channels, outputs, size, kernel, stride, 1, padding, batch=batch, transposed=True
        )
    yield depthwise(64, 28, 4, 2, 1, 1, transposed=True, batch=2)
    yield depthwise(32, 57, 3, 1, 1, 1, transposed=True)
    yield conv(64, 64, 28, 4, 2, 1, 1, groups=8, transposed=True)
    yield conv(32, 32, 28, 3, 2, 2, 2, transposed=True)
    for channels, outputs, length, kernel, stride in (
        *((128, 64, 200, 16, 8), (64, 32, 1000, 4, 2), (37, 23, 500, 5, 3), (256, 1, 500, 16, 8)),
        *((32, 32, 2000, 3, 1), (64, 64, 250, 10, 5)),
    ):
        yield line(channels, outputs, length, kernel, stride, 1, 1, transposed=True, batch=2)


def _doubles() -> Iterator[Conv]:
    for case in (
        *(conv(32, 32, 33, k) for k in (1, 3, 5)),
        *(conv(3, 32, 80, 3), conv(32, 2, 80, 3), conv(37, 53, 21, 3, 2), conv(7, 13, 57, 5)),
        *(conv(3, 96, 112, 16, 16, 1, 0), conv(64, 64, 28, 3, groups=32), depthwise(64, 33, 5)),
        *(conv(32, 32, 28, 3, 1, 4), conv(48, 48, 17, (1, 7)), conv(32, 32, (300, 3), 3)),
        *(line(32, 32, 1000, 9), line(1, 4, 4000, 512), line(64, 64, 500, 31, groups=64)),
        conv(32, 16, 14, 4, 2, 1, 1, transposed=True),
    ):
        yield replace(case, dtype="float64")


_FAMILIES = {
    "plain": _plain,
    "prime channels": _primes,
    "few inputs": _few_inputs,
    "few outputs": _few_outputs,
    "few of both": _few_both,
    "asymmetric": _asymmetric,
    "large kernels": _large_kernels,
    "dilated": _dilated,
    "grouped": _grouped,
    "strided": _strided,
    "patches": _patches,
    "depthwise": _depthwise,
    "thin images": _thin_images,
    "whole image": _whole_image_kernels,
    "padding": _padding,
    "1-D": _lines,
    "transposed": _transposed,
    "float64": _doubles,
}


def _pools() -> Iterator[Pool]:
    for kind in ("max", "avg"):
        for channels, sizes, kernel, stride, padding, batch in (
            *((37, (57, 57), 3, 2, 1, 4), (64, (33, 33), 2, 2, 0, 8), (3, (224, 224), 2, 2, 0, 2)),
            *(
                (100, (17, 17), 3, 1, 1, 4),
                (13, (100, 60), 5, 2, 2, 4),
                (256, (13, 13), 3, 2, 0, 4),
            ),
            *((512, (8, 8), 8, 8, 0, 8), (48, (56, 56), 7, 1, 3, 1), (5, (3, 1000), 3, 3, 0, 8)),
            *((32, (60, 90), (1, 3), (1, 3), (0, 0), 4), (16, (57, 57), (2, 4), (2, 4), (0, 0), 8)),
        ):
            window = (_pair(kernel), _pair(stride), _pair(padding))
            text = f"{_text(window[0])} {channels} @ {_text(sizes)} s{_text(window[1])}"
            text += f" p{_text(window[2])} b{batch}"
            yield Pool(f"{kind} pool: {text}", kind, (batch, channels, *sizes), *window)
        for channels, length, size, stride, batch in ((37, 3000, 3, 2, 8), (64, 1000, 5, 5, 8)):
            text = f"{size} {channels} @ {length} s{stride} b{batch}"
            shape = (batch, channels, length)
            yield Pool(f"{kind} pool: {text}", kind, shape, (size,), (stride,), (0,))


CONVS = tuple(_named(family, case) for family, make in _FAMILIES.items() for case in make())
POOLS = tuple(_pools())


def family(name: str) -> str:
    return name.partition(":")[0]
