"""Every kernel's C signature is the catalogue's contract: tensors, then dimensions as int64, then scalars."""

import re
from dataclasses import dataclass

import pytest

from hipgpt.backends.build import KERNELS
from hipgpt.op import Argument, Op
from hipgpt.ops import CATALOGUE

BLOCK = re.compile(r'extern "C" \{\n(.*)', re.DOTALL)  # reaches to the end of its file
FUNCTION = re.compile(r'^(?:extern "C" )?([\w*]+(?: [\w*]+)*) (\w+)\(([^()]*)\)(?: noexcept)? \{', re.MULTILINE)
C_TYPES = {"act": "float", "f32": "float", "i32": "int32_t"}
NOT_OPS = {"threads.cpp": {"set_thread_count"}, "bpe.cpp": {
    "bpe_counter_new", "bpe_counter_free", "bpe_counter_add", "bpe_counter_train",
    "bpe_encoder_new", "bpe_encoder_free", "bpe_encoder_encode",
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
    for path in sorted((KERNELS / "cpu").glob("*.cpp")):
        text = path.read_text()
        blocks = BLOCK.findall(text)
        outside = [match for match in FUNCTION.finditer(text) if match[0].startswith("extern")]
        found = [*outside, *FUNCTION.finditer("".join(blocks))]
        assert text.count('extern "C"') == len(outside) + len(blocks), f"{path}: an unread signature"
        for result, name, parameters in (match.groups() for match in found):
            listed = tuple(" ".join(parameter.split()) for parameter in parameters.split(",") if parameter.strip())
            functions.append(Function(path.name, name, result, listed))
    return functions


EXPORTED = exported()


def kernel_of(op: Op) -> Function:
    (function,) = [function for function in EXPORTED if function.name == op.name]
    return function


def pointer(argument: Argument) -> str:
    const = "" if argument.writes else "const "
    return f"{const}{C_TYPES[argument.dtype]}* {argument.name}"


every_op = pytest.mark.parametrize("op", CATALOGUE.values(), ids=CATALOGUE)


@every_op
def test_op_has_one_kernel_in_its_familys_file(op):
    assert [function.source for function in EXPORTED if function.name == op.name] == [f"{op.family}.cpp"]


@every_op
def test_tensors_come_first_and_inputs_are_const(op):
    assert kernel_of(op).parameters[: len(op.arguments)] == tuple(pointer(argument) for argument in op.arguments)


@every_op
def test_dimensions_follow_in_the_contracts_order(op):
    first = len(op.arguments)
    written = kernel_of(op).parameters[first : first + len(op.dimensions)]
    names = [re.fullmatch(r"int64_t (?:/\*(\w+)\*/|(\w+))", parameter) for parameter in written]
    assert tuple(name and (name[1] or name[2]) for name in names) == op.dimensions


@every_op
def test_scalars_come_last(op):
    expected = tuple(f"{C_TYPES[kind]} {name}" for name, kind in op.scalars)
    assert kernel_of(op).parameters[len(op.arguments) + len(op.dimensions) :] == expected


@every_op
def test_kernel_returns_nothing(op):
    assert kernel_of(op).result == "void"


def test_whatever_is_exported_and_no_op_is_known():
    strangers = {(function.source, function.name) for function in EXPORTED if function.name not in CATALOGUE}
    assert strangers == {(source, name) for source, names in NOT_OPS.items() for name in names}


def test_an_exported_function_is_not_read_twice():
    names = [function.name for function in EXPORTED]
    assert len(names) == len(set(names))
