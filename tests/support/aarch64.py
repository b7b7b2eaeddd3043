"""Kernels for aarch64 made by a cross compiler and run by qemu's user mode: a device that has a program for each op."""

import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hipgpt.base import compiler as build
from hipgpt.compute.backends import cpu
from hipgpt.compute.contract import Op
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor

COMPILER, EMULATOR, LIBRARIES = "aarch64-linux-gnu-g++", "qemu-aarch64", "/usr/aarch64-linux-gnu"
C_TYPES = {"f32": "float", "i32": "int32_t"}
PROGRAM = """#include <cstdint>
#include <cstdio>
#include <cstdlib>
extern "C" void {name}({parameters});

template <class T>
T taken() {{
    T value;
    if (fread(&value, sizeof value, 1, stdin) != 1) exit(1);
    return value;
}}

// calls until the input ends; of each: how many bytes its tensors have, 0 for none, their contents, dimensions and
// scalars; the tensors go out again
int main() {{
    int64_t sizes[{tensors}];
    while (fread(sizes, sizeof sizes, 1, stdin) == 1) {{
        char* tensors[{tensors}];
        for (int i = 0; i < {tensors}; ++i) {{
            tensors[i] = sizes[i] ? static_cast<char*>(malloc(sizes[i])) : nullptr;
            if (fread(tensors[i], 1, sizes[i], stdin) != static_cast<size_t>(sizes[i])) return 1;
        }}
{values}
        {name}({arguments});
        for (int i = 0; i < {tensors}; ++i) {{
            fwrite(tensors[i], 1, sizes[i], stdout);
            free(tensors[i]);
        }}
        fflush(stdout);
    }}
}}
"""


def program_of(op: Op) -> str:
    """Return a C++ program that reads the arguments of calls, calls the op's kernel, and writes its tensors."""
    others = [*(("int64_t", name) for name in op.dimensions), *((C_TYPES[kind], name) for name, kind in op.scalars)]
    tensors = len(op.arguments)
    return PROGRAM.format(
        name=op.name,
        tensors=tensors,
        parameters=", ".join(["void*"] * tensors + [kind for kind, _ in others]),
        values="\n".join(f"        const auto {name} = taken<{kind}>();" for kind, name in others),
        arguments=", ".join([f"tensors[{i}]" for i in range(tensors)] + [name for _, name in others]),
    )


class EmulatedDevice:
    """One core of an emulated aarch64; memory is the host's, and goes to and fro with each launch.

    An op's program runs until the device is closed, because a start of the emulator takes longer than most calls.
    """

    backend, name, traits = "cpu", "aarch64", cpu.traits((DType.F32, DType.BF16))

    def __init__(self, folder: Path):
        self._folder = folder
        self._running: dict[Path, subprocess.Popen[bytes]] = {}

    def allocate(self, size_bytes: int) -> tuple[int, np.ndarray]:
        memory = np.zeros(size_bytes + 64, np.uint8)
        return memory.ctypes.data + -memory.ctypes.data % 64, memory

    write, read = cpu.CpuDevice.write, cpu.CpuDevice.read

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        programs = [compiled(launch.op, launch.act, self._folder) for launch in launches]

        def replay() -> None:
            for launch, program in zip(launches, programs, strict=True):
                self._launch(launch, program)

        return replay

    def close(self) -> None:
        """End the programs. Raises AssertionError if one fails."""
        for program, process in self._running.items():
            process.communicate()
            assert process.returncode == 0, f"{program.name}: exit status {process.returncode}"

    def _process(self, program: Path) -> subprocess.Popen[bytes]:
        if program not in self._running:
            command = [EMULATOR, "-L", LIBRARIES, str(program)]
            self._running[program] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._running[program]

    def _launch(self, launch: Launch, program: Path) -> None:
        contents = [self.read(tensor).tobytes() if tensor else b"" for tensor in launch.tensors]
        given = [np.array([len(content) for content in contents], np.int64).tobytes(), *contents]
        given += [np.int64(launch.sizes[name]).tobytes() for name in launch.op.dimensions]
        kinds = {"f32": np.float32, "i32": np.int32}
        given += [kinds[kind](launch.scalars[name]).tobytes() for name, kind in launch.op.scalars]
        process, size = self._process(program), sum(map(len, contents))
        with contextlib.suppress(BrokenPipeError):  # the program has ended, as its output shows
            process.stdin.write(b"".join(given))
            process.stdin.flush()
        got = process.stdout.read(size)
        assert len(got) == size, f"{launch.op.name}: exit status {process.wait()}"
        at = 0
        for tensor in filter(None, launch.tensors):
            self.write(tensor, _values(tensor, got[at : at + tensor.size_bytes]))
            at += tensor.size_bytes


def _values(tensor: Tensor, content: bytes) -> np.ndarray:
    return np.frombuffer(content, tensor.dtype.numpy).reshape(tensor.shape)


def compile_for(command: Sequence[str], source: Path, macros: Mapping[str, int], target: Path) -> str:
    """Compile a source of kernels/cpu quickly; return what the compiler says, warnings too."""
    options = [option for option in build.OPTIONS if option not in ("-O3", "-shared")]
    options += ["-O1", *build.include_options(macros)]
    done = subprocess.run([*command, *options, str(source), "-o", str(target)], capture_output=True, text=True)
    return done.stderr if done.returncode == 0 else f"failed: {done.stderr}"


def compiled(op: Op, act: DType, folder: Path) -> Path:
    """Return the program of an op, made unless `folder` has it."""
    target = folder / f"{op.name}-{act.label}"
    if not target.exists():
        main = folder / f"{op.name}.cpp"
        main.write_text(program_of(op))
        kernels = folder / f"{op.family}-{act.label}.o"
        if not kernels.exists():
            macros = {"ACT_BF16": int(act is DType.BF16)}
            said = compile_for([COMPILER, "-c"], cpu.CPU / f"{op.family}.cpp", macros, kernels)
            assert said == "", said
        subprocess.run([COMPILER, str(main), str(kernels), "-o", str(target)], check=True)
    return target
