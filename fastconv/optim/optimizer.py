"""The optimisers: SGD, Adam, AdamW."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .. import _core
from .._messages import shown, typed
from ..functional._checks import F32, F64, flag, number
from ..nn import Module, Parameter
from ..nn.parameter import zero_grad

Array = npt.NDArray[Any]
Group = dict[str, Any]


def weight_decay_groups(model: Module, weight_decay: float) -> list[Group]:
    """Two parameter groups: weights with `weight_decay`; norms and biases (1 axis) without."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


class Optimizer:
    """Base of SGD, Adam and AdamW.

    `params` is an iterable of Parameters, or of dicts {"params": [...], "lr": ..., ...} that
    override the arguments for their group. `param_groups` may be changed between steps
    (`optimizer.param_groups[0]["lr"] = 0.01`). Parameters without a gradient are left alone.
    """

    slots: ClassVar[tuple[str, ...]]  # names of the arrays kept for each parameter

    def __init__(
        self, params: Iterable[Parameter] | Iterable[Mapping[str, Any]], defaults: Group
    ) -> None:
        who = type(self).__name__
        if isinstance(params, Module):
            raise TypeError(f"{who}: params must hold Parameters, got a Module; use .parameters()")
        if not isinstance(params, Iterable):
            raise self._no_parameters(params)
        entries: list[Any] = list(params)
        if not entries:
            raise ValueError(
                f"{who}: params is empty; layers in a plain list or dict are not found, those in "
                "nn.ModuleList, nn.ModuleDict and nn.Sequential are"
            )
        if not isinstance(entries[0], Mapping):
            entries = [{"params": entries}]
        self.param_groups: list[Group] = []
        self.state: dict[int, dict[str, Array]] = {}  # by position in _parameters()
        for entry in entries:
            unknown = set(entry) - set(defaults) - {"params"}
            if unknown:
                raise ValueError(f"{who}: unknown option {sorted(unknown)} in a parameter group")
            group = {**defaults, **entry, "params": list(entry["params"])}
            self._check(group)
            self.param_groups.append(group)
        parameters = list(self._parameters())
        for parameter in parameters:
            if not isinstance(parameter, Parameter):
                raise self._no_parameters(parameter)
        if len({id(p) for p in parameters}) != len(parameters):
            raise ValueError(f"{who}: a parameter occurs twice")

    def _no_parameters(self, given: Any) -> TypeError:
        return TypeError(
            f"{type(self).__name__}: params must hold Parameters, as model.parameters() gives "
            f"them, got {typed(given)}"
        )

    def _parameters(self) -> Iterator[Parameter]:
        for group in self.param_groups:
            yield from group["params"]

    def _check(self, group: Group) -> None:
        """Refuse options that no formula below is defined for."""
        for name in ("lr", "weight_decay", "eps", "momentum"):
            if name in group:
                group[name] = number(type(self).__name__, name, group[name], 0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients (`Parameter.grad = None`), or with False fill them with zeros.

        A parameter without a gradient is left alone by `step`; one with zeros still gets momentum
        and weight decay.
        """
        zero_grad(f"{type(self).__name__}.zero_grad", self._parameters(), set_to_none)

    def step(self) -> None:
        """Update every parameter that has a gradient; all are checked before one is changed.

        Raises
        ------
        ValueError
            A gradient or the state has another shape than the parameter's data, or data is
            read-only.
        TypeError
            Data is no float32 or float64 array, or the state has another dtype: the parameter was
            cast after a step.
        """
        self._check_arrays()
        index = 0
        for group in self.param_groups:
            entries: dict[Any, list[Any]] = {}
            copies = []  # of data that is not contiguous, written back after the step
            slots = self._slots(group)
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is not None:
                    data = parameter.data
                    kept, numbers = self._kept(parameter, group, slots, index)
                    plain = data.flags.carray
                    to = data if plain else np.ascontiguousarray(data)
                    if not plain:
                        copies.append((data, to))
                    if not (_is_plain(data, grad) and grad.flags.carray):
                        grad = np.ascontiguousarray(grad, data.dtype)
                    entries.setdefault(data.dtype, []).append((to, grad, *kept, *numbers))
                index += 1
            for same_dtype in entries.values():
                self._update(group, same_dtype)
            for data, to in copies:
                data[...] = to

    def _check_arrays(self) -> None:
        """Refuse what `_core` cannot take: a user may have put other arrays into a Parameter."""
        who = f"{type(self).__name__}.step"
        index = -1
        for group in self.param_groups:
            slots = self._slots(group)
            for parameter in group["params"]:
                index += 1
                if parameter.grad is None:
                    continue
                data = parameter.data
                if not _is_plain(data, parameter.grad):
                    _check_data(who, index, data, parameter.grad)
                state = self.state.get(index, {})
                for name in slots:
                    if name in state and not _is_plain(data, state[name]):
                        _check_state(who, index, data, name, state[name])

    def _kept(
        self, parameter: Parameter, group: Group, slots: tuple[str, ...], index: int
    ) -> tuple[list[Array | None], tuple[float, float]]:
        """Two arrays of the state, and the numbers of this step."""
        state = self.state.get(index)
        if state is None:
            state = self.state[index] = {"step": np.zeros((), np.int64)}
        for name in slots:
            if name not in state:
                state[name] = np.zeros(parameter.shape, parameter.dtype)
        state["step"] += 1
        kept = [*[state[name] for name in slots], None, None][:2]
        return kept, self._numbers(group, int(state["step"]))

    def _slots(self, group: Group) -> tuple[str, ...]:
        return self.slots

    def _numbers(self, group: Group, step: int) -> tuple[float, float]:
        """What the update takes from the number of steps that a parameter has made."""
        return 0.0, 0.0

    def _update(self, group: Group, entries: list[Any]) -> None:
        """Write the new data and state of all `entries`, as `_core` takes them."""
        raise TypeError(f"{type(self).__name__} has no _update method")

    def state_dict(self) -> dict[str, Array]:
        """Flat copies: "state.<parameter>.<slot>" and the options "group.<i>.<name>"."""
        result: dict[str, Array] = {}
        for index, state in self.state.items():
            for name, value in state.items():
                result[f"state.{index}.{name}"] = value.copy()
        for i, group in enumerate(self.param_groups):
            for name, value in group.items():
                if name != "params":
                    result[f"group.{i}.{name}"] = np.array(value)
        return result

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Put back what `state_dict` returned; everything is checked before anything changes.

        Raises
        ------
        TypeError
            `state_dict` is no dict.
        ValueError
            A key or shape does not belong to this optimiser and its parameters, or one is missing.
        """
        who = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{who}: state_dict must be a dict of arrays, got {typed(state_dict)}")
        options = (f"group.{i}.{k}" for i, g in enumerate(self.param_groups) for k in g)
        missing = [key for key in options if key not in state_dict and not key.endswith(".params")]
        if missing:
            raise ValueError(f"{who}: state_dict lacks {', '.join(missing)}")
        parameters = list(self._parameters())
        groups: list[Group] = [dict(group) for group in self.param_groups]
        state: dict[int, dict[str, Array]] = {}
        for key, value in state_dict.items():
            kind, _, rest = key.partition(".")
            number, _, name = rest.partition(".")
            array = np.array(value, order="C")  # `_core` reads states in C order
            index = int(number) if number.isdecimal() else -1
            if kind == "group" and 0 <= index < len(groups) and name in groups[index]:
                groups[index][name] = tuple(array.tolist()) if array.ndim else array.item()
            elif (
                kind == "state"
                and 0 <= index < len(parameters)
                and (name == "step" or name in self.slots)
            ):
                expected = () if name == "step" else parameters[index].shape
                if array.shape != expected:
                    raise ValueError(f"{who}: {key} has shape {array.shape}, not {expected}")
                dtype = np.dtype(np.int64) if name == "step" else parameters[index].dtype
                state.setdefault(index, {})[name] = array.astype(dtype)
            else:
                raise ValueError(
                    f"{who}: unexpected key {shown(key)} ({len(groups)} groups, "
                    f"{len(parameters)} parameters)"
                )
        for index, entry in state.items():
            needed = ("step", *self._slots_of(index, groups))
            lacking = [name for name in needed if name not in entry]
            if lacking:
                raise ValueError(f"{who}: state.{index} lacks {', '.join(lacking)}")
        for group, loaded in zip(self.param_groups, groups, strict=True):
            self._check(loaded)
            group.update(loaded)
        self.state = state

    def _slots_of(self, index: int, groups: list[Group]) -> tuple[str, ...]:
        for group in groups:
            if index < len(group["params"]):
                return self._slots(group)
            index -= len(group["params"])
        return ()


class SGD(Optimizer):
    """Gradient descent with momentum as torch.optim.SGD (Sutskever et al. 2013).

    g = grad + weight_decay * w; v = momentum * v + (1 - dampening) * g (first step: v = g);
    w -= lr * v, or with nesterov w -= lr * (g + momentum * v).
    """

    slots = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def _check(self, group: Group) -> None:
        super()._check(group)
        group["dampening"] = number("SGD", "dampening", group["dampening"])
        if flag("SGD", "nesterov", group["nesterov"]) and (
            group["momentum"] <= 0 or group["dampening"] != 0
        ):
            raise ValueError(
                f"SGD: nesterov needs momentum > 0 and dampening 0, got momentum "
                f"{group['momentum']} and dampening {group['dampening']}"
            )

    def _slots(self, group: Group) -> tuple[str, ...]:
        return self.slots if group["momentum"] else ()

    def _numbers(self, group: Group, step: int) -> tuple[float, float]:
        return 1.0 if step == 1 else 1.0 - group["dampening"], 0.0

    def _update(self, group: Group, entries: list[Any]) -> None:
        options = group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]
        _core.sgd_step(entries, *options)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) as torch.optim.Adam; weight_decay is added to the gradient.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    w -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def _check(self, group: Group) -> None:
        super()._check(group)
        who, betas = type(self).__name__, group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"{who}: betas must be two numbers, got {typed(betas)}")
        group["betas"] = tuple(number(who, "betas", beta, 0, 1) for beta in betas)
        if 1 in group["betas"]:
            raise ValueError(f"{who}: betas must be two numbers in [0, 1), got {shown(betas)}")

    def _numbers(self, group: Group, step: int) -> tuple[float, float]:
        beta1, beta2 = group["betas"]
        return group["lr"] / (1 - beta1**step), math.sqrt(1 - beta2**step)

    def _update(self, group: Group, entries: list[Any]) -> None:
        beta1, beta2 = group["betas"]
        _core.adam_step(entries, beta1, beta2, group["eps"], group["weight_decay"], 1.0)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): first w *= 1 - lr * decay."""

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def _update(self, group: Group, entries: list[Any]) -> None:
        shrink = 1 - group["lr"] * group["weight_decay"]
        beta1, beta2 = group["betas"]
        _core.adam_step(entries, beta1, beta2, group["eps"], 0.0, shrink)


def _is_plain(data: Any, other: Any) -> bool:
    """Two arrays with which nothing is wrong, as in nearly every step."""
    return (
        type(data) is type(other) is np.ndarray
        and data.dtype is other.dtype
        and (data.dtype is F32 or data.dtype is F64)
        and data.shape == other.shape
        and data.flags.carray
    )


def _check_data(who: str, index: int, data: Any, grad: Any) -> None:
    if not isinstance(data, np.ndarray) or data.dtype not in (np.float32, np.float64):
        got = data.dtype if isinstance(data, np.ndarray) else typed(data)
        raise TypeError(
            f"{who}: data of parameter {index} must be a float32 or float64 array, got {got}"
        )
    if not data.flags.writeable:
        raise ValueError(f"{who}: data of parameter {index} is read-only")
    if np.shape(grad) != data.shape:
        raise ValueError(
            f"{who}: grad of parameter {index} has shape {np.shape(grad)}, its data {data.shape}; "
            "they must be the same"
        )


def _check_state(who: str, index: int, data: Array, name: str, state: Array) -> None:
    if state.shape != data.shape:
        raise ValueError(
            f"{who}: state {name} of parameter {index} has shape {state.shape}, its data "
            f"{data.shape}; make a new optimizer for a parameter of another shape"
        )
    if state.dtype != data.dtype:
        raise TypeError(
            f"{who}: state {name} of parameter {index} is {state.dtype}, its data {data.dtype}; "
            "make a new optimizer for a parameter of another dtype"
        )
