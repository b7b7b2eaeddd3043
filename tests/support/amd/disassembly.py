"""Reads a code object with LLVM's tools, or assembly: the instructions of each kernel, and its registers and LDS."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml

OBJDUMP, READELF = "llvm-objdump-19", "llvm-readelf-19"
LABEL = re.compile(r"^[0-9a-f]+ <(\w+)>:$")
LINE = re.compile(r"^\t(\S+)\s*(.*?)\s*// ([0-9A-F]+):")
TARGET = re.compile(r"<\w+\+0x([0-9a-f]+)>")
ASSEMBLY_LABEL, ASSEMBLY_LINE = re.compile(r"^([\w.$]+):"), re.compile(r"^\t([a-z]\w*)\s*(.*)$")
REGISTERS = re.compile(r"\b([va])(?:(\d+)|\[(\d+):(\d+)\])")


class Instruction(NamedTuple):
    """address: in bytes from the kernel's start; target: of a branch, in the same bytes, otherwise None."""

    name: str
    operands: str
    address: int
    target: int | None

    def registers(self) -> list[set[str]]:
        """Return by operand the vector registers that it names, such as {"v4", "v5"}; the first is the result."""
        named = []
        for operand in re.split(r",(?![^\[]*\])", self.operands):
            ranges = [(kind, int(one or low), int(one or high)) for kind, one, low, high in REGISTERS.findall(operand)]
            named.append({f"{kind}{i}" for kind, low, high in ranges for i in range(low, high + 1)})
        return named


class Resources(NamedTuple):
    """Vector registers of a lane (accumulation registers included), LDS bytes of a block, registers that were spilled,
    threads of a block.
    """

    registers: int
    lds_bytes: int
    spilled: int
    threads: int


def instructions(image: Path) -> dict[str, list[Instruction]]:
    """Return the instructions of each kernel of a code object."""
    found: dict[str, list[Instruction]] = {}
    start = 0
    for line in _output(OBJDUMP, "-d", str(image)).splitlines():
        if label := LABEL.match(line):
            listed = found.setdefault(label[1], [])
            start = int(line.split()[0], 16)
        elif read := LINE.match(line):
            name, operands, address = read.groups()
            jump = TARGET.search(line) if "branch" in name else None
            listed.append(Instruction(name, operands, int(address, 16) - start, int(jump[1], 16) if jump else None))
    return found


def resources(image: Path) -> dict[str, Resources]:
    """Return what each kernel of a code object needs, by its metadata: LLVM's "User Guide for AMDGPU Backend"."""
    return _resources(_output(READELF, "--notes", str(image)))


def _resources(notes: str) -> dict[str, Resources]:
    metadata = yaml.safe_load(notes[notes.index("---") : notes.rindex("...")])
    return {
        kernel[".name"]: Resources(
            kernel[".vgpr_count"], kernel[".group_segment_fixed_size"],
            kernel[".vgpr_spill_count"] + kernel[".private_segment_fixed_size"] // 4,
            kernel[".max_flat_workgroup_size"],
        )
        for kernel in metadata["amdhsa.kernels"]
    }  # fmt: skip


def of_image(image: bytes) -> dict[str, tuple[list[Instruction], Resources]]:
    """Return the instructions and the resources of each kernel."""
    with tempfile.NamedTemporaryFile(suffix=".co") as file:
        file.write(image)
        file.flush()
        needs = resources(Path(file.name))
        return {name: (listed, needs[name]) for name, listed in instructions(Path(file.name)).items() if name in needs}


def of_assembly(text: bytes) -> dict[str, tuple[list[Instruction], Resources]]:
    """Return the same of clang's assembly, which has no addresses: an instruction's is 4 times its number."""
    lines = [line.split(";")[0].rstrip() for line in text.decode().splitlines()]
    begin, end = lines.index("\t.amdgpu_metadata"), lines.index("\t.end_amdgpu_metadata")
    needs = _resources("\n".join(lines[begin + 1 : end]))
    labels: dict[str, int] = {}
    read: dict[str, list[tuple[str, str]]] = {}
    kernel = ""
    for line in lines[:begin]:
        if label := ASSEMBLY_LABEL.match(line):
            kernel = label[1] if label[1] in needs else "" if label[1].startswith(".Lfunc_end") else kernel
            labels[label[1]] = 4 * len(read.setdefault(kernel, []))
        elif kernel and (found := ASSEMBLY_LINE.match(line)):
            read[kernel].append((found[1], found[2]))
    return {
        name: ([Instruction(*one, 4 * i, labels.get(one[1])) for i, one in enumerate(read[name])], needs[name])
        for name in needs
    }


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
