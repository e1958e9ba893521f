"""One candidate in one process: load, answer once, then run whenever the parent gives it a turn.

    python bench/network_worker.py CANDIDATE FOLDER THREADS

The folder has input.npy and the model in every format. Lines of JSON on standard output; each line
on standard input is a turn: so many seconds of calls; an empty one ends the process.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], Any]
RATE, MOMENTUM = 0.01, 0.9


def memory(key: str) -> int:
    """Bytes: VmHWM (the peak) or VmRSS of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def baseline() -> int:
    """What the process has after its imports; the peak starts anew from there."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


# --- candidates: import, note the baseline, load, return a call -----------------------------------


def fastconv_plan(folder: Path, threads: int, half_linear: bool) -> tuple[int, Call]:
    import fastconv
    import fastconv.inference
    import fastconv.models

    fastconv.set_num_threads(threads)
    x = np.load(folder / "input.npy")
    start = baseline()
    with (folder / "model.pickle").open("rb") as file:
        model = pickle.load(file)
    plan = fastconv.compile(model, x.shape, release=True, half_linear=half_linear)
    del model
    return start, lambda: plan(x)


def torch_inference(folder: Path, threads: int, last: bool, jit: bool) -> tuple[int, Call]:
    import network_torch  # noqa: F401  # for torch.load
    import torch

    torch.set_num_threads(threads)
    x = torch.from_numpy(np.load(folder / "input.npy"))
    start = baseline()
    model = torch.load(folder / "model.pt", weights_only=False).eval()
    if last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if jit:
        with torch.inference_mode():
            model = torch.jit.freeze(torch.jit.trace(model, x))
            model = torch.jit.optimize_for_inference(model)
            for _ in range(3):
                model(x)

    def call() -> Any:
        with torch.inference_mode():
            return model(x)

    return start, call


def onnxruntime_session(folder: Path, threads: int) -> tuple[int, Call]:
    import onnxruntime

    x = np.load(folder / "input.npy")
    start = baseline()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=providers)
    return start, lambda: session.run(None, {"input": x})[0]


def openvino_request(folder: Path, threads: int) -> tuple[int, Call]:
    import openvino

    x = np.load(folder / "input.npy")
    start = baseline()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = openvino.Core().compile_model(folder / "model.onnx", "CPU", settings)
    request = compiled.create_infer_request()
    return start, lambda: request.infer([x])[0]


def ncnn_net(folder: Path, threads: int, half: bool) -> tuple[int, Call]:
    """half: the default options, which store and compute in float16 where the processor can."""
    import ncnn

    (x,) = np.load(folder / "input.npy")
    start = baseline()
    net = ncnn.Net()
    net.opt.num_threads = threads
    if not half:
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(folder / "model.param"))
    net.load_model(str(folder / "model.bin"))

    def call() -> Any:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(x).clone())
        return np.array(extractor.extract("out0")[1])[None]

    return start, call


def fastconv_training(folder: Path, threads: int) -> tuple[int, Call]:
    import fastconv
    from fastconv import models, nn, optim  # noqa: F401

    fastconv.set_num_threads(threads)
    x, labels = np.load(folder / "input.npy"), np.load(folder / "labels.npy")
    start = baseline()
    with (folder / "model.pickle").open("rb") as file:
        model = pickle.load(file).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> Any:
        loss = criterion(model(x), labels)
        optimizer.zero_grad()
        model.backward_parameters(criterion.backward())
        optimizer.step()
        return loss

    return start, step


def torch_training(folder: Path, threads: int, last: bool) -> tuple[int, Call]:
    import network_torch  # noqa: F401
    import torch

    torch.set_num_threads(threads)
    x = torch.from_numpy(np.load(folder / "input.npy"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    start = baseline()
    model = torch.load(folder / "model.pt", weights_only=False).train()
    if last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> Any:
        loss = criterion(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return start, step


CANDIDATES: dict[str, Callable[[Path, int], tuple[int, Call]]] = {
    "fastconv": lambda f, t: fastconv_plan(f, t, half_linear=False),
    "fastconv half_linear": lambda f, t: fastconv_plan(f, t, half_linear=True),
    "torch": lambda f, t: torch_inference(f, t, last=False, jit=False),
    "torch channels-last": lambda f, t: torch_inference(f, t, last=True, jit=False),
    "torch jit": lambda f, t: torch_inference(f, t, last=False, jit=True),
    "torch jit channels-last": lambda f, t: torch_inference(f, t, last=True, jit=True),
    "onnxruntime": onnxruntime_session,
    "openvino": openvino_request,
    "ncnn": lambda f, t: ncnn_net(f, t, half=True),
    "ncnn float32": lambda f, t: ncnn_net(f, t, half=False),
    "fastconv training": fastconv_training,
    "torch training": lambda f, t: torch_training(f, t, last=False),
    "torch training channels-last": lambda f, t: torch_training(f, t, last=True),
}


def turn(call: Call, seconds: float) -> float:
    """The least seconds of a call, of as many as fit; short ones are timed several at a time."""
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    repeats = max(1, int(50e-6 / max(first, 1e-7)))
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        now = time.perf_counter()
        best = min(best, (now - start) / repeats)
        if now >= end:
            return best


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def main() -> None:
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    try:
        start, call = CANDIDATES[name](folder, threads)
    except ImportError as error:
        say(missing=str(error))
        return
    answers = [np.asarray(call()) for _ in range(3 if "training" in name else 1)]
    np.save(folder / f"{name}.npy", np.stack(answers))
    for _ in range(3 if "training" not in name else 0):
        call()
    say(ready=True, baseline=start, loaded=memory("VmRSS"), peak=memory("VmHWM"))
    for line in sys.stdin:
        if not line.strip():
            break
        say(seconds=turn(call, float(line)))
    say(peak=memory("VmHWM"))


if __name__ == "__main__":
    main()
