"""The command line of `fastconv`: its commands and options."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def make_parser() -> argparse.ArgumentParser:
    """The parser; `command` is the chosen command's name."""
    from . import __version__

    parser = _Parser(
        prog="fastconv",
        description="Train and use small convolutional networks on NumPy arrays.",
    )
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    info = commands.add_parser("info", help="version, kernels, threads; or what a checkpoint holds")
    info.add_argument("checkpoint", nargs="?", help="checkpoint file or folder of a run")
    commands.add_parser(
        "selftest",
        help="check the kernels on this machine",
        description="Compare the kernels of every instruction set with the reference, and check "
        "threads, fork and memory; prints a table. Exit code 0: all as it should be, 1: not.",
    )
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model; without options, a small ResNet on the embedded digits. "
        "Writes checkpoint.safetensors, metrics.json, curves.png and filters.png.",
    )
    add = train.add_argument
    add(
        "--data",
        default=None,
        metavar="PATH",
        help="digits (default), fashion-mnist, a folder or file of IDX data (.gz too), CIFAR "
        "binary batches, a folder of class folders with images, or .npz",
    )
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the results (default: runs/DATA-MODEL, numbered if it exists)",
    )
    add(
        "--resume",
        action="store_true",
        help="continue from the checkpoint in the output folder (default: the newest run, with "
        "--data and --model if given); a larger --epochs lengthens the run, finished or not",
    )
    add("--model", metavar="NAME", help="architecture (fastconv info lists them)")
    add("--epochs", type=int, metavar="N", help="passes over the training images")
    add("--lr", type=float, metavar="LR", help="peak of the one-cycle learning rate")
    add("--batch-size", type=int, metavar="N", help="images per step")
    add("--seed", type=int, metavar="N", help="decides weights, order and augmentation (0)")
    add("--threads", type=int, metavar="N", help="threads; the result does not depend on them")
    add("--momentum", type=float, metavar="M", help="Nesterov momentum of SGD")
    add("--weight-decay", type=float, metavar="W", help="weight decay of SGD")
    add("--label-smoothing", type=float, metavar="S", help="of the cross-entropy")
    add("--shift", type=int, metavar="PIXELS", help="largest random shift of an image")
    add("--pad-mode", choices=("zeros", "reflect"), help="what moves in at the border")
    add("--flip", action=argparse.BooleanOptionalAction, help="mirror half of the images")
    add("--image-size", type=int, metavar="N", help="resize the images of a folder to NxN")
    add(
        "--checkpoint-every",
        type=int,
        default=0,
        metavar="STEPS",
        help="write a checkpoint every so many steps, besides every epoch",
    )
    add(
        "--progress",
        choices=("auto", "bars", "lines", "none"),
        default="auto",
        help="bars on a terminal, lines elsewhere (auto)",
    )  # fmt: skip


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="loss and accuracy of a checkpoint on the test images"
    )
    add = evaluate.add_argument
    add("checkpoint", help="checkpoint file or folder of a run")
    add("--data", metavar="PATH", help="default: the data the model was trained on")
    add("--part", choices=("test", "train"), default="test", help="which images (test)")
    add("--batch-size", type=int, default=256, metavar="N", help="images at a time (256)")
    add("--threads", type=int, metavar="N", help="threads; the result does not depend on them")


def _add_predict(commands: Any) -> None:
    predict = commands.add_parser("predict", help="classes and probabilities of images")
    add = predict.add_argument
    add("checkpoint", help="checkpoint file or folder of a run")
    add(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files (PNG, JPEG, ...), or .npy arrays in the units of the training images",
    )
    add("--top", type=int, default=3, metavar="K", help="how many classes to show (3)")
    add("--invert", action="store_true", help="dark on light to light on dark (image files)")
    add("--threads", type=int, metavar="N", help="threads; the result does not depend on them")
