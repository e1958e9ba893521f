"""BatchNorm1d and BatchNorm2d."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..functional import norm as _norm
from ..functional._checks import flag, float_array, float_dtype, integer, number
from .module import Array, Module
from .parameter import Parameter


class _BatchNorm(Module):
    """Batch normalisation over every axis but the channels (Ioffe & Szegedy 2015).

    In training: the batch's mean and biased variance; the running statistics move by `momentum`
    towards them (unbiased variance), or average all batches when `momentum` is None. In eval: the
    running statistics. `track_running_stats=False` uses the batch's own in both.
    """

    ranks: ClassVar[tuple[int, ...]]
    fresh = True
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        who = type(self).__name__
        self.num_features = n = integer(who, "num_features", num_features, 1)
        self.eps = number(who, "eps", eps, 0)
        self.momentum = None if momentum is None else number(who, "momentum", momentum)
        self.affine = flag(who, "affine", affine)
        self.track_running_stats = flag(who, "track_running_stats", track_running_stats)
        dtype = float_dtype(who, dtype)
        self.register_parameter("weight", Parameter(np.ones(n, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(n, dtype)) if affine else None)
        track = track_running_stats
        self.register_buffer("running_mean", np.zeros(n, dtype) if track else None)
        self.register_buffer("running_var", np.ones(n, dtype) if track else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track else None)

    def forward(self, x: Array) -> Array:
        return self.run(x)

    def run(
        self,
        x: Array,
        clamp: _norm.Clamp = _norm.NO_CLAMP,
        residual: Array | None = None,
        owned: bool = False,
    ) -> Array:
        """clamp(forward(x) + residual) as one kernel.

        owned: nobody else has x. The result is written over it, or the gradient of a recorded x.
        """
        x = float_array(type(self).__name__, "input", x)
        self._check(x.shape)
        training = self.training or self.running_mean is None
        tracked = self.num_batches_tracked if self.training else None
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.momentum is None and tracked is not None:
            momentum = 1.0 / (int(tracked) + 1)
        statistics = self.running_mean, self.running_var
        arguments = *statistics, *self._affine(), training, momentum, self.eps
        out = x if owned and not self.recording else None
        y, saved = _norm._batch_norm_saved(x, *arguments, clamp, residual, out)
        self._keep(x, saved, training, clamp, None if residual is None else y, owned)
        if tracked is not None:
            tracked += 1
        return y

    def backward(self, grad: Array) -> Array:
        return self.run_backward(grad, False)[0]

    def _go_back(self, grad: Array, owned: bool) -> tuple[Array, bool]:
        return self.run_backward(grad, owned)[0], True

    def run_backward(self, grad: Array, owned: bool) -> tuple[Array, Array, bool]:
        """The gradients of run's x and residual, the latter `grad` itself where nothing is clamped,
        and whether nobody else has it.

        owned: nobody else has `grad`, which may be written over.
        """
        x, saved, training, clamp, y, owns_x = self._take()
        grad_x, grad_weight, grad_bias, grad_residual = _norm._batch_norm_saved_backward(
            grad, x, saved, *self._affine(), training, clamp, y, owns_x, owned
        )
        if self.weight is not None:
            self.weight.accumulate(grad_weight)
        if self.bias is not None:
            self.bias.accumulate(grad_bias)
        return grad_x, grad_residual, owned or clamp != _norm.NO_CLAMP

    def _affine(self) -> tuple[Array | None, Array | None]:
        weight = None if self.weight is None else self.weight.data
        return weight, None if self.bias is None else self.bias.data

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) not in self.ranks or shape[1] != self.num_features:
            n, ranks = self.num_features, " or ".join(map(str, self.ranks))
            layouts = {2: f"(N, {n})", 3: f"(N, {n}, L)", 4: f"(N, {n}, H, W)"}
            form = " or ".join(layouts[rank] for rank in self.ranks)
            raise ValueError(
                f"{type(self).__name__}: input must have {ranks} axes and {n} channels, {form}, "
                f"got shape {shape}"
            )

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self._check(shape)
        for name in ("weight", "bias", "running_mean", "running_var"):
            array = getattr(self, name)
            if array is not None and array.shape != (self.num_features,):
                raise ValueError(
                    f"{type(self).__name__}: {name} must have shape ({self.num_features},), "
                    f"got {array.shape}"
                )
        return shape

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    __doc__ = f"{_BatchNorm.__doc__}\n    Input `(N, C)` or `(N, C, L)`, as torch.nn.BatchNorm1d."
    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = f"{_BatchNorm.__doc__}\n    Input `(N, C, H, W)`, as torch.nn.BatchNorm2d."
    ranks = (4,)
