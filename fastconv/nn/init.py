"""Weight initialisation, with torch.nn.init's names, formulas and defaults.

Every function writes into its argument, a Parameter or an array, and returns it. Random numbers
are drawn in float64, so one seed gives the same weights in float32 and float64 up to rounding.
"""

import math
from collections.abc import Callable
from typing import TypeVar

from .._messages import shown
from .module import Array, Rng, as_generator
from .parameter import Parameter

Target = TypeVar("Target", Parameter, Array)

_DRAWN_AT_ONCE = 1 << 18


def constant_(target: Target, value: float) -> Target:
    """Fill with `value`."""
    _array(target)[...] = value
    return target


def zeros_(target: Target) -> Target:
    """Fill with 0."""
    return constant_(target, 0.0)


def ones_(target: Target) -> Target:
    """Fill with 1."""
    return constant_(target, 1.0)


def uniform_(target: Target, a: float = 0.0, b: float = 1.0, rng: Rng = None) -> Target:
    """Draw from the uniform distribution on [a, b)."""
    generator = as_generator(rng)
    _fill(_array(target), lambda shape: generator.uniform(a, b, shape))
    return target


def normal_(target: Target, mean: float = 0.0, std: float = 1.0, rng: Rng = None) -> Target:
    """Draw from the normal distribution."""
    generator = as_generator(rng)
    _fill(_array(target), lambda shape: generator.normal(mean, std, shape))
    return target


def kaiming_uniform_(
    target: Target,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    rng: Rng = None,
) -> Target:
    """Uniform on +-gain * sqrt(3 / fan) (He et al. 2015, "Delving Deep into Rectifiers")."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _fan(_array(target), mode))
    return uniform_(target, -bound, bound, rng)


def kaiming_normal_(
    target: Target,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    rng: Rng = None,
) -> Target:
    """Normal with std gain / sqrt(fan) (He et al. 2015, "Delving Deep into Rectifiers")."""
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(_array(target), mode))
    return normal_(target, 0.0, std, rng)


def xavier_uniform_(target: Target, gain: float = 1.0, rng: Rng = None) -> Target:
    """Uniform on +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(_array(target).shape)))
    return uniform_(target, -bound, bound, rng)


def xavier_normal_(target: Target, gain: float = 1.0, rng: Rng = None) -> Target:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    std = gain * math.sqrt(2.0 / sum(fans(_array(target).shape)))
    return normal_(target, 0.0, std, rng)


def calculate_gain(nonlinearity: str, a: float = 0.0) -> float:
    """torch.nn.init.calculate_gain: linear and sigmoid 1, tanh 5/3, relu sqrt(2), leaky_relu."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + a * a))
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0)}
    if nonlinearity not in gains:
        names = ", ".join([*gains, "leaky_relu"])
        raise ValueError(
            f"calculate_gain: nonlinearity must be one of {names}, got {shown(nonlinearity)}"
        )
    return gains[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, ...): the channels times the kernel's taps."""
    if len(shape) < 2:
        raise ValueError(f"fans: weight must have 2 or more axes, got shape {shape}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def reset_linear_(weight: Parameter, bias: Parameter | None, rng: Rng) -> None:
    """torch's default of Linear and every conv: both uniform on +-1 / sqrt(fan_in)."""
    generator = as_generator(rng)
    kaiming_uniform_(weight, a=math.sqrt(5.0), rng=generator)
    if bias is not None:
        bound = 1.0 / math.sqrt(fans(weight.shape)[0])
        uniform_(bias, -bound, bound, rng=generator)


def _fill(array: Array, draw: Callable[[tuple[int, ...]], Array]) -> None:
    """Write draws in row-major order, a part at a time: large weights need no float64 twin."""
    if array.ndim == 0:
        array[...] = draw(())
        return
    step = max(1, _DRAWN_AT_ONCE * len(array) // max(1, array.size))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        part[...] = draw(part.shape)


def _array(target: Parameter | Array) -> Array:
    return target.data if isinstance(target, Parameter) else target


def _fan(array: Array, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"init: mode must be 'fan_in' or 'fan_out', got {shown(mode)}")
    return fans(array.shape)[mode == "fan_out"]
