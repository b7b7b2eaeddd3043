"""Compiles kernels for AMD GPUs where there is no ROCm: upstream clang, Debian's device libraries and hiprtc.h.

To have them: apt-get install --no-install-recommends clang-19 lld-19 rocm-device-libs
For chips that clang 19 does not know, clang 22 in addition: pip install ziglang
"""

import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from hipgpt.base.kernel_cache import cache_folder

HERE = Path(__file__).parent
COMPILED = cache_folder() / "amd"
CLANG = "clang-19"
DEVICE_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu/amdgcn/bitcode")
WAVE = {"gfx900": 64, "gfx90a": 64, "gfx942": 64, "gfx1030": 32, "gfx1100": 32, "gfx1151": 32,
        "gfx1200": 32, "gfx1201": 32}  # fmt: skip
NEWER_CLANG = (sys.executable, "-m", "ziglang", "clang")
NEWER_WAVE = {"gfx950": 64}  # chips that clang 22 knows and clang 19 does not
# the instruction set's number in the device libraries, for chips newer than Debian's
ISA_VERSIONS = {"gfx942": 9402, "gfx950": 9500, "gfx1100": 11000, "gfx1151": 11501, "gfx1200": 12000,
                "gfx1201": 12001}  # fmt: skip
ISA_SOURCE = """target triple = "amdgcn-amd-amdhsa"
@__oclc_ISA_version = linkonce_odr hidden local_unnamed_addr addrspace(4) constant i32 {}, align 4
"""
REMARK = re.compile(r"remark: +([\w ]+?)(?: \[[\w/]+\])?: (\S+) \[-Rpass-analysis=kernel-resource-usage\]")
OPTIONS = (
    "-x", "hip", "--cuda-device-only", "--no-gpu-bundle-output", "-nogpuinc", "-D__HIPCC_RTC__", "-std=c++17", "-O3",
    "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",  # a kernel takes all dimensions of its contract
    "-Rpass-analysis=kernel-resource-usage", "-include", str(HERE / "hiprtc.h"),
)  # fmt: skip


def missing(arch: str = "gfx942") -> str | None:
    """Return what is not installed here that compiling for a chip needs, or None."""
    if not shutil.which(CLANG):
        return f"no {CLANG}"
    if not shutil.which("ld.lld-19"):
        return "no lld-19"
    if arch in NEWER_WAVE and not importlib.util.find_spec("ziglang"):
        return f"no clang 22 for {arch}: pip install ziglang"
    return None if DEVICE_LIBRARIES.is_dir() else f"no rocm-device-libs in {DEVICE_LIBRARIES}"


@functools.cache
def device_libraries() -> tempfile.TemporaryDirectory:
    """Return a folder of Debian's device libraries and the constants of newer chips; it lasts with the process."""
    folder = tempfile.TemporaryDirectory(prefix="device-libraries-")
    for library in DEVICE_LIBRARIES.glob("*.bc"):
        (Path(folder.name) / library.name).symlink_to(library)
    for arch, version in ISA_VERSIONS.items():
        path = Path(folder.name) / f"oclc_isa_version_{arch.removeprefix('gfx')}.bc"
        if not path.exists():
            options = ["--target=amdgcn-amd-amdhsa", "-nogpulib", "-emit-llvm", "-c", "-x", "ir", "-"]
            command = [CLANG, *options, "-o", str(path)]
            subprocess.run(command, input=ISA_SOURCE.format(version), text=True, check=True)
    return folder


@functools.cache
def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Have everything compiled now: a cached code object would hide a warning."""
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict("os.environ", XDG_CACHE_HOME=cache):
        yield


class OfflineDriver:
    """The compiling half of a driver for one architecture. usage: by kernel, its resources as clang names them."""

    backend = "hip"
    checks_kernels = side_by_side = False  # nothing runs here
    multiprocessors = 1
    command: tuple[str, ...] = (CLANG,)
    options: tuple[str, ...] = OPTIONS

    def __init__(self, arch: str):
        self.arch, self.wave, self.compiler = arch, (WAVE | NEWER_WAVE)[arch], CLANG
        self.usage: dict[str, dict[str, str]] = {}

    @property
    def version(self) -> str:
        return _first_line(*self.command, "--version")

    def compile(self, name: str, source: str, headers: Mapping[str, str], macros: Mapping[str, int]) -> bytes:
        """Return the code object. Raises AssertionError with the compiler's words on an error or a warning.

        What compiled without one is kept with its remarks, because several tests compile the same.
        """
        target = [f"--offload-arch={self.arch}", *(f"-D{key}={value}" for key, value in macros.items())]
        texts = {name: source, **headers}
        compiler = [self.version, self.options, (HERE / "hiprtc.h").read_text()]
        asked = json.dumps([*compiler, target, name, sorted(texts.items())])
        image = COMPILED / f"{hashlib.sha256(asked.encode()).hexdigest()}.co"
        remarks = image.with_suffix(".remarks")
        if not remarks.exists():
            self._compile(name, texts, target, image, remarks)
        self._read_usage(remarks.read_text())
        return image.read_bytes()

    def _compile(self, name: str, texts: Mapping[str, str], target: list[str], image: Path, remarks: Path) -> None:
        COMPILED.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=COMPILED) as folder:
            for file, text in texts.items():
                path = Path(folder, file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            libraries = f"--rocm-device-lib-path={device_libraries().name}"
            command = [*self.command, *self.options, *target, libraries, "-I.", name, "-o", "image"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{name} for {self.arch}:\n{done.stderr}"
            Path(folder, "remarks").write_text(done.stderr)
            os.replace(Path(folder, "image"), image)
            os.replace(Path(folder, "remarks"), remarks)

    def _read_usage(self, remarks: str) -> None:
        for name, value in REMARK.findall(remarks):
            if name == "Function Name":
                kernel = self.usage.setdefault(value, {})
            else:
                kernel[name] = value


class AssemblyDriver(OfflineDriver):
    """The same by clang 22 for NEWER_WAVE. Its images are assembly, because the wheel has no linker for AMD's chips.

    The wheel has no headers for HIP either, so clang 19's come after its own.
    """

    command = NEWER_CLANG

    def __init__(self, arch: str):
        super().__init__(arch)
        headers = Path(_first_line(CLANG, "-print-resource-dir"), "include")
        # Debian's device libraries know no later version of code objects
        self.options = (*OPTIONS, "-S", "-mcode-object-version=5", "-idirafter", str(headers))


def driver(arch: str) -> OfflineDriver:
    """Return the driver that can compile for a chip."""
    return AssemblyDriver(arch) if arch in NEWER_WAVE else OfflineDriver(arch)
