"""PyTorch's names that are not here, and what to use instead: read when one is looked up."""

from __future__ import annotations

_OWN_LAYER = "write it as a Module with forward and backward, see help(nn.Module)"
_SET_LR = 'set optimizer.param_groups[0]["lr"] between the steps'

_NN = {
    "functional": "the functions are in fastconv.functional",
    "utils": "gradients are plain arrays, parameter.grad: clip or flatten them with NumPy",
    "Conv3d": "convolutions are 1-D and 2-D: Conv1d, Conv2d",
    "LazyConv1d": "give the channels: Conv1d(in_channels, out_channels, kernel_size)",
    "LazyConv2d": "give the channels: Conv2d(in_channels, out_channels, kernel_size)",
    "LazyLinear": "give the features: Linear(in_features, out_features)",
    "GroupNorm": f"the norms are BatchNorm1d and BatchNorm2d; {_OWN_LAYER}",
    "LayerNorm": f"the norms are BatchNorm1d and BatchNorm2d; {_OWN_LAYER}",
    "InstanceNorm1d": f"the norms are BatchNorm1d and BatchNorm2d; {_OWN_LAYER}",
    "InstanceNorm2d": f"the norms are BatchNorm1d and BatchNorm2d; {_OWN_LAYER}",
    "Dropout1d": "Dropout drops single entries",
    "Dropout2d": "Dropout drops single entries",
    "Upsample": "ConvTranspose2d enlarges images, with weights",
    "PixelShuffle": "ConvTranspose2d enlarges images, with weights",
    "MaxUnpool1d": "call functional.max_unpool1d with the indices of "
    "max_pool1d(return_indices=True)",
    "MaxUnpool2d": "call functional.max_unpool2d with the indices of "
    "max_pool2d(return_indices=True)",
    "PReLU": "LeakyReLU has a fixed slope",
    "ELU": f"the smooth activations are GELU and SiLU; {_OWN_LAYER}",
    "Softplus": f"the smooth activations are GELU and SiLU; {_OWN_LAYER}",
    "Mish": f"the smooth activations are GELU and SiLU; {_OWN_LAYER}",
    "Hardswish": f"SiLU is the smooth function that it stands for; {_OWN_LAYER}",
    "Hardsigmoid": f"Sigmoid is the smooth function that it stands for; {_OWN_LAYER}",
    "Hardtanh": f"ReLU6 and Tanh are here; {_OWN_LAYER}",
    "Embedding": "there are no embeddings; table[indices] takes rows of an array",
    "RNN": "there are no recurrent layers",
    "LSTM": "there are no recurrent layers",
    "GRU": "there are no recurrent layers",
    "MultiheadAttention": "there is no attention",
    "L1Loss": "the losses are CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss and MSELoss; the "
    "gradient of the mean of abs(x - y) is numpy.sign(x - y) / x.size",
    "SmoothL1Loss": "the losses are CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss and MSELoss; the "
    "gradient of its mean is numpy.clip((x - y) / beta, -1, 1) / x.size",
    "HuberLoss": "the losses are CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss and MSELoss; the "
    "gradient of its mean is numpy.clip(x - y, -delta, delta) / x.size",
    "BCELoss": "BCEWithLogitsLoss takes what would go into the sigmoid",
    "KLDivLoss": "CrossEntropyLoss with probabilities as target differs from its reduction "
    '"batchmean" by a constant',
}

_FUNCTIONAL = {
    "dropout": "nn.Dropout is a layer",
    "interpolate": "conv_transpose2d enlarges images; the nearest pixel is "
    "x.repeat(2, axis=2).repeat(2, axis=3)",
    "one_hot": "use numpy.eye(classes)[labels]; cross_entropy takes the labels themselves",
    "normalize": "divide by numpy.linalg.norm(x, axis=1, keepdims=True)",
    "elu": "the smooth activations are gelu and silu",
    "mish": "the smooth activations are gelu and silu",
    "softplus": "use numpy.logaddexp(x, 0); its gradient is sigmoid(x)",
    "hardswish": "silu is the smooth function that it stands for",
    "hardsigmoid": "sigmoid is the smooth function that it stands for",
    "l1_loss": "use numpy.abs(x - y).mean(); its gradient is numpy.sign(x - y) / x.size",
    "smooth_l1_loss": "mse_loss is here; the gradient of smooth_l1_loss's mean is "
    "numpy.clip((x - y) / beta, -1, 1) / x.size",
    "huber_loss": "mse_loss is here; the gradient of huber_loss's mean is "
    "numpy.clip(x - y, -delta, delta) / x.size",
    "binary_cross_entropy": "binary_cross_entropy_with_logits takes what would go into the sigmoid",
    "kl_div": "cross_entropy with probabilities as target differs from its reduction "
    '"batchmean" by a constant',
    "layer_norm": "batch_norm is the norm there is",
    "group_norm": "batch_norm is the norm there is",
    "instance_norm": "batch_norm is the norm there is",
    "pixel_shuffle": "reshape to (N, C, r, r, H, W), transpose(0, 1, 4, 2, 5, 3), reshape again",
    "conv3d": "convolutions are 1-D and 2-D: conv1d, conv2d",
    "embedding": "use table[indices]",
}

_OPTIM = {
    "RMSprop": "the optimizers are SGD, Adam and AdamW",
    "Adagrad": "the optimizers are SGD, Adam and AdamW",
    "Adadelta": "the optimizers are SGD, Adam and AdamW",
    "LBFGS": "the optimizers are SGD, Adam and AdamW",
    "lr_scheduler": "the schedules are in fastconv.optim itself: StepLR, CosineAnnealingLR, "
    "OneCycleLR",
    "ExponentialLR": "StepLR(optimizer, 1, gamma) is the same",
    "MultiStepLR": f"StepLR has equal steps; or {_SET_LR}",
    "LambdaLR": "subclass Scheduler and write lr(self, base, step)",
    "LinearLR": "subclass Scheduler and write lr(self, base, step)",
    "ReduceLROnPlateau": _SET_LR,
}

_DATA = {
    "DataLoader": "train.fit makes the batches; by hand: order = rng.permutation(len(images)), "
    "then images[order[i : i + n]]",
    "TensorDataset": "Dataset holds images and labels; a pair of arrays will do for a loop by hand",
    "random_split": "use stratified_split",
}

_INSTEAD = {"nn": _NN, "functional": _FUNCTIONAL, "optim": _OPTIM, "data": _DATA}


def absent(module: str, name: str) -> AttributeError:
    """The error for a name that `module` does not have, with advice where there is some."""
    advice = _INSTEAD[module.rpartition(".")[2]].get(name)
    end = f"; {advice}" if advice else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{end}")
