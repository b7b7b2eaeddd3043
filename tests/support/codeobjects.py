"""Writes what a kernel of HipGPT needs to be checked outside of it: code objects, launches, inputs, expected outputs.

PYTHONPATH=tests python -m support.codeobjects --arch gfx1100 --out DIR

DIR/README.md, written too, describes the files; DIR/check.py runs them on an AMD GPU, with hip-python and numpy alone.
Compiling needs no GPU and no ROCm, but what tests/support/amd/clang.py names.
"""

import argparse
import ctypes
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hipgpt.compute.backends.gpu import GpuDevice
from hipgpt.compute.backends.sorted_embedding import SortedEmbedding
from hipgpt.compute.backends.split_k import SplitK
from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.backends.variants import CDNA2_UP, find_variant, has_matrix_units
from hipgpt.compute.catalogue import ON_GPUS
from hipgpt.compute.tensor import DType
from support import reference
from support.amd import clang
from support.calls import SCALARS, Case, Memory, cases, draw
from support.codeobjects_models import MODELS, record_model
from support.rounding import Rounded

HERE = Path(__file__).parent
MOST_ELEMENTS = 100_000  # of all tensors of a case, unless it is there for a variant that only larger ones reach
TYPES = {ctypes.c_void_p: "pointer", ctypes.c_int64: "i64", ctypes.c_int32: "i32", ctypes.c_float: "f32"}
ROLES = {"forward": "NOC", "backward_input": "NCO", "backward_weight": "OCN"}  # of a GEMM: rows, columns, K
# rows, columns, K of GEMMs that reach every variant: block tiles of 32, 64 and 128, first with K whole, then in slices
GEMMS = {
    DType.F32: [(17, 8129, 9), (17, 16257, 8)],  # tiles of 64 and of 128 a side, which one kernel holds
    DType.BF16: [
        (33, 35, 40), (17, 4093, 24), (17, 32641, 8),
        (33, 35, 600), (130, 140, 2100), (400, 500, 4100),
    ],
}  # fmt: skip
CDNA_GEMM = (24, 58120, 8)  # in addition, of bf16, for the block tile of 256 that only CDNA has
MANY_TOKENS = {"B": 9, "S": 911, "C": 24, "V": 20, "T": 911, "N": 8199}  # enough to be sorted
# last arguments of a kernel, by the schedule of its row
FIELDS = {
    type(None): (),
    SplitK: ("workspace", "phase", "slice_count"),
    SortedEmbedding: ("workspace", "phase"),
}
ATTENTION = [{"B": 1, "S": 70, "H": 1, "D": 56}, {"B": 1, "S": 70, "H": 1, "D": 104}]  # tiles of 64 and 128 channels
# so many small matrices that block tiles of 64 and of 128 a side are used
NEWTON_SCHULZ = [{"M": 64, "R": 10, "L": 12}, {"M": 256, "R": 6, "L": 9}]


class Recorder(clang.OfflineDriver):
    """A driver.Driver that compiles, and keeps what it is asked to launch."""

    name = "recorder"

    def __init__(self, arch: str, folder: Path):
        super().__init__(arch)
        self._folder, self._next = folder, 1 << 20
        self.launches: list[dict[str, Any]] = []
        self.allocations: list[tuple[int, int]] = []  # address, bytes
        self.objects: dict[str, dict[str, Any]] = {}

    def compile(self, name: str, source: str, headers: Mapping[str, str], macros: Mapping[str, int]) -> bytes:
        """Compile, and keep the code object and its sources."""
        image = super().compile(name, source, headers, macros)
        label = self._label(name, macros)
        defined = [f"-D{key}={value}" for key, value in macros.items()]
        sources = self._folder / "sources" / label
        sources.mkdir(parents=True)
        for file, text in {name: source, **headers}.items():
            path = sources / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self._folder / "objects").mkdir(exist_ok=True)
        (self._folder / "objects" / f"{label}.co").write_bytes(image)
        self.objects[label] = {
            "file": f"objects/{label}.co",
            "sources": f"sources/{label}",
            "source": name,
            "options": [f"--offload-arch={self.arch}", *defined, "-std=c++17", "-O3"],
            "kernels": {kernel: _resources(found) for kernel, found in self.usage.items()},
        }
        self.usage = {}
        return label.encode()

    @staticmethod
    def _label(name: str, macros: Mapping[str, int]) -> str:
        sizes = [str(macros[key]) for key in ("BLOCK_TILE", "HEAD_CHANNELS") if key in macros]
        return "-".join([Path(name).stem, "bf16" if macros["ACT_BF16"] else "f32", *sizes])

    def load(self, image: bytes) -> str:
        return image.decode()

    def function(self, module: str, name: str, shared_bytes: int = 0) -> tuple[str, str]:
        return module, name

    def allocate(self, size_bytes: int) -> int:
        address, self._next = self._next, self._next + -(-size_bytes // 4096) * 4096
        self.allocations.append((address, size_bytes))
        return address

    def free(self, address: int) -> None: ...

    def clear(self, address: int, size_bytes: int) -> None: ...

    def upload(self, address: int, values: np.ndarray) -> None: ...

    def download(self, values: np.ndarray, address: int) -> None: ...

    def launch(self, function: Any, grid: Any, threads: int, shared_bytes: int, arguments: Any) -> None:
        module, kernel = function
        self.launches.append({
            "object": module, "kernel": kernel, "grid": list(grid), "block": [threads, 1, 1],
            "dynamic_shared_bytes": shared_bytes, "arguments": [_argument(argument) for argument in arguments],
        })  # fmt: skip


def _resources(found: Mapping[str, str]) -> dict[str, int]:
    return {
        "static_shared_bytes": int(found["LDS Size"]),
        "scratch_bytes_per_lane": int(found["ScratchSize"]),
        "vector_registers": int(found["VGPRs"]),
    }


def _argument(value: Any) -> dict[str, Any]:
    return {"type": TYPES[type(value)], "value": value.value}


def chosen_cases(arch: str) -> Iterator[Case]:
    """Yield the op suite's cases of moderate size, and GEMMs, heads and matrices that reach the other variants."""
    for act in (DType.F32, DType.BF16):
        for case in (case for case in cases(act) if case.op.name in ON_GPUS):
            if sum(values.size for values in draw(case).values() if values is not None) <= MOST_ELEMENTS:
                yield case
        for name, op in ON_GPUS.items():
            if op.family == "matmul":
                is_wide = act is DType.BF16 and re.fullmatch(CDNA2_UP, arch)
                gemms = [*GEMMS[act], CDNA_GEMM] if is_wide else GEMMS[act]
                role = next(order for end, order in ROLES.items() if name.endswith(end))
                yield from (Case(op, dict(zip(role, sizes, strict=True)), act=act) for sizes in gemms)
            elif name in ("attention_forward", "attention_backward"):
                yield from (Case(op, sizes, act=act) for sizes in ATTENTION)
            elif name.endswith("embedding_backward"):
                yield Case(op, {key: MANY_TOKENS[key] for key in op.dimensions}, act=act)
            elif name.startswith("newton_schulz"):
                yield from (Case(op, {key: sizes[key] for key in op.dimensions}, act=act) for sizes in NEWTON_SCHULZ)


def variant_of(case: Case, arch: str) -> Variant:
    return find_variant(case.op, arch, case.act, case.sizes)


def record(driver: Recorder, case: Case, file: Path) -> dict[str, Any]:
    """Write a case's arrays to an .npz and return its entry of the manifest."""
    values, arrays = draw(case), {}
    wanted = reference.evaluate(case.op, values, case.sizes, SCALARS, case.act)
    driver.launches = []
    memory = Memory(GpuDevice(driver, graphs=False), case, values, guard=0)
    memory.run()
    addresses, buffers, outputs = {}, [], []
    for argument, tensor in zip(case.op.arguments, memory.tensors, strict=True):
        if tensor is None:
            continue
        addresses[tensor.address] = argument.name
        buffers.append(_buffer(argument.name, tensor.dtype.label, tensor.shape, argument.access))
        if argument.access != "scratch":
            arrays[f"before.{argument.name}"] = _plain(values[argument.name])
        if argument.leaves_values:
            outputs.append(argument.name)
            arrays |= _expected(argument.name, wanted[argument.name])
    variant = variant_of(case, driver.arch)
    fields = FIELDS[type(variant.schedule)]
    slices = variant.schedule.slices(case.op, case.sizes) if isinstance(variant.schedule, SplitK) else 1
    if size := variant.workspace_bytes(case.op, case.sizes):
        addresses[driver.launches[0]["arguments"][-len(fields)]["value"]] = "workspace"
        buffers.append(_buffer("workspace", "f32", (size // 4,), "scratch"))
    names = [*(a.name for a in case.op.arguments), *case.op.dimensions, *(name for name, _ in case.op.scalars)]
    names += fields
    for launch in driver.launches:
        for name, argument in zip(names, launch["arguments"], strict=True):
            argument["name"] = name
            if argument["type"] == "pointer":
                address = argument.pop("value")
                argument["buffer"] = addresses[address] if address else None
    np.savez_compressed(file, **arrays)
    return {
        "name": str(case), "op": case.op.name, "act": case.act.label, "macros": dict(variant.macros), "slices": slices,
        "sizes": case.sizes, "scalars": {name: SCALARS[name] for name, _ in case.op.scalars},
        "arrays": f"cases/{file.name}", "buffers": buffers, "launches": driver.launches, "outputs": outputs,
    }  # fmt: skip


def _buffer(name: str, dtype: str, shape: tuple[int, ...], access: str) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape), "access": access}


def _plain(values: np.ndarray) -> np.ndarray:
    """Return values in a dtype that numpy knows by itself: bf16 as its bits."""
    return values.view(np.uint16) if values.dtype == DType.BF16.numpy else values


def _expected(name: str, wanted: Rounded | np.ndarray) -> dict[str, np.ndarray]:
    if not isinstance(wanted, Rounded):
        return {f"expected.{name}": wanted}
    value = wanted.value.astype(np.float32)  # half the bytes; what that rounds off joins the tolerance
    tolerance = (wanted.error + np.abs(wanted.value - value)).astype(np.float32)
    return {f"expected.{name}": value, f"tolerance.{name}": np.nextafter(tolerance, np.float32(np.inf))}


def write(arch: str, folder: Path) -> dict[str, Any]:
    """Write everything for an architecture into a new folder; return the manifest."""
    (folder / "cases").mkdir(parents=True)
    driver = Recorder(arch, folder)
    written = {}
    with clang.fresh_cache():
        for case in chosen_cases(arch):
            if str(case) not in written:
                written[str(case)] = record(driver, case, folder / "cases" / f"{len(written):04}.npz")
        models = [record_model(name, driver) for name in MODELS] if has_matrix_units(arch) else []
    manifest = {
        "format": 3, "arch": arch, "wave": driver.wave, "compiler": driver.version, "objects": driver.objects,
        "cases": list(written.values()), "models": models,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for name, file in {"README.md": "codeobjects_readme.md", "check.py": "codeobjects_check.py"}.items():
        shutil.copyfile(HERE / file, folder / name)
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.codeobjects", description=__doc__.splitlines()[0])
    parser.add_argument("--arch", required=True, choices=clang.WAVE)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a folder that does not exist yet")
    arguments = parser.parse_args()
    if problem := clang.missing():
        sys.exit(f"cannot compile for AMD: {problem}; apt-get install clang-19 lld-19 rocm-device-libs")
    if arguments.out.exists():
        sys.exit(f"{arguments.out}: exists already; name a new folder")
    manifest = write(arguments.arch, arguments.out)
    print(f"{arguments.out}: {len(manifest['objects'])} code objects, {len(manifest['cases'])} cases; see README.md")


if __name__ == "__main__":
    main()
