"""Parameter: an array that is learned, and its gradient."""

from collections.abc import Iterable, Iterator
from typing import Any, Never, Self

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from .._messages import typed
from ..functional._checks import flag

Array = npt.NDArray[Any]


class Parameter(NDArrayOperatorsMixin):
    """An array that is learned: `data`, its gradient `grad` (None or an array), `requires_grad`.

    NumPy takes it for the array `data`: `np.linalg.norm(p)`, `p[0]`, and `2 * p`, which is a plain
    array; `p *= 2` and `p[0] = 1` write to `data`. What is kept of a forward is not updated then.
    With `requires_grad = False` the layers do not compute this gradient (frozen weights). An array
    assigned to `data` must have the same shape (or be empty, to free memory), and be float32 or
    float64.
    """

    __slots__ = ("_data", "_requires_grad", "grad")

    def __init__(self, data: npt.ArrayLike, requires_grad: bool = True) -> None:
        array = np.asarray(data)
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"Parameter: data must be float32 or float64, got {array.dtype}")
        self._data: Array = array
        self.grad: Array | None = None
        self.requires_grad = requires_grad

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            setattr(self, "_data" if name == "data" else name, value)  # `data` in older pickles

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, array: Array) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"Parameter.data: must be a numpy.ndarray, got {typed(array)}; a Parameter itself "
                "is assigned to the layer's attribute"
            )
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"Parameter.data: must be float32 or float64, got {array.dtype}")
        released = array.size == 0 or self._data.size == 0  # as by `compile(release=True)`
        if array.shape != self._data.shape and not released:
            raise ValueError(
                f"Parameter.data: must keep its shape {self._data.shape}, got {array.shape}; for "
                "another shape assign a new Parameter to the layer's attribute"
            )
        self._data = array

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = flag("Parameter", "requires_grad", value)

    def accumulate(self, grad: Array | None) -> None:
        """Add `grad` (which this parameter may keep and write to) to `self.grad`."""
        if grad is None or not self.requires_grad:
            return
        if grad.shape != self.data.shape:
            raise ValueError(
                f"Parameter.accumulate: grad has shape {grad.shape}, data has {self.data.shape}"
            )
        if self.grad is None:
            self.grad = grad
        else:
            self.grad += grad

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze (True) the parameter."""
        self.requires_grad = flag("Parameter.requires_grad_", "requires_grad", requires_grad)
        return self

    def detach(self) -> "Parameter":
        """A frozen Parameter of the same array, without its gradient."""
        return Parameter(self.data, requires_grad=False)

    def cpu(self) -> Self:
        """The parameter: every array is in the memory of the CPU."""
        return self

    def numpy(self) -> Array:
        """`data` itself, not a copy."""
        return self.data

    def numel(self) -> int:
        """The number of entries, `size`."""
        return self.data.size

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple[Any, ...] = (), **options: Any
    ) -> Any:
        if out:
            options["out"] = tuple(_array_of(value) for value in out)
        result = getattr(ufunc, method)(*(_array_of(value) for value in inputs), **options)
        return out[0] if len(out) == 1 else result

    __hash__ = object.__hash__  # which the operators' == has taken away

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.data[key] = value

    def __getattr__(self, name: str) -> Never:
        advice = f"; its array has, parameter.data.{name}" if hasattr(np.ndarray, name) else ""
        raise AttributeError(f"'Parameter' object has no attribute {name!r}{advice}")

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})\n{self.data}"


def _array_of(value: Any) -> Any:
    return value.data if isinstance(value, Parameter) else value


def zero_grad(who: str, parameters: Iterable[Parameter], set_to_none: bool) -> None:
    """Forget the gradients, or fill those that there are with zeros."""
    if flag(who, "set_to_none", set_to_none):
        for parameter in parameters:
            parameter.grad = None
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad[...] = 0
