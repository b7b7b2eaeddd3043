"""Calls of single ops for tests: their sizes, their values, and memory that shows where a kernel wrote."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hipgpt.compute.backends import cpu
from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.contract import Argument, Op
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import ALIGNMENT_ELEMENTS, DType, Tensor
from support import reference
from support.special_values import SPECIAL, plain

AWKWARD = (17, 31, 33, 3, 5, 2)
# matmul: one size past the blocks of every kernel, each dimension in turn; exactly on the edges of tiles; few rows
MATMUL = [*itertools.permutations((13, 513, 257)), *itertools.permutations((24, 32, 256)), (2, 67, 300), (515, 1, 31)]
MATMUL += [(1, 480, 480)]  # one row whose outputs two threads do not share in whole groups
MATMUL += [(4, 72, 200), (8, 200, 1040)]  # few rows whose length vector loads divide
MATMUL += [(192, 1120, 40), (192, 40, 1120)]  # several passes over K, whole tiles, rows of A read in place
MATMUL += [(24, 300, 1100), (24, 1100, 300)]  # several passes over K and several blocks of columns
MATMUL += [(30, 131, 1030), (30, 1030, 131)]  # rows that a CPU multiplies by rows of the weight, none in whole tiles
# attention: tiles of 32, 64, 128 and 256 channels, tiles that a query sees whole, channels that are no multiple of 8
ATTENTION = [
    {"B": 2, "S": 130, "H": 1, "D": 64}, {"B": 1, "S": 70, "H": 2, "D": 104}, {"B": 1, "S": 64, "H": 2, "D": 32},
    {"B": 1, "S": 130, "H": 2, "D": 24}, {"B": 1, "S": 150, "H": 1, "D": 29}, {"B": 1, "S": 100, "H": 1, "D": 128},
    {"B": 2, "S": 260, "H": 2, "D": 64}, {"B": 1, "S": 384, "H": 1, "D": 64}, {"B": 2, "S": 200, "H": 1, "D": 128},
    {"B": 2, "S": 37, "H": 2, "D": 160}, {"B": 1, "S": 70, "H": 2, "D": 192}, {"B": 2, "S": 130, "H": 1, "D": 256},
    {"B": 1, "S": 33, "H": 1, "D": 131},
]  # fmt: skip
ROTATED = [{"B": 2, "S": 130, "H": 4, "D": 64}, {"B": 3, "S": 70, "H": 6, "D": 32}, {"B": 2, "S": 33, "H": 2, "D": 256}]
# several matrices: fewer than threads, ragged tiles; more than threads; enough of them for tiles of every side
MATRICES = [{"M": 1, "R": 70, "L": 300}, {"M": 4, "R": 130, "L": 130}, {"M": 300, "R": 24, "L": 40}]
# sizes that several threads share, or that cross a block of some kernel
LARGE = {
    "attention_forward": ATTENTION,
    "attention_backward": ATTENTION,
    "build_batch": [{"B": 7, "S": 130, "T": 5003, "K": 9}],
    "attention_delta": [{"B": 2, "H": 3, "S": 130, "D": 64}, {"B": 1, "H": 2, "S": 35, "D": 256}],
    # heads of whole vectors, and of whole vectors and a rest
    "attention_decode": [
        {"B": 7, "H": 3, "D": 64, "T": 130},
        {"B": 2, "H": 2, "D": 40, "T": 21},
        {"B": 2, "H": 2, "D": 104, "T": 35},
        {"B": 3, "H": 2, "D": 131, "T": 37},
        {"B": 3, "H": 2, "D": 256, "T": 150},
    ],
    "fill_cache": [{"B": 7, "H": 3, "T": 150, "D": D, "K": 5, "S": 130} for D in (64, 256)],
    "cross_entropy_forward": [{"N": 21, "V": 5003}],
    "cross_entropy_training": [{"N": 21, "V": 5003}, {"N": 3, "V": 16397}, {"N": 3, "V": 24584}, {"N": 3, "V": 65544}],
    # several strips, chunks and blocks; logits far above those before them
    "output_layer_training": [{"N": 70, "C": 40, "V": 1003}, {"N": 1100, "C": 520, "V": 230}],
    "draw_token": [{"B": 8, "V": 5003, "T": 40}],
    "layernorm_forward": [{"N": 67, "C": 768}],
    "layernorm_backward": [{"N": 67, "C": C, "K": K} for C, K in ((768, 5), (64, 67), (1280, 3), (1030, 3))],
    "rmsnorm_forward": [{"N": 67, "C": 768}],
    "rmsnorm_backward": [{"N": 67, "C": C, "K": K} for C, K in ((768, 5), (64, 67), (1280, 3))],
    "add_rows": [{"C": 768, "K": 130}],
    "head_norm_forward": [{"N": 67, "G": 12, "D": D} for D in (64, 256)],
    "head_norm_backward": [{"N": 67, "G": 12, "D": D, "K": 5} for D in (64, 256)],
    "rotation_table": [{"B": 3, "S": 130, "D": D} for D in (64, 256)],
    "rotary_forward": ROTATED,
    "rotary_backward": ROTATED,
    "swiglu_forward": [{"N": 67, "C": 768}],
    "swiglu_backward": [{"N": 67, "C": 768}],
    "token_embedding_forward": [{"N": 130, "C": 64, "V": 1003}],
    # many tokens, which are sorted: runs of equal ids longer than a tile, and short ones
    "token_embedding_backward": [{"N": 1100, "C": 130, "V": 1003}, {"N": 8200, "C": 24, "V": 1003}],
    "embedding_backward": [
        {"B": 9, "S": 911, "C": 24, "V": 20, "T": 911},
        {"B": 9, "S": 911, "C": 3, "V": 300, "T": 920},
    ],
    "add_partials": [{"C": 768, "K": 130}],
    "muon_direction": [{"M": 2, "O": 70, "C": 300}, {"M": 3, "O": 300, "C": 70}],
    "muon_update": [{"M": 2, "O": 70, "C": 300, "K": 4}, {"M": 3, "O": 300, "C": 70, "K": 4}],
    "newton_schulz_gram": MATRICES,
    "newton_schulz_step": MATRICES,
    "newton_schulz_polynomial": [{"M": 3, "R": 130}, {"M": 40, "R": 72}],
    "newton_schulz_first_polynomial": [{"M": 3, "R": 130}, {"M": 40, "R": 72}],
    "sum_of_squares": [{"K": 256, "P": 100_003}, {"K": 7, "P": 3}],
    "gradient_norm": [{"K": 1}, {"K": 256}],
}
# forward: one row with so many outputs that a wave computes several of them
MANY_OUTPUTS = [(1, 40, 16387), (1, 33, 16390)]
# backward_weight: so many products of a single term that some round as badly as they can
SINGLE_TERMS = [(1, 33, 16390)]
LARGE |= {
    name: [
        dict(zip("NCO", sizes, strict=True))
        for sizes in MATMUL
        + (MANY_OUTPUTS if name.endswith("forward") else [])
        + (SINGLE_TERMS if name.endswith("backward_weight") else [])
    ]
    for name in CATALOGUE
    if name.startswith("matmul")
}
# products of more than one tile, ragged: in f32 tiles of 64 and of 128 a side; in bf16 pieces of these sides, and sums
# cut into parts
TILES = {
    DType.F32: {
        "matmul_forward": [{"N": 1030, "C": 24, "O": 1032}, {"N": 2050, "C": 40, "O": 2056}],
        "matmul_backward_input": [{"N": 1030, "C": 1032, "O": 24}, {"N": 2050, "C": 2056, "O": 40}],
        "matmul_backward_weight": [{"N": 24, "C": 1030, "O": 1032}, {"N": 40, "C": 2056, "O": 2050}],
    },
    DType.BF16: {
        "matmul_forward": [{"N": 520, "C": 72, "O": 520}, {"N": 2050, "C": 40, "O": 2056}],
        "matmul_backward_input": [{"N": 520, "C": 520, "O": 72}, {"N": 2050, "C": 2056, "O": 40}],
        "matmul_backward_weight": [{"N": 1030, "C": 264, "O": 264}, {"N": 1030, "C": 520, "O": 2056}],
    },
}
# persistent blocks: more tiles than an H100 computes at once, and few tiles whose sums are cut
PERSISTENT = {
    "forward": [{"N": 2056, "C": 328, "O": 2312}],
    "backward_input": [{"N": 2056, "C": 2312, "O": 328}],
    "backward_weight": [{"N": 328, "C": 2056, "O": 2312}, {"N": 8200, "C": 264, "O": 520}],
}
for _name in CATALOGUE:
    if _name.startswith("matmul"):
        _added = next(sizes for end, sizes in PERSISTENT.items() if _name.endswith(end))
        TILES[DType.BF16][_name] = TILES[DType.BF16].get(_name, []) + _added
# matrices as one tall product: more tiles than an H100 computes at once, several of each matrix
STACKED = {
    "newton_schulz_gram": [{"M": 17, "R": 512, "L": 768}],
    "newton_schulz_polynomial": [{"M": 17, "R": 512}],
    "newton_schulz_step": [{"M": 17, "R": 512, "L": 768}],
}
TILES[DType.BF16] |= STACKED
HOPPERS = [sizes for listed in (*PERSISTENT.values(), *STACKED.values()) for sizes in listed]
SCALARS = {"epsilon": 1e-5, "drop_probability": 0.3, "stream": 5, "first_quad": 9, "scale": 0.37,
           "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "clip_norm": 1.7, "decayed": 20,
           "accumulation_steps": 3, "base": 1e4, "queries": 2}  # fmt: skip
DTYPES = {dtype.label: dtype for dtype in DType}
GARBAGE = np.uint32(0x7FC0BEEF)  # a NaN in f32, an unlikely number in i32 and in every other bf16


@dataclass(frozen=True, eq=False)  # hashable, by identity
class Case:
    """An op at given sizes; absent: the optional arguments that are None; act: the dtype of activations."""

    op: Op
    sizes: dict[str, int]
    absent: tuple[str, ...] = ()
    act: DType = DType.F32

    @property
    def is_for_hopper(self) -> bool:
        """Whether only Hopper's kernels have code that no smaller case reaches."""
        return self.sizes in HOPPERS

    def __str__(self) -> str:
        sizes = ",".join(f"{name}{size}" for name, size in self.sizes.items())
        return "-".join([self.op.name, self.act.label, sizes, *(f"no_{name}" for name in self.absent)])


def cases(act: DType = DType.F32) -> Iterator[Case]:
    """Yield every op of the catalogue at sizes of one, awkward and large, with and without optional arguments.

    In another dtype than f32 only those that have to do with activations.
    """
    for op in CATALOGUE.values():
        if act is not DType.F32 and all(argument.dtype != "act" for argument in op.arguments):
            continue
        rotations = [AWKWARD[i:] + AWKWARD[:i] for i in range(3)]
        sizes = [dict(zip(op.dimensions, rotation, strict=False)) for rotation in rotations]
        sizes += LARGE.get(op.name, [{op.dimensions[0]: 12_293}] if len(op.dimensions) == 1 else [])
        sizes += TILES[act].get(op.name, [])
        optional = tuple(argument.name for argument in op.arguments if argument.optional)
        for case in [dict.fromkeys(op.dimensions, 1), *sizes]:
            if {"S", "T"} <= set(case):
                case["T"] = max(case["T"], case["S"])  # a sequence fits the context
            if op.name == "build_batch":
                case["T"] = max(case["T"], case["S"] + 1)  # and the target after the last token
            if op.name == "output_layer_training":
                case = case | {"W": cpu.output_layer_workspace(case, act)}
            if {"R", "O"} <= set(op.dimensions):
                case["R"], case["L"] = sorted((case["O"], case["C"]))
            if op.name == "newton_schulz_step":
                case["R"], case["L"] = sorted((case["R"], case["L"]))
            if op.family == "rotary":
                case["D"] += case["D"] % 2
            if {"G", "H"} <= set(op.dimensions):  # one key for all queries, or one for each
                case["G"] = case["H"] + 2 * (case["H"] if case["B"] % 3 else 1)
            if op.name.startswith("head_norm"):
                case["G"] = SCALARS["queries"] + 2 + case["G"] // 2 * 2
            if op.name.startswith(("rmsnorm_backward", "head_norm_backward")):
                case["K"] = min(case["K"], case["N"])
            if op.name == "layernorm_backward":
                case["K"] = min(case["K"], case["N"])
            yield Case(op, case, act=act)
            if optional:
                yield Case(op, case, optional, act)


def draw(case: Case, seed: int = 1) -> dict[str, np.ndarray | None]:
    """Return a value for each tensor before the call, `out` ones garbage; the same for the same case and seed."""
    random = np.random.default_rng([seed, *case.sizes.values()])
    values = {a.name: _draw(a, case, random) for a in case.op.arguments}
    if case.op.name in ("attention_backward", "attention_short_backward"):  # probabilities, so that they stay below 1
        forward = reference.evaluate(CATALOGUE["attention_forward"], {"qkv": values["qkv"]}, case.sizes, {}, case.act)
        values["logsumexp"] = forward["logsumexp"].value.astype(np.float32)
    if (
        case.op.name == "output_layer_training"
    ):  # every other target is the most probable token, for some with probability 1
        x, weight = (values[name].astype(np.float32) for name in ("x", "weight"))
        values["targets"][::2] = (x @ weight.T).argmax(1)[::2]
    return values


def _draw(argument: Argument, case: Case, random: np.random.Generator) -> np.ndarray | None:
    shape = tuple(int(size) if size.isdigit() else case.sizes[size] for size in argument.shape)
    if argument.name in case.absent:
        return None
    dtype = (case.act if argument.dtype == "act" else DType(DTYPES[argument.dtype])).numpy
    if argument.access in ("out", "scratch"):
        return garbage(math.prod(shape), dtype).reshape(shape)
    special = SPECIAL.get((case.op.name, argument.name))
    values = special(random, shape, case.sizes) if special else plain(random, shape, argument.dtype)
    return values.astype(dtype)


def garbage(elements: int, dtype: np.dtype) -> np.ndarray:
    """Return (elements,) of GARBAGE's bytes."""
    return np.full(elements, GARBAGE).view(dtype)[:elements]


class Memory:
    """The tensors of a call, each between two stretches of garbage that nothing may read or write.

    guard: elements of each stretch. With 0 a tensor fills its memory, so that tools that check accesses to memory
    (tests/support/fakehip, compute-sanitizer) see the first byte beyond it.
    """

    def __init__(
        self, device: Device, case: Case, values: dict[str, np.ndarray | None], guard: int = ALIGNMENT_ELEMENTS
    ):
        self.device, self.case, self.tensors, self._whole, self._guard = device, case, [], {}, guard
        for argument in case.op.arguments:
            self.tensors.append(self._place(argument.name, values[argument.name]))

    def _place(self, name: str, values: np.ndarray | None) -> Tensor | None:
        if values is None:
            return None
        dtype = next(dtype for dtype in DType if dtype.numpy == values.dtype)
        elements, guard = values.size, self._guard
        address, owner = self.device.allocate((elements + 2 * guard) * dtype.size_bytes)
        whole = Tensor(name, (elements + 2 * guard,), dtype, address, owner)
        contents = garbage(elements + 2 * guard, dtype.numpy)
        contents[guard : guard + elements] = values.ravel()
        self.device.write(whole, contents)
        self._whole[name] = whole
        return whole.rows(guard, guard + elements).view(*values.shape)

    def run(self) -> dict[str, np.ndarray]:
        """Run the op once; return every tensor afterwards."""
        plan = Plan(self.device, "test", [tensor for tensor in self.tensors if tensor], self.case.act)
        plan(self.case.op, *self.tensors, **{name: SCALARS[name] for name, _ in self.case.op.scalars})
        plan.run()
        names = [argument.name for argument in self.case.op.arguments]
        return {n: self.device.read(t) for n, t in zip(names, self.tensors, strict=True) if t}

    def surroundings(self) -> np.ndarray:
        """Return the 16-bit words around all tensors, each half of GARBAGE unless a kernel wrote there."""
        guard = self._guard
        contents = [self.device.read(whole) for whole in self._whole.values()]
        sides = [np.ascontiguousarray(side) for whole in contents for side in (whole[:guard], whole[-guard:])]
        return np.concatenate([side.view(np.uint16) for side in sides])
