"""Whole networks: the rivals' time over fastconv's, and fastconv's peak memory over the rivals'.

    python bench/networks.py                                # everything, 1 and 2 threads
    python bench/networks.py --threads 1 --filter resnet18 --json networks.json
    python bench/networks.py --json networks.json --docs docs/benchmarks.md

Each candidate is a process of its own that loads the same weights; its answer is compared with
torch's before anything is timed. Then the candidates take turns, A B C A B C, each a fraction of a
second while the others wait for input; the minimum of all calls counts. A call takes a C-contiguous
(N, C, H, W) array and returns the answer; torch's channels-last variants get their input converted
beforehand. Memory is the peak of the process (VmHWM) from before the model is loaded to the end,
less what the process had at that point, after its imports and with the input: weights, what is made
of them, and working memory. Rivals that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # fastconv's source tree

INFERENCE = (
    "fastconv",
    "torch",
    "torch channels-last",
    "torch jit",
    "torch jit channels-last",
    "onnxruntime",
    "openvino",
    "ncnn",
    "ncnn float32",
)
TRAINING = ("fastconv training", "torch training", "torch training channels-last")
RIVALS = ("torch", "onnxruntime", "openvino", "ncnn", "ncnn float32")
MARKS = "<!-- tables of bench/networks.py -->", "<!-- end of the tables -->"
HOPELESS = 1.5  # a variant of torch this much behind torch's best after two rounds drops out
TOLERANCE = 2e-3  # of the largest logit: fifty layers of rounding; a wrong layer shows as order 1


@dataclass(frozen=True)
class Case:
    name: str
    model: str
    shape: tuple[int, ...]
    training: bool = False
    classes: int = 1000
    half_linear: bool = False  # fastconv's plan with Linear weights in float16, as ncnn has them

    @property
    def candidates(self) -> tuple[str, ...]:
        if self.half_linear:
            return ("fastconv half_linear", *INFERENCE[1:])
        return TRAINING if self.training else INFERENCE


CASES = (
    Case("resnet18 224 b1", "resnet18", (1, 3, 224, 224)),
    Case("resnet50 224 b1", "resnet50", (1, 3, 224, 224)),
    Case("vgg16 224 b1", "vgg16", (1, 3, 224, 224)),
    Case("vgg16 224 b1 half_linear", "vgg16", (1, 3, 224, 224), half_linear=True),
    Case("mobilenet_v2 224 b1", "mobilenet_v2", (1, 3, 224, 224)),
    Case("lenet5 28 b1", "lenet5", (1, 1, 28, 28), classes=10),
    Case("resnet20 32 b128 training step", "resnet20", (128, 3, 32, 32), True, 10),
    Case("resnet18 224 b8 training step", "resnet18", (8, 3, 224, 224), True),
    Case("lenet5 28 b64 training step", "lenet5", (64, 1, 28, 28), True, 10),
)


# --- the models ----------------------------------------------------------------------------------


def prepare(case: Case, folder: Path) -> None:
    """Write input, labels and the model in every format that the installed rivals read."""
    import network_export as export

    from fastconv import models, nn

    rng = np.random.default_rng(0)
    options = {} if case.name.startswith("lenet5") else {"in_channels": case.shape[1]}
    model = models.create(case.model, num_classes=case.classes, rng=0, **options)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # running statistics: the averages of the batches to come
    for _ in range(2 if norms else 0):
        model(rng.standard_normal((2, *case.shape[1:]), dtype=np.float32))
    for norm in norms:
        norm.momentum = 0.1
    model.eval()
    np.save(folder / "input.npy", rng.standard_normal(case.shape, dtype=np.float32))
    np.save(folder / "labels.npy", rng.integers(0, case.classes, case.shape[0]))
    with (folder / "model.pickle").open("wb") as file:
        pickle.dump(model, file, protocol=5)
    with suppress(ImportError):
        export.save_torch(model, folder / "model.pt")
    if case.training:
        return
    export.write_ncnn(model, case.shape, folder / "model")
    with suppress(ImportError):
        export.write_onnx(model, case.shape, folder / "model.onnx")


# --- one case ------------------------------------------------------------------------------------


class Candidate:
    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name, self.best = name, float("inf")
        here = Path(__file__).parent
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join([str(here), *filter(None, sys.path)]),
        }
        command = [sys.executable, str(here / "network_worker.py"), name, str(folder), str(threads)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if name.startswith("fastconv") else subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.start = self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line of JSON; other output is skipped."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                result: dict[str, Any] = json.loads(line)
                return result
        return {"missing": f"ended with code {self.process.wait()}"}

    def turn(self, seconds: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        self.best = min(self.best, self.answer()["seconds"])

    def close(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.write("\n")
            self.process.stdin.close()
        end = {} if "missing" in self.start else self.answer()
        self.process.wait()
        return end


def error_of(folder: Path, name: str, reference: str) -> float:
    """Largest difference from the reference's answer, relative to its largest entry."""
    ours, theirs = (np.load(folder / f"{n}.npy").astype(np.float64) for n in (name, reference))
    if ours.size != theirs.size:
        return float("inf")
    difference = np.abs(ours.ravel() - theirs.ravel()).max() / np.abs(theirs).max()
    return float(difference) if np.isfinite(difference) else float("inf")


def measure(case: Case, folder: Path, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    running = [Candidate(name, folder, threads) for name in case.candidates]
    result: dict[str, Any] = {"case": case.name, "threads": threads, "candidates": {}}
    reference = "torch training" if case.training else "torch"
    everyone = list(running)
    running = [c for c in running if "missing" not in c.start]
    if all(c.name != reference for c in running):
        reference = running[0].name
    for turn in range(rounds):
        for candidate in running:
            time.sleep(0.005)  # the threads of the one before have stopped spinning
            candidate.turn(seconds)
        if turn == 1:
            best = min((c.best for c in running if c.name.startswith("torch")), default=0.0)
            running = [
                c for c in running if not c.name.startswith("torch") or c.best < HOPELESS * best
            ]
    for candidate in everyone:
        end = candidate.close()
        row: dict[str, Any] = dict(candidate.start)
        if "missing" not in row:
            row["seconds"] = candidate.best
            row["memory"] = end.get("peak", row["peak"]) - row["baseline"]
            row["error"] = error_of(folder, candidate.name, reference)
            row["correct"] = row["error"] <= TOLERANCE
        result["candidates"][candidate.name] = row
    return result


# --- the table -----------------------------------------------------------------------------------


def best_of(result: dict[str, Any], rival: str) -> dict[str, Any] | None:
    """The fastest correct variant of a rival."""
    rows = [
        {"variant": name, **row}
        for name, row in result["candidates"].items()
        if (name == rival or (rival != "ncnn" and name.startswith(rival))) and row.get("correct")
    ]
    return min(rows, key=lambda row: row["seconds"], default=None)


def tables(results: list[dict[str, Any]]) -> str:
    """Two Markdown tables, one / two threads in a cell: rival's time over ours, our peak memory
    over the rival's (of its fastest variant)."""
    by_case: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_case.setdefault(result["case"], []).append(result)
    rule = [":--", *["--:"] * (len(RIVALS) + 1)]
    times = [["time: rival / fastconv, above 1 fastconv is faster", "fastconv ms", *RIVALS], rule]
    memory = [
        ["memory: fastconv / rival, below 1 fastconv needs less", "fastconv MiB", *RIVALS],
        rule,
    ]
    for case, runs in by_case.items():
        times.append([case, _joined(runs, "fastconv", _milliseconds)])
        memory.append([case, _joined(runs, "fastconv", _mebibytes)])
        for rival in RIVALS:
            times[-1].append(_joined(runs, rival, _times_faster))
            memory[-1].append(_joined(runs, rival, _share_of_memory))
    return "\n\n".join(
        "\n".join("| " + " | ".join(line) + " |" for line in lines) for lines in (times, memory)
    )


def _milliseconds(ours: dict[str, Any], _: Any) -> str:
    return f"{ours['seconds'] * 1e3:.3g}"


def _mebibytes(ours: dict[str, Any], _: Any) -> str:
    return f"{ours['memory'] / 2**20:.1f}"


def _times_faster(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    return f"{theirs['seconds'] / ours['seconds']:.2f}"


def _share_of_memory(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    return f"{ours['memory'] / max(theirs['memory'], 1):.2f}"


def _joined(runs: list[dict[str, Any]], rival: str, cell: Any) -> str:
    """The cells of all thread counts; nothing where the rival is not there."""
    pairs = [(best_of(run, "fastconv"), best_of(run, rival)) for run in runs]
    if all(theirs is None for _, theirs in pairs):
        return ""
    return " / ".join(cell(*pair) if None not in pair else "FAIL" for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.25, help="of one turn")
    parser.add_argument("--json", type=Path, help="results are added to those in this file")
    parser.add_argument("--docs", type=Path, help="the tables replace those between the marks")
    options = parser.parse_args()
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    results = {(result["case"], result["threads"]): result for result in known}
    cases = [case for case in CASES if options.filter.lower() in case.name]
    if not cases:
        parser.error(f"--filter {options.filter}: no case among {[case.name for case in CASES]}")
    for case in cases:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            prepare(case, folder)
            for threads in options.threads:
                result = measure(case, folder, threads, options.rounds, options.seconds)
                results[case.name, threads] = result
                for name, row in result["candidates"].items():
                    print(f"{case.name:32} {threads} {name:28} {summary(row)}", flush=True)
    order = [case.name for case in CASES]
    ordered = sorted(results.values(), key=lambda r: (order.index(r["case"]), r["threads"]))
    print(tables(ordered))
    if options.json:
        options.json.write_text(json.dumps(ordered, indent=1) + "\n")
    if options.docs:
        options.docs.write_text(between_marks(options.docs.read_text(), tables(ordered)))


def between_marks(page: str, text: str, marks: tuple[str, str] = MARKS) -> str:
    head, rest = page.split(marks[0])
    return f"{head}{marks[0]}\n{text}\n{marks[1]}{rest.split(marks[1])[1]}"


def summary(row: dict[str, Any]) -> str:
    if "missing" in row:
        return f"left out: {row['missing']}"
    text = f"{row['seconds'] * 1e3:9.3f} ms {row['memory'] / 2**20:8.1f} MiB  {row['error']:.1e}"
    return text + ("" if row["correct"] else "  FAIL")


if __name__ == "__main__":
    main()
