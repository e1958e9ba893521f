"""Builds fastconv._core: one abi3 extension; each file of src_c/isa has the flags of its ISA."""

import os
import platform
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

# -std=gnu11: ISO mode (-std=c11) would turn -ffp-contract off, and with it fused multiply-add.
# -fno-trapping-math: comparisons and selects may be vectorised; NaN and inf keep their meaning.
BASE_FLAGS = [
    "-O3",
    "-g0",
    "-std=gnu11",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-fno-asynchronous-unwind-tables",  # nothing unwinds C: 60 KB less in the wheel
]
ISA_FLAGS = {
    "generic": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
IS_X86_64 = platform.machine().lower() in ("x86_64", "amd64")
DEVELOP = os.environ.get("FASTCONV_DEVELOP", "")  # "warnings", "address" or "thread"
# Sanitizers on kernels that are all inlined: inline checks and those of scopes keep gcc 12 busy for
# 20 minutes with avx512.c, calls for one. -g in place of -g1 makes it several times as long.
GCC_ASAN_CALLS = ["--param", "asan-instrumentation-with-call-threshold=0"]
DEVELOP_FLAGS = {
    "": [],
    "warnings": ["-Wall", "-Wextra", "-Werror"],
    "address": [
        "-O1",
        "-g1",
        "-fsanitize=address,undefined",
        "-fno-omit-frame-pointer",
        "-fno-sanitize-recover=undefined",
        "-fno-sanitize-address-use-after-scope",
        *([] if "clang" in os.environ.get("CC", "") else GCC_ASAN_CALLS),
    ],
    "thread": ["-O1", "-g1", "-fsanitize=thread"],
}
if IS_X86_64 and DEVELOP in ("", "warnings"):
    ISA_FLAGS["generic"] = ["-Os"]  # a fallback there; its loops are vectors already: 180 KB less
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def isa_tables() -> list[tuple[str, str]]:
    """The instruction sets and dtypes to compile, the longest first."""
    names = ["avx512", "avx2", "generic"] if IS_X86_64 else ["generic"]
    return [(name, dtype) for name in names for dtype in ("f32", "f64")]


class BuildExt(build_ext):
    """Compiles the ISA files side by side, once per dtype, and links them as extra objects."""

    def build_extension(self, ext: Extension) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compile_one = partial(self.isa_object, ext)
            ext.extra_objects = list(pool.map(compile_one, isa_tables()))
        super().build_extension(ext)

    def isa_object(self, ext: Extension, table: tuple[str, str]) -> str:
        """Compiles one table of kernels, unless its object is newer than all that it is made of."""
        name, dtype = table
        source, folder = f"src_c/isa/{name}.c", os.path.join(self.build_temp, dtype)
        (target,) = self.compiler.object_filenames([source], output_dir=folder)
        if self.force or newer_group([source, "setup.py", *ext.depends], target, "newer"):
            flags = [
                *ext.extra_compile_args,
                *ISA_FLAGS[name],
                f"-DFC_DOUBLE={int(dtype == 'f64')}",
            ]
            self.compiler.compile([source], output_dir=folder, extra_postargs=flags)
        return target


# -s: only profilers want the names of static functions; they have development builds. 32 KB less
strip = [] if DEVELOP or not sys.platform.startswith("linux") else ["-s"]
sanitize = [flag for flag in DEVELOP_FLAGS[DEVELOP] if flag.startswith("-fsanitize")]
core = Extension(
    "fastconv._core",
    sources=[
        "fastconv/_core.pyx",
        *sorted(glob("src_c/*.c") + glob("src_c/ops/*.c")),
        "src_c/isa/dispatch.c",
    ],
    depends=sorted(glob("src_c/**/*.h", recursive=True) + glob("fastconv/*.pxi")),
    include_dirs=["src_c"],
    extra_compile_args=BASE_FLAGS + DEVELOP_FLAGS[DEVELOP],
    extra_link_args=["-pthread", *sanitize, *strip],
    define_macros=[] if FREE_THREADED else [("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=not FREE_THREADED,
)

setup(
    ext_modules=cythonize(
        [core],
        compiler_directives={
            "language_level": 3,
            "freethreading_compatible": True,
            "embedsignature": True,
        },
    ),
    cmdclass={"build_ext": BuildExt},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
