"""Every kernel's signature, for CPU and GPU, is the catalogue's: tensors, then dimensions as int64, then scalars."""

import re
from dataclasses import dataclass

import pytest

from hipgpt.base.paths import KERNELS
from hipgpt.compute import fused_ops
from hipgpt.compute.backends import stacked_gemm
from hipgpt.compute.backends.launch_shapes import (
    ATTENTION_MMA,
    ATTENTION_TMA,
    MATMUL_ROWS,
    SIMT,
    amd_attention,
    matmul_mma,
    muon_mma,
)
from hipgpt.compute.backends.variants import VARIANTS
from hipgpt.compute.catalogue import CATALOGUE, ON_GPUS
from hipgpt.compute.contract import Argument, Op

BLOCK = re.compile(r'extern "C" \{\n(.*)', re.DOTALL)  # reaches to the end of its file
FUNCTION = re.compile(r'^(?:extern "C" )?([\w*]+(?: [\w*]+)*) (\w+)\(([^()]*)\)(?: noexcept)? \{', re.MULTILINE)
KERNEL_MACRO = r"^(?:GEMM_KERNEL|(?:PERSISTENT_|BOUNDED_)?KERNEL\([^()]*\))\s+"
GPU_KERNEL = re.compile(KERNEL_MACRO + r"(\w+)\(([^()]*)\) \{", re.MULTILINE)
C_TYPES = {"act": "act", "f32": "float", "i32": "int32_t"}
NOT_OPS = {"threads.cpp": {"set_thread_count"}, "replay.cpp": {"replay"}, "api.cpp": {
    "bpe_is_ascii", "bpe_pieces", "bpe_fires", "bpe_tokens_new", "bpe_tokens_free",
    "bpe_counter_new", "bpe_counter_free", "bpe_counter_add", "bpe_counter_join",
    "bpe_trainer_new", "bpe_trainer_free", "bpe_trainer_train",
    "bpe_encoder_new", "bpe_encoder_free", "bpe_encoder_encode",
    "bpe_decoder_new", "bpe_decoder_free", "bpe_decoder_size", "bpe_decoder_decode",
}}  # fmt: skip


@dataclass(frozen=True)
class Function:
    """A C function: the file it is in, its result and its parameters as they are written, spaces made single."""

    source: str
    name: str
    result: str
    parameters: tuple[str, ...]


def exported() -> list[Function]:
    """Return every function of kernels/cpu with C linkage."""
    functions = []
    for path in sorted([*(KERNELS / "cpu").rglob("*.cpp"), *(KERNELS / "bpe").glob("*.cpp")]):
        text = path.read_text()
        blocks = BLOCK.findall(text)
        outside = [match for match in FUNCTION.finditer(text) if match[0].startswith("extern")]
        found = [*outside, *FUNCTION.finditer("".join(blocks))]
        assert text.count('extern "C"') == len(outside) + len(blocks), f"{path}: an unread signature"
        for result, name, parameters in (match.groups() for match in found):
            functions.append(Function(path.name, name, result, listed(parameters)))
    return functions


def listed(parameters: str) -> tuple[str, ...]:
    return tuple(" ".join(parameter.split()) for parameter in parameters.split(",") if parameter.strip())


def gpu_kernels() -> list[Function]:
    """Return every kernel of kernels/gpu; the macro KERNEL makes its result void."""
    functions = []
    for path in sorted((KERNELS / "gpu").glob("*.hip")):
        found = GPU_KERNEL.findall(path.read_text())
        macros = re.findall(r"^\w*KERNEL\b", path.read_text(), re.MULTILINE)
        assert len(macros) == len(found), f"{path}: an unread signature"
        functions += [Function(path.name, name, "void", listed(parameters)) for name, parameters in found]
    return functions


EXPORTED = exported()
FUSED = {value.name: value for value in vars(fused_ops).values() if isinstance(value, Op)}
GPU_KERNELS = gpu_kernels()
SEVERAL_LAYERS = [each for each in GPU_KERNELS if each.name in FUSED]
MMA, TMA, AMD, FEW, SORTED, LARGE, SHORT = (
    [each for each in GPU_KERNELS if each.source.endswith(f"_{end}.hip")]
    for end in ("mma", "tma", "amd", "rows", "sorted", "large", "short")
)
# the functions of a place, and the sources they are in
PLACES = {
    "cpp": (EXPORTED, "{}.cpp"),
    "hip": (
        [
            function
            for function in GPU_KERNELS
            if function not in MMA + TMA + AMD + FEW + SORTED + LARGE + SHORT + SEVERAL_LAYERS
        ],
        "{}.hip",
    ),
    "mma": (MMA, "{}_mma.hip"),
    "tma": (TMA, "{}_tma.hip"),
    "amd": (AMD, "{}_amd.hip"),
    "rows": (FEW, "{}_rows.hip"),
    "sorted": (SORTED, "{}_sorted.hip"),
    "large": (LARGE, "{}_large.hip"),
    "short": (SHORT, "{}_short.hip"),
    "fused": (SEVERAL_LAYERS, "{}.hip"),
}
SERVED_BY_MMA = set(matmul_mma(128)) | set(muon_mma(128)) | set(ATTENTION_MMA)
SERVED_BY_TMA = set(matmul_mma(128)) | set(ATTENTION_TMA) | set(stacked_gemm.BOXES) | {"cross_entropy_training"}
OPS_OF = {"cpp": set(CATALOGUE), "hip": set(ON_GPUS), "mma": SERVED_BY_MMA, "tma": SERVED_BY_TMA,
          "amd": set(amd_attention(64)), "rows": set(MATMUL_ROWS),
          "sorted": {"embedding_backward", "token_embedding_backward"}, "large": {"cross_entropy_training"},
          "short": {"attention_forward"},
          "fused": set(FUSED)}  # fmt: skip


def kernel_of(op: Op, place: str) -> Function:
    (function,) = [function for function in PLACES[place][0] if function.name == op.name]
    return function


def pointer(argument: Argument) -> str:
    const = "" if argument.writes else "const "
    return f"{const}{C_TYPES[argument.dtype]}* {argument.name}"


every_op = pytest.mark.parametrize("op", CATALOGUE.values(), ids=CATALOGUE)
EVERY_OP = CATALOGUE | FUSED
every_kernel = pytest.mark.parametrize(
    ("op", "place"),
    [
        pytest.param(op, place, id=f"{place}-{op.name}")
        for place in PLACES
        for op in EVERY_OP.values()
        if op.name in OPS_OF[place]
    ],
)


@every_kernel
def test_op_has_one_kernel_in_its_familys_file(op, place):
    functions, source = PLACES[place]
    found = [function.source for function in functions if function.name == op.name]
    assert found in ([source.format(op.family)], [source.format(op.name)])


@every_kernel
def test_tensors_come_first_and_inputs_are_const(op, place):
    expected = tuple(pointer(argument) for argument in op.arguments)
    assert kernel_of(op, place).parameters[: len(op.arguments)] == expected


@every_kernel
def test_dimensions_follow_in_the_contracts_order(op, place):
    first = len(op.arguments)
    written = kernel_of(op, place).parameters[first : first + len(op.dimensions)]
    names = [re.fullmatch(r"int64_t (?:/\*(\w+)\*/|(\w+))", parameter) for parameter in written]
    assert tuple(name and (name[1] or name[2]) for name in names) == op.dimensions


@every_kernel
def test_scalars_come_last(op, place):
    expected = tuple(f"{C_TYPES[kind]} {name}" for name, kind in op.scalars)
    if (place in ("mma", "tma") and op.family == "matmul") or op.name == "block_weights":
        expected += ("float* workspace", "int32_t phase", "int32_t slice_count")  # SplitK of kernels/gpu/gemm/split_k.h
    if place == "sorted":
        expected += ("uint32_t* workspace", "int32_t phase")  # SortedTokens of kernels/gpu/simt/sorted_tokens.h
    if place in ("tma", "fused"):
        source = rf"gpu/{op.family}.hip" if place == "fused" else r"gpu/\w+_tma.hip"
        rows = (each for each in VARIANTS if re.fullmatch(source, each.source))
        variant = next(each for each in rows if re.fullmatch(each.op, op.name))
        expected += tuple(f"TENSOR_MAP {boxes.argument}_map" for boxes in variant.boxes(op))
    assert kernel_of(op, place).parameters[len(op.arguments) + len(op.dimensions) :] == expected


@every_op
def test_kernel_returns_nothing(op):
    assert kernel_of(op, "cpp").result == "void"


def test_whatever_is_exported_and_no_op_is_known():
    strangers = {(function.source, function.name) for function in EXPORTED if function.name not in CATALOGUE}
    assert strangers == {(source, name) for source, names in NOT_OPS.items() for name in names}


def test_gpu_kernels_are_all_ops_and_have_a_launch_shape():
    assert {function.name for function in PLACES["hip"][0]} == set(SIMT) == set(ON_GPUS)
    assert {function.name for function in MMA} == SERVED_BY_MMA
    assert {function.name for function in TMA} == SERVED_BY_TMA


@pytest.mark.parametrize("place", PLACES)
def test_a_function_is_not_read_twice(place):
    names = [function.name for function in PLACES[place][0]]
    assert len(names) == len(set(names))
