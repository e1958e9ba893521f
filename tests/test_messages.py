"""What a user reads after a mistake: the rows of `messages.txt`.

A row is a call, the exception, and words of its message. Every message begins with the function's
(or layer's) name; the words are the argument, the value and the rule.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import fastconv
import fastconv.functional as F
from fastconv import data, models, nn, optim, reference, train

PREPARED = """
def f64(shape, dtype=np.float64): return np.zeros(shape, dtype)
def f32(shape): return np.zeros(shape, np.float32)
image, signal, rows = f64((1, 3, 8, 8)), f64((1, 3, 8)), np.ones((3, 4))
kernel2, kernel1 = f64((4, 3, 3, 3)), f64((4, 3, 3))
pooled, index = f64((1, 3, 4, 4)), np.zeros((1, 3, 4, 4), np.int64)
logits, classes = f64((2, 3)), np.zeros(2, int)
frozen = f64((2, 3)); frozen.flags.writeable = False
unaligned = np.zeros(97, np.uint8)[1:].view(np.float64).reshape(3, 4)
folded = np.lib.stride_tricks.as_strided(np.zeros(20), (3, 4), (8, 8))
changed, kept = nn.BatchNorm2d(3), f32((2, 3, 4, 4))
changed(kept); kept.resize((2, 4, 4, 3), refcheck=False)
model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, rng=0))
net, broken = models.resnet20(rng=0), models.resnet20(rng=0)
broken.layer2[0].conv2 = nn.Conv2d(9, 32, 3, padding=1, rng=0)
uneven = nn.Sequential({"block": nn.Residual({"c": nn.Conv2d(3, 4, 1, rng=0)})})
uneven_shortcut = nn.Sequential(nn.Residual({"r": nn.ReLU()}, nn.Conv2d(5, 3, 1, rng=0)))
def forwarded(layer): layer(f32((2, 4))); return layer
normalise = train.Normalisation((0.0,), (1.0,))
digits = data.load_digits()
def pair(size): return np.zeros((4, size, size), np.uint8), np.arange(4) % 2
parameters = [nn.Parameter(np.ones(3)), nn.Parameter(np.ones(2))]
def learned(data, grad):
    parameter = nn.Parameter(f64(data.shape)); parameter.data, parameter.grad = data, grad
    return parameter
def stepped(kind, change, **options):
    parameter = learned(f64(3), f64(3)); optimizer = kind([parameter], **options)
    optimizer.step(); change(parameter); parameter.grad = np.zeros_like(parameter.data)
    return optimizer
def lengthen(parameter): parameter.data.resize(4, refcheck=False)
def cast(parameter): parameter.data = parameter.data.astype(np.float32)
def changed_layer(layer, name, value): setattr(layer, name, value); return layer
"""
NAMES = {"F": F, "R": reference, "np": np, "fastconv": fastconv, "nn": nn, "optim": optim,
         "models": models, "data": data, "train": train}  # fmt: skip
LINES = (Path(__file__).parent / "messages.txt").read_text().splitlines()
ROWS = [re.split(r"  +-> +|  +", line, maxsplit=2) for line in LINES if line and line[0] != "#"]
LONGEST = 300


@pytest.fixture(scope="module")
def names():
    """What the calls of the table may use."""
    names = dict(NAMES)
    exec(PREPARED, names)
    return names


@pytest.mark.parametrize(("call", "exception", "words"), ROWS, ids=[row[0][:90] for row in ROWS])
def test_message(call, exception, words, names, trust_counts):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        eval(call, names)
    message = str(caught.value)
    assert type(caught.value).__name__ == exception, message
    assert message.startswith(words.split()[0]), message
    for word in re.findall(r"\([^)]*\)|\S+", words):
        assert word in message, message
    assert "\n" not in message
    assert len(message) < LONGEST, message
    trust_counts["error messages read"] += 1


def test_an_error_in_a_model_notes_the_layer(names):
    """From the inside to the outside; the message itself stays that of the function."""
    with pytest.raises(ValueError, match=r"^conv2d: weight \(32, 9, 3, 3\)") as caught:
        names["broken"](np.zeros((1, 3, 32, 32), np.float32))
    assert caught.value.__notes__ == [
        "in layer conv2 (Conv2d)",
        "in layer 0 (Residual)",
        "in layer layer2 (Sequential)",
    ]
    with pytest.raises(ValueError, match=r"^conv2d: ") as caught:
        names["uneven_shortcut"](np.zeros((1, 3, 8, 8), np.float32))
    assert caught.value.__notes__ == ["in layer downsample (Conv2d)", "in layer 0 (Residual)"]
