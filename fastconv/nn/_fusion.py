"""Which layers of a container run as one kernel.

A fused run gives the bits of its layers one after the other in forward, and gradients that differ
from theirs by rounding. Its layers keep their parameters, names and modes; the first one computes
and records, the others record `PASSED` and hand the gradient through.

- BatchNorm and ReLU or ReLU6: one pass for the statistics, one to write y; backward tells the sign
  of y from x, so that nothing else is kept.
- Conv and ReLU or ReLU6: the convolution clamps as it writes. Where a MaxPool follows, the gradient
  is masked, and summed for the bias, behind the pool: in a fraction of the entries, and the
  full-size y is not kept.
- At the end of a Residual, BatchNorm, the sum and ReLU or ReLU6 (or nothing).
- At its start, in backward, the gradient of a Conv's input and the sum with that of the shortcut.

Only layers of exactly these classes are fused: a subclass, or a layer whose `forward` or `backward`
was replaced, runs by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .._config import _Restore
from .activation import ReLU, ReLU6
from .conv import Conv1d, Conv2d
from .module import PASSED, Array, Module, is_plain
from .norm import BatchNorm1d, BatchNorm2d
from .pool import MaxPool1d, MaxPool2d

_enabled = True

_NORMS = (BatchNorm1d, BatchNorm2d)
_CLAMPS = (ReLU, ReLU6)
_POOL_OF: dict[type, type] = {Conv1d: MaxPool1d, Conv2d: MaxPool2d}


def fusion(enabled: bool) -> _Restore:
    """Switch fused kernels of containers on (as at the start) or off.

    For a `with` block, or until the next call when used alone; in the whole process. What is
    already recorded for backward stays as it is.

    Examples
    --------
    >>> with fastconv.nn.fusion(False):
    ...     y = model(x)  # layer by layer
    """
    if not isinstance(enabled, bool):
        raise TypeError(f"fusion: enabled must be a bool, got {type(enabled).__name__} {enabled!r}")
    before = _enabled
    _switch(enabled)
    return _Restore(_switch, before)


def _switch(enabled: bool) -> None:
    global _enabled
    _enabled = enabled


def run_length(layers: Sequence[Module], start: int) -> int:
    """How many layers from `start` on run as one: 1 where nothing is fused."""
    if not _enabled or start + 1 >= len(layers) or type(layers[start + 1]) not in _CLAMPS:
        return 1
    kind: type = type(layers[start])
    if kind not in _NORMS and kind not in _POOL_OF:
        return 1
    if not (is_plain(layers[start]) and is_plain(layers[start + 1])):
        return 1
    if start + 2 < len(layers) and type(layers[start + 2]) is _POOL_OF.get(kind):
        return 3 if is_plain(layers[start + 2]) else 2
    return 2


def run(layers: Sequence[Module], x: Array, names: Iterable[str]) -> tuple[Array, bool]:
    """The layers one after the other, fused where that can be, and whether nobody else has the
    result; an error gets the layer's name."""
    i, owned = 0, False
    try:
        while i < len(layers):
            count, layer = run_length(layers, i), layers[i]
            if count > 1:
                y = _run_fused(layers[i : i + count], x, owned)
            elif owned and type(layer) in _NORMS and is_plain(layer):
                y = layer.run(x, owned=True)  # type: ignore[attr-defined]
            else:
                y = layer(x)
            # A fused layer may keep its result.
            owned = count == 1 and layer.fresh and is_plain(layer) and (owned or y is not x)
            x = y
            i += count
    except (TypeError, ValueError) as error:
        error.add_note(f"in layer {list(names)[i]} ({type(layers[i]).__name__})")
        raise
    return x, owned


def _run_fused(layers: Sequence[Any], x: Array, owned: bool) -> Array:
    first, activation, *pool = layers
    y: Array
    if not pool:
        own = {"owned": owned} if type(first) in _NORMS else {}
        y = first.run(x, activation.clamp, **own)
        activation.pass_through()
        return y
    y = first.run(x, activation.clamp, pooled=True)
    activation.pass_through()
    y = pool[0].run(y, activation.clamp, first.bias)
    return y


def ran_with_pool(layers: Sequence[Any], start: int) -> bool:
    """Whether a Conv2d at `start`, whose weight learns, an activation and a pool ran as one."""
    run = layers[start : start + 3]
    return (
        len(run) == 3
        and type(run[0]) is Conv2d
        and type(run[1]) in _CLAMPS
        and type(run[2]) is MaxPool2d
        and all(is_plain(layer) and layer._saved is not None for layer in run)
        and run[0]._saved[3]
        and run[0].weight.requires_grad
    )


def starts_with_conv(layers: Sequence[Module]) -> bool:
    """Whether a Residual adds the shortcut's gradient in the gradient of its first layer."""
    return _enabled and len(layers) > 0 and type(layers[0]) in _POOL_OF and is_plain(layers[0])


def ends_with_norm(layers: Sequence[Module], activation: Module | None) -> bool:
    """Whether a Residual adds its shortcut inside the last layer of its body."""
    return (
        _enabled
        and len(layers) > 0
        and type(layers[-1]) in _NORMS
        and is_plain(layers[-1])
        and (activation is None or (type(activation) in _CLAMPS and is_plain(activation)))
    )


def fused_names(names: Sequence[str], layers: Sequence[Module]) -> list[tuple[str, ...]]:
    """The names of the layers of each fused run."""
    runs, i = [], 0
    while i < len(layers):
        count = run_length(layers, i)
        if count > 1:
            runs.append(tuple(names[i : i + count]))
        i += count
    return runs


__all__ = ["PASSED", "ends_with_norm", "fused_names", "fusion", "run", "run_length"]
