"""The functions: forward and backward of everything, on plain NumPy arrays.

Names and arguments follow `torch.nn.functional`; the backward of a function stands beside it with
`_backward` appended, and takes `grad_output` first.
"""

from .conv import conv1d, conv1d_backward, conv2d, conv2d_backward, explain_conv2d
from .conv_transpose import (
    conv_transpose1d,
    conv_transpose1d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
)
