"""A small data set, a small network and a small run, shared by the tests of training."""

from dataclasses import replace

import numpy as np

from fastconv import nn
from fastconv.data import load_digits
from fastconv.train import TrainConfig, load_checkpoint
from fastconv.train.progress import Progress

CONFIG = TrainConfig(model="mlp", epochs=3, batch_size=16, lr=0.05, shift=1, flip=True)


def tiny_digits(train=72, test=30):
    digits = load_digits()
    return replace(
        digits,
        train_images=digits.train_images[:train],
        train_labels=digits.train_labels[:train],
        test_images=digits.test_images[:test],
        test_labels=digits.test_labels[:test],
    )


def small_net(seed=0):
    """Convolution, batch norm, pooling and dropout in few parameters."""
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 4, 3, padding=1, rng=rng),
            "bn": nn.BatchNorm2d(4),
            "relu": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(0.3, rng=rng),
            "fc": nn.Linear(64, 10, rng=rng),
        }
    )


def content(folder):
    """Every value of a run that must not depend on interruptions (timings may)."""
    checkpoint = load_checkpoint(folder)
    meta = dict(checkpoint.meta)
    timings = ("seconds", "images_per_second")
    history = [{k: v for k, v in r.items() if k not in timings} for r in meta.pop("history")]
    meta["sums"] = meta["sums"][:2]
    arrays = {**checkpoint.model, **checkpoint.optimizer["optimizer"]}
    return {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in arrays.items()}, meta, history


class Killed(BaseException):
    """Ends a run as abruptly as a kill does, as far as the files can tell."""


class KillAt(Progress):
    def __init__(self, steps):
        self.left = steps

    def step(self, images, loss, accuracy):
        self.left -= 1
        if self.left < 0:
            raise Killed
