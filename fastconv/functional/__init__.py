"""The functions: forward and backward of everything, on plain NumPy arrays.

Names and arguments follow `torch.nn.functional`; the backward of a function stands beside it with
`_backward` appended, and takes `grad_output` first.
"""

from typing import TYPE_CHECKING, NoReturn

from .activation import (
    gelu,
    gelu_backward,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu6,
    relu6_backward,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    tanh,
    tanh_backward,
)
from .adaptive_pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool1d_backward,
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_max_pool1d,
    adaptive_max_pool1d_backward,
    adaptive_max_pool2d,
    adaptive_max_pool2d_backward,
)
from .avg_pool import avg_pool1d, avg_pool1d_backward, avg_pool2d, avg_pool2d_backward
from .conv import conv1d, conv1d_backward, conv2d, conv2d_backward
from .conv_transpose import (
    conv_transpose1d,
    conv_transpose1d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
)
from .explain import explain_conv2d
from .fold import fold, fold_backward, unfold, unfold_backward
from .linear import linear, linear_backward
from .loss import cross_entropy, cross_entropy_backward, nll_loss, nll_loss_backward
from .norm import batch_norm, batch_norm_backward
from .padding import pad, pad_backward
from .pair_loss import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    mse_loss,
    mse_loss_backward,
)
from .pool import max_pool1d, max_pool1d_backward, max_pool2d, max_pool2d_backward
from .signal import convolve, convolve2d, correlate, correlate2d
from .softmax import log_softmax, log_softmax_backward, softmax, softmax_backward
from .unpool import max_unpool1d, max_unpool1d_backward, max_unpool2d, max_unpool2d_backward

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "convolve",
    "convolve2d",
    "correlate",
    "correlate2d",
    "cross_entropy",
    "cross_entropy_backward",
    "explain_conv2d",
    "fold",
    "fold_backward",
    "gelu",
    "gelu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_unpool1d",
    "max_unpool1d_backward",
    "max_unpool2d",
    "max_unpool2d_backward",
    "mse_loss",
    "mse_loss_backward",
    "nll_loss",
    "nll_loss_backward",
    "pad",
    "pad_backward",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
    "unfold",
    "unfold_backward",
]

if not TYPE_CHECKING:  # a type checker knows the names

    def __getattr__(name: str) -> NoReturn:
        from .._absent import absent

        raise absent(__name__, name)
