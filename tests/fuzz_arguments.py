"""Arguments for the fuzzer: right ones for every public function, and hostile ones."""

import inspect
import math
from fractions import Fraction

import numpy as np

import fastconv.functional as F
from fastconv import nn

POOL_WORDS = (0, 0, 1, "valid", "same", "same_lower")
CONV_WORDS = (*POOL_WORDS, 2, "full")
CHANNELS = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33)  # around the widths of vectors and panels
MODES = ("zeros", "zeros", "reflect", "replicate", "circular", "symmetric")
ELEMENTWISE = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "softmax",
               "log_softmax")  # fmt: skip


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def floats(rng, *shape, dtype=None):
    dtype = dtype or rng.dtype
    return rng.standard_normal(shape).astype(dtype)


def plane(rng, axes, least=1):
    return tuple(int(n) for n in rng.integers(least, 35 if rng.random() < 0.1 else 10, axes))


def lead(rng, channels):
    """The axes in front of the plane: batch and channels, or channels."""
    return pick(rng, [(channels,), (1, channels), (2, channels), (0, channels), (3, channels)])


def axes_of(name):
    return 1 if "1d" in name else 2


def each(rng, axes, choices):
    """A number for all axes, or one per axis."""
    value = pick(rng, choices)
    if isinstance(value, str) or rng.random() < 0.6:
        return value
    return tuple(pick(rng, [c for c in choices if not isinstance(c, str)]) for _ in range(axes))


# --- right arguments: (generator, name of the forward function) -> keyword arguments --------------


def conv(rng, name):
    axes, transposed = axes_of(name), "transpose" in name
    groups = pick(rng, (1, 1, 1, 2, 3, 16))
    per_in, per_out = pick(rng, CHANNELS), pick(rng, CHANNELS)
    if groups > 3:
        per_in, per_out = pick(rng, (1, 1, 2)), pick(rng, (1, 1, 3))
    first, second = (per_in * groups, per_out) if transposed else (per_out * groups, per_in)
    kernel = (3, 3)[:axes] if rng.random() < 0.5 else tuple(rng.integers(1, 8, axes).tolist())
    given = {
        "input": floats(rng, *lead(rng, per_in * groups), *plane(rng, axes)),
        "weight": floats(rng, first, second, *kernel),
        "bias": pick(rng, (None, floats(rng, per_out * groups))),
        "stride": each(rng, axes, (1, 1, 2, 3)),
        "padding": each(rng, axes, (0, 1) if transposed else CONV_WORDS),
        "dilation": each(rng, axes, (1, 1, 2)),
        "groups": groups,
    }
    if transposed:
        given["output_padding"] = pick(rng, (0, 0, 1))
    else:
        given["padding_mode"] = pick(rng, MODES)
        given["algorithm"] = pick(rng, ("auto", "auto", "direct", "winograd"))
    return given


def window_pool(rng, name):
    axes = axes_of(name)
    given = {
        "input": floats(rng, *lead(rng, pick(rng, CHANNELS)), *plane(rng, axes)),
        "kernel_size": each(rng, axes, (1, 2, 3)),
        "stride": pick(rng, (None, 1, 2)),
        "padding": each(rng, axes, POOL_WORDS),
        "ceil_mode": pick(rng, (False, True)),
    }
    if name.startswith("max"):
        given["dilation"] = each(rng, axes, (1, 1, 2))
        given["return_indices"] = pick(rng, (False, True))
    else:
        given["count_include_pad"] = pick(rng, (False, True))
        given["divisor_override"] = pick(rng, (None, None, 3))
    return given


def adaptive_pool(rng, name):
    axes = axes_of(name)
    given = {
        "input": floats(rng, *lead(rng, pick(rng, CHANNELS)), *plane(rng, axes)),
        "output_size": each(rng, axes, (1, 2, 5)),
    }
    if "max" in name:
        given["return_indices"] = pick(rng, (False, True))
    return given


def unpool(rng, name):
    axes = axes_of(name)
    x = floats(rng, *lead(rng, 3), *plane(rng, axes, 4))
    pooled, indices = getattr(F, f"max_pool{axes}d")(x, 2, return_indices=True)
    size = pick(rng, (None, x.shape[-axes:], x.shape))
    return {"input": pooled, "indices": indices, "kernel_size": 2, "stride": None, "padding": 0,
            "output_size": size}  # fmt: skip


def pad(rng, name):
    axes = int(rng.integers(1, 4))
    shape = lead(rng, 2) + plane(rng, axes, 3)
    mode = pick(rng, ("constant", "reflect", "replicate", "circular", "symmetric"))
    entries = rng.integers(-1 if mode == "constant" else 0, 3, 2 * axes)
    return {"input": floats(rng, *shape), "pad": tuple(entries.tolist()), "mode": mode,
            "value": pick(rng, (0.0, 1, float("nan")))}  # fmt: skip


def unfold(rng, name):
    return {
        "input": floats(rng, *lead(rng, 3), *plane(rng, 2, 3)),
        "kernel_size": each(rng, 2, (1, 2, 3)),
        "dilation": each(rng, 2, (1, 1, 2)),
        "padding": each(rng, 2, (0, 1)),
        "stride": each(rng, 2, (1, 2)),
    }


def fold(rng, name):
    given = unfold(rng, name)
    image = given.pop("input")
    try:
        columns = F.unfold(image, **given)
    except ValueError:
        columns = floats(rng, 1, 12, 49)
    return {"input": columns, "output_size": image.shape[-2:], **given}


def linear(rng, name):
    shape = pick(rng, [(4,), (3, 4), (2, 3, 4), (0, 4)])
    return {"input": floats(rng, *shape), "weight": floats(rng, 5, 4),
            "bias": pick(rng, (None, floats(rng, 5)))}  # fmt: skip


def elementwise(rng, name):
    given = {"input": floats(rng, *rng.integers(1, 6, rng.integers(1, 5)).tolist())}
    if name == "leaky_relu":
        given["negative_slope"] = pick(rng, (0.01, 1, -0.5))
    if name == "gelu":
        given["approximate"] = pick(rng, ("none", "tanh"))
    if "softmax" in name:
        given["dim"] = pick(rng, (0, -1))
    return given


def batch_norm(rng, name):
    channels = pick(rng, CHANNELS)
    shape = (int(rng.integers(0, 4)), channels, *plane(rng, int(rng.integers(0, 4))))
    row = {key: floats(rng, channels) for key in ("running_mean", "weight", "bias")}
    variance = 1 + np.abs(floats(rng, channels))
    given = {"input": floats(rng, *shape), "running_var": variance.astype(rng.dtype), **row}
    given["training"] = pick(rng, (False, True))
    return {**given, "momentum": pick(rng, (0.1, 0, 1)), "eps": pick(rng, (1e-5, 1e-3))}


def loss(rng, name):
    shape = (4, 3) if rng.random() < 0.6 else (2, 3, *plane(rng, 2))
    given = {"input": floats(rng, *shape), "reduction": pick(rng, ("mean", "sum", "none"))}
    if name in ("cross_entropy", "nll_loss"):
        given["target"] = rng.integers(0, 3, (shape[0], *shape[2:]))
        given["weight"] = pick(rng, (None, floats(rng, 3)))
        given["ignore_index"] = pick(rng, (-100, 0, 1))
    else:
        given["target"] = floats(rng, *shape)
    if name == "cross_entropy":
        given["label_smoothing"] = pick(rng, (0.0, 0.1))
    if name.startswith("binary"):
        given["weight"] = pick(rng, (None, floats(rng, shape[-1])))
        given["pos_weight"] = pick(rng, (None, floats(rng, shape[-1])))
    return given


def signal(rng, name):
    axes = 2 if "2d" in name else 1
    batch = pick(rng, [(), (), (2,), (2, 1)])
    first, second = ("in1", "in2") if axes == 2 else ("a", "v")
    return {first: floats(rng, *batch, *plane(rng, axes)), second: floats(rng, *plane(rng, axes)),
            "mode": pick(rng, ("full", "same", "valid")),
            "method": pick(rng, ("auto", "direct", "fft"))}  # fmt: skip


def explain(rng, name):
    given = conv(rng, "conv2d")
    del given["bias"], given["padding_mode"]
    shapes = {f"{key}_shape": given.pop(key).shape for key in ("input", "weight")}
    return {**shapes, **given, "dtype": rng.dtype}


def makers():
    """Every name in fastconv.functional's forward functions, and who makes its arguments."""
    kinds = [("conv_transpose", conv), ("convolve", signal), ("correlate", signal), ("conv", conv),
             ("max_pool", window_pool), ("avg_pool", window_pool), ("adaptive", adaptive_pool),
             ("max_unpool", unpool), ("pad", pad), ("unfold", unfold), ("fold", fold),
             ("linear", linear), ("batch_norm", batch_norm), ("explain", explain)]  # fmt: skip
    kinds += [(word, elementwise) for word in ELEMENTWISE]
    kinds += [(word, loss) for word in ("cross_entropy", "nll_loss", "binary", "mse_loss")]
    names = [name for name in F.__all__ if not name.endswith("_backward")]
    return {name: next(maker for start, maker in kinds if name.startswith(start)) for name in names}


MAKERS = makers()


def right_arguments(rng, name):
    """Arguments of a function of fastconv.functional that it should accept (most of the time)."""
    forward = name.removesuffix("_backward")
    given = MAKERS[forward](rng, forward)
    if forward == name:
        return given
    wanted = inspect.signature(getattr(F, name)).parameters
    given["return_indices"] = True
    known = inspect.signature(getattr(F, forward)).parameters
    try:
        result = getattr(F, forward)(**{k: v for k, v in given.items() if k in known})
    except (ValueError, TypeError):
        result = floats(rng, *plane(rng, 3))
    given["input_shape"] = given["input"].shape
    given["output_mask"] = tuple(bool(b) for b in rng.integers(0, 2, 3))
    output, *more = result if isinstance(result, tuple) else (result,)
    if more:
        given["indices"] = more[0]
    elif "indices" in wanted:
        given.setdefault("indices", np.zeros(np.shape(output), np.int64))
    given["grad_output"] = floats(rng, *np.shape(output)) if np.ndim(output) else 1.0
    if name.startswith("max_unpool"):
        given["grad_output"] = floats(rng, *np.shape(output))
    return {key: value for key, value in given.items() if key in wanted}


# --- layers and settings --------------------------------------------------------------------------


def layer(rng, name):
    """Constructor arguments, and "x" for forward."""
    function = {"Conv": "conv", "MaxP": "max_pool", "AvgP": "avg_pool"}.get(name[:4])
    if function:
        transposed = "_transpose" if "Transpose" in name else ""
        given = right_arguments(rng, f"{function}{transposed}{axes_of(name)}d")
        x = given.pop("input")
        given.pop("algorithm", None), given.pop("return_indices", None)
        if function == "conv":
            weight, bias = given.pop("weight"), given.pop("bias")
            shape = weight.shape
            ins, outs = (0, 1) if transposed else (1, 0)
            given["in_channels"] = shape[ins] * (1 if transposed else given["groups"])
            given["out_channels"] = shape[outs] * (given["groups"] if transposed else 1)
            given |= {"kernel_size": shape[2:], "bias": bias is not None, "dtype": rng.dtype}
        return {"x": x, **given}
    if name.startswith("Adaptive"):
        given = right_arguments(rng, f"adaptive_{name[8:11].lower()}_pool{axes_of(name)}d")
        return {"x": given["input"], "output_size": given["output_size"]}
    if name.startswith("BatchNorm"):
        shape = (3, 5, *plane(rng, axes_of(name)))
        return {"x": floats(rng, *shape), "num_features": 5, "eps": 1e-5, "momentum": 0.1,
                "affine": True, "track_running_stats": True, "dtype": rng.dtype}  # fmt: skip
    if name == "Linear":
        return {"x": floats(rng, 3, 4), "in_features": 4, "out_features": 5, "bias": True,
                "dtype": rng.dtype}  # fmt: skip
    if name.endswith("Loss"):
        kind = {
            "N": "nll_loss",
            "C": "cross_entropy",
            "B": "binary_cross_entropy_with_logits",
            "M": "mse_loss",
        }
        given = right_arguments(rng, kind[name[0]])
        return {"x": given.pop("input"), **given}
    own = {"LeakyReLU": {"negative_slope": 0.1}, "GELU": {"approximate": "tanh"},
           "Dropout": {"p": 0.5, "rng": 0}, "Flatten": {"start_dim": 1, "end_dim": -1},
           "Softmax": {"dim": 1}, "LogSoftmax": {"dim": -1},
           "Unflatten": {"dim": 1, "unflattened_size": (1, -1)},
           "ZeroPad2d": {"padding": (1, 0, 2, 1)},
           "ReflectionPad2d": {"padding": 1, "x": floats(rng, 2, 3, *plane(rng, 2, 3))},
           }  # fmt: skip
    return {"x": floats(rng, 2, 3, *plane(rng, 2)), **own.get(name, {})}


def plan(rng):
    """For `fastconv.compile` of the network in `use_plan`, and for its plan."""
    x = floats(rng, int(rng.integers(1, 4)), 3, *plane(rng, 2, 6))
    single = np.dtype(rng.dtype) == np.float32
    return {"x": x, "input_shape": x.shape, "dtype": rng.dtype, "half_linear": single}


LAYERS = tuple(
    name
    for name in nn.__all__
    if inspect.isclass(getattr(nn, name))
    and issubclass(getattr(nn, name), nn.Module)
    and name not in ("Module", "Sequential", "Residual", "ModuleList", "ModuleDict")
)
OPTIMIZERS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01, "nesterov": True},
    "Adam": {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01},
    "AdamW": {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01},
}
SCHEDULES = {
    "StepLR": {"step_size": 2, "gamma": 0.5},
    "CosineAnnealingLR": {"T_max": 5, "eta_min": 0.0},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 5, "epochs": None, "steps_per_epoch": None,
                   "pct_start": 0.3, "anneal_strategy": "cos", "cycle_momentum": True,
                   "base_momentum": 0.85, "max_momentum": 0.95, "div_factor": 25.0,
                   "final_div_factor": 1e4, "three_phase": False},
}  # fmt: skip
SETTINGS = {"set_num_threads": {"n": 2}, "num_threads": {"n": 2}, "use_isa": {"name": "generic"}}


# --- hostile values -------------------------------------------------------------------------------


class Hostile:
    """Raises when it is used as an index or printed."""

    def __index__(self):
        raise ValueError("hostile")

    def __repr__(self):
        raise ValueError("hostile")


class BadIndex:
    def __index__(self):
        return "no int"


class Words(str):
    """A str of another class."""


class Pair(tuple):
    """A tuple of another class."""


class Liar(np.ndarray):
    """An array that tells another shape than it has."""

    @property
    def shape(self):
        return (1, 1, 2**20, 2**20)

    @property
    def ndim(self):
        return 4


INTEGERS = (0, -1, -2, 1, 2, 3, 7, 17, 2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**63,
            2**64 + 1, -(2**31), -(2**63), -(2**63) - 1, 10**30, 10**5000)  # fmt: skip
SCALARS = (*INTEGERS, 1.0, 0.5, float("nan"), float("inf"), -float("inf"), 1e300, True, False,
           np.True_, None, "", "same", "valid", "full", "causal", "zeros", "mean", "none",
           "\udc80", b"1", 1j, np.int8(-1), np.uint64(2**64 - 1), np.float32(1), np.float64("nan"),
           np.array(2), np.array(1.5), np.datetime64("2026-01-01"), Fraction(1, 2), slice(None),
           Ellipsis, int, len, object(), Hostile(), BadIndex(), Words("same"), {}, set(), range(2),
           np.dtype("f4"), "x" * 100_000)  # fmt: skip
CONTAINERS = ((), [], (1,), (1, 1), (2, 2), (1, 1, 1), [2, 1], [[1, 1], [1, 1]], ((0, 1), (1, 0)),
              ((0, 2**31 - 1), (2**62, 0)), ((1,), (1, 2)), (None, None), (1, None), ("same", 1),
              (1.0, 1), (True, False, True), Pair((1, 1)), (0,) * 1000, [(1, 1)] * 1000,
              (2**63, -1), (2**62, 2**62, 2**62, 2**62), np.array([1, 1]), "22", b"22",
              {1: 1, 2: 2}, ((((1,),),),))  # fmt: skip


def bad_scalar(rng, value):
    """Something else in the place of a number, a word, a tuple."""
    if isinstance(value, tuple) and value and rng.random() < 0.4:
        entries = list(value)
        entries[int(rng.integers(len(entries)))] = pick(rng, SCALARS)
        return tuple(entries)
    return pick(rng, SCALARS) if rng.random() < 0.6 else pick(rng, CONTAINERS)


def other_dtype(rng, array):
    dtype = pick(rng, ("f4", "f8", "i4", "i8", "u1", "f2", "g", "c8", "?", "O", "S3", "U2", "M8[s]",
                       "V8", "f4,f4"))  # fmt: skip
    if dtype == "f4,f4":
        return np.zeros(array.shape, dtype)
    if dtype in ("M8[s]", "V8"):
        return np.zeros(array.shape, np.int64).view(dtype)
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def other_shape(rng, array):
    kinds = ("size", "size", "drop", "add", "empty", "scalar", "reversed", "huge")
    kind = pick(rng, kinds if rng.may_be_huge else kinds[:-1])
    shape = list(array.shape)
    at = int(rng.integers(max(len(shape), 1)))
    if kind == "huge":  # the memory of one element
        sizes = pick(rng, ((2**40,), (2**20, 2**20), (2**31, 2**25), (2, 2, 2**20, 2**21)))
        shape = (*shape[: max(len(shape) - len(sizes), 0)], *sizes)
        # NumPy makes no more bytes than these
        while math.prod(max(n, 1) for n in (*shape, array.itemsize)) >= 2**63:
            shape = shape[1:]
        return np.broadcast_to(np.ones(1, array.dtype), shape)
    if kind == "scalar" or not shape:
        shape = []
    elif kind == "size":
        shape[at] = max(0, shape[at] + int(rng.integers(-2, 3)))
    elif kind == "drop":
        del shape[at]
    elif kind == "add":
        shape.insert(at, int(rng.integers(0, 3)))
    elif kind == "empty":
        shape[at] = 0
    else:
        shape.reverse()
    return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)


def no_array(rng, array):
    kind = pick(rng, ("list", "memoryview", "matrix", "masked", "record", "liar", "scalar", "ties"))
    if kind == "list":
        return array.tolist()
    if kind == "memoryview":
        return memoryview(np.ascontiguousarray(array)) if array.size else memoryview(b"")
    if kind == "matrix" and array.size:
        return np.asmatrix(array.reshape(array.shape[0] if array.ndim else 1, -1))
    if kind == "masked":
        return np.ma.masked_array(array, np.ones(array.shape, bool))
    if kind == "record" and array.ndim:
        return array.view(np.recarray)
    if kind == "liar":
        return array.view(Liar)
    if kind == "ties" and array.size > 1:
        base = np.zeros(array.size + 1, array.dtype)
        return np.lib.stride_tricks.as_strided(base, array.shape, (array.itemsize,) * array.ndim)
    return pick(rng, SCALARS)


def other_values(rng, array):
    array = array.copy()
    if array.size:
        if array.dtype.kind == "f":
            bad = pick(rng, (np.nan, np.inf, -np.inf, 1e30, -0.0, 1e-40))
        else:
            bad = pick(rng, (-1, 10**6, 2**31, 2**62, -(2**63), 2**63 - 1))
            bad = np.array(bad).astype(array.dtype)
        array.flat[rng.integers(array.size, size=1 + array.size // 4)] = bad
    return array


def bad_array(rng, array):
    """Something else in the place of an array."""
    return pick(rng, (other_dtype, other_shape, other_shape, no_array, other_values))(rng, array)


def mutate(rng, given, names):
    """Put something hostile in the place of one of the arguments `names`, and strike it out."""
    name = names.pop(int(rng.integers(len(names))))
    value = given[name]
    if isinstance(value, np.ndarray) and value.dtype.kind in "fi" and rng.random() < 0.9:
        given[name] = bad_array(rng, value)
    elif isinstance(value, np.ndarray):
        given[name] = pick(rng, SCALARS)
    else:
        given[name] = bad_scalar(rng, value)
