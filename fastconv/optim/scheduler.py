"""Learning-rate schedules: StepLR, CosineAnnealingLR, OneCycleLR."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .._messages import typed
from ..functional._arrays import choice
from ..functional._checks import LIMIT, flag, integer, number
from .optimizer import Array, Optimizer


class Scheduler:
    """Base of the schedules: sets the groups' "lr" now and after every `step()`.

    `get_last_lr()` gives the current rates; `state_dict()` is one 0-d array, the step count.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: optimizer must be an Optimizer, got {typed(optimizer)}"
            )
        self.optimizer = optimizer
        self.base_lrs: list[float] = [float(group["lr"]) for group in optimizer.param_groups]
        self.last_step = 0

    def lr(self, base: float, step: int) -> float:
        """The rate after `step` calls of `step()`, for a group that started at `base`."""
        raise TypeError(f"{type(self).__name__} has no lr method")

    def step(self) -> None:
        """Call after `optimizer.step()`, once per epoch or per batch as the numbers are meant."""
        self.last_step += 1
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.lr(base, self.last_step)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Array]:
        return {"last_step": np.array(self.last_step), "base_lrs": np.array(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Put back `state_dict()` and set the rates that belong to it."""
        missing = {"last_step", "base_lrs"} - set(state_dict)
        base_lrs = np.atleast_1d(np.asarray(state_dict.get("base_lrs", ()), dtype=np.float64))
        if missing or len(base_lrs) != len(self.base_lrs):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: expected last_step and "
                f"{len(self.base_lrs)} base_lrs, got keys {list(state_dict)}"
            )
        self.last_step = int(np.asarray(state_dict["last_step"]))
        self.base_lrs = base_lrs.tolist()
        self._apply()


class StepLR(Scheduler):
    """lr = base * gamma ** (step // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer)
        self.step_size = integer("StepLR", "step_size", step_size, 1)
        self.gamma = number("StepLR", "gamma", gamma)

    def lr(self, base: float, step: int) -> float:
        return float(base * self.gamma ** (step // self.step_size))


class CosineAnnealingLR(Scheduler):
    """lr = eta_min + (base - eta_min) * (1 + cos(pi * step / T_max)) / 2.

    Loshchilov & Hutter 2017, "SGDR", without restarts; past T_max it rises again, as torch's.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        super().__init__(optimizer)
        self.T_max = integer("CosineAnnealingLR", "T_max", T_max, 1)
        self.eta_min = number("CosineAnnealingLR", "eta_min", eta_min)

    def lr(self, base: float, step: int) -> float:
        share = (1 + math.cos(math.pi * step / self.T_max)) / 2
        return self.eta_min + (base - self.eta_min) * share


class OneCycleLR(Scheduler):
    """Up to `max_lr`, then down far below the start (Smith & Topin 2018); torch's formulas.

    The rate starts at max_lr / div_factor, reaches max_lr after pct_start of `total_steps` (or
    epochs * steps_per_epoch), and ends at max_lr / div_factor / final_div_factor. With
    `three_phase` it first returns symmetrically to the start. With `cycle_momentum` the momentum
    (beta1 of Adam) moves the other way, between `max_momentum` and `base_momentum`. It sets the
    rate at construction; a step past `total_steps` raises ValueError.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        super().__init__(optimizer)
        who = "OneCycleLR"
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = integer(who, "epochs", epochs, 1)
            total_steps *= integer(who, "steps_per_epoch", steps_per_epoch, 1)
        self.total_steps = integer(who, "total_steps", total_steps, 1, LIMIT**2)
        self.pct_start = number(who, "pct_start", pct_start, 0, 1)
        self.anneal_strategy = choice(who, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.cycle_momentum = flag(who, "cycle_momentum", cycle_momentum)
        self.three_phase = flag(who, "three_phase", three_phase)
        self.base_momentum = number(who, "base_momentum", base_momentum)
        self.max_momentum = number(who, "max_momentum", max_momentum)
        self.div_factor = number(who, "div_factor", div_factor)
        self.final_div_factor = number(who, "final_div_factor", final_div_factor)
        if not (self.div_factor > 0 and self.final_div_factor > 0):
            raise ValueError(
                f"OneCycleLR: div_factor and final_div_factor must be above 0, got {div_factor} "
                f"and {final_div_factor}"
            )
        groups = optimizer.param_groups
        given = list(max_lr) if isinstance(max_lr, (tuple, list)) else [max_lr] * len(groups)
        peaks = [number(who, "max_lr", peak) for peak in given]
        if len(peaks) != len(groups):
            raise ValueError(f"OneCycleLR: max_lr has {len(peaks)} entries, not {len(groups)}")
        if self.cycle_momentum and not any(key in groups[0] for key in ("momentum", "betas")):
            raise ValueError("OneCycleLR: cycle_momentum needs an optimizer with momentum or betas")
        if self.cycle_momentum and groups[0].get("momentum", 1) == 0:
            raise ValueError("OneCycleLR: cycle_momentum needs momentum > 0; or turn it off")
        self.base_lrs = peaks
        self._apply()

    def step(self) -> None:
        """Once per batch."""
        if self.last_step + 1 > self.total_steps:
            raise ValueError(f"OneCycleLR: step {self.last_step + 1} of {self.total_steps}")
        super().step()

    def lr(self, base: float, step: int) -> float:
        start = base / self.div_factor
        lows = (start, start / self.final_div_factor)
        return self._at(step, base, lows if not self.three_phase else (start, start, lows[1]))

    def momentum(self, step: int) -> float:
        """The momentum after `step` steps."""
        high = self.max_momentum
        return self._at(step, self.base_momentum, (high,) * (3 if self.three_phase else 2))

    def _at(self, step: int, peak: float, feet: tuple[float, ...]) -> float:
        """Interpolate feet[0] -> peak -> feet[1] (-> feet[2]) at `step`."""
        top = self.pct_start * self.total_steps - 1
        ends, values = [top, self.total_steps - 1.0], [feet[0], peak, feet[1]]
        if self.three_phase:
            ends.insert(1, 2 * self.pct_start * self.total_steps - 2)
            values.append(feet[2])
        begin = 0.0
        for i, end in enumerate(ends):
            if step <= end or i == len(ends) - 1:
                share = (step - begin) / (end - begin) if end != begin else 1.0
                return self._anneal(values[i], values[i + 1], share)
            begin = end
        return values[-1]

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * share
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))

    def _apply(self) -> None:
        super()._apply()
        if not self.cycle_momentum:
            return
        momentum = self.momentum(self.last_step)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
