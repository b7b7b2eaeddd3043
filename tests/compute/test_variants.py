"""Which kernels serve which chip: matrix instructions where it has some, SIMT kernels on every other GPU."""

import itertools

import pytest

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.variants import (
    VARIANTS,
    WIDEST_CHANNELS,
    find_variant,
    has_matrix_units,
    is_served,
    variants_of,
)
from hipgpt.compute.catalogue import CATALOGUE, ON_GPUS
from hipgpt.compute.fused_ops import ATTENTION_SHORT_BACKWARD as SHORT
from hipgpt.compute.tensor import DType

WITH_MMA = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1200", "gfx1201", "sm_80", "sm_90a", "sm_120")
WITHOUT = ("gfx900", "gfx906", "gfx1030", "sm_61", "sm_70", "sm_75", "gfx1170", "gfx1250",
           "gfx9999")  # fmt: skip
ATTENTION = [op for op in CATALOGUE.values() if op.family == "attention"]


def served_by(name: str, arch: str, act: DType = DType.BF16, size: int = 48, **sizes: int) -> str:
    op = CATALOGUE[name]
    return find_variant(op, arch, act, dict.fromkeys(op.dimensions, size) | sizes).source_of(op)


@pytest.mark.parametrize("arch", WITHOUT)
def test_simt_kernels_serve_every_op_of_a_gpu_without_known_matrix_units(arch):
    assert not has_matrix_units(arch)
    for op, act in itertools.product(ON_GPUS.values(), (DType.F32, DType.BF16)):
        assert served_by(op.name, arch, act) == f"gpu/{op.family}.hip"


@pytest.mark.parametrize("arch", WITH_MMA)
def test_mma_serves_gemms_and_attention_in_bf16(arch):
    assert has_matrix_units(arch)
    for name in ("matmul_forward", "matmul_activation_backward_input", "attention_forward", "attention_backward"):
        assert served_by(name, arch).endswith(("_mma.hip", "_short.hip", "_amd.hip"))
        assert not served_by(name, arch, DType.F32).endswith(("_mma.hip", "_amd.hip"))


@pytest.mark.parametrize("arch", [*WITH_MMA, *WITHOUT])
def test_what_only_the_cpu_has_is_not_served_on_a_gpu(arch):
    for name in set(CATALOGUE) - set(ON_GPUS):
        assert served_by(name, "cpu", DType.F32) == f"cpu/{CATALOGUE[name].family}.cpp"
        with pytest.raises(LookupError, match=f"{name}: no variant for architecture {arch}"):
            served_by(name, arch)


@pytest.mark.parametrize("arch", [*WITH_MMA, *WITHOUT])
def test_heads_of_up_to_256_channels_are_served_at_any_length(arch):
    for op, channels, length in itertools.product(ATTENTION, range(8, 257, 8), (1, 33, 1000)):
        source = served_by(op.name, arch, D=channels, S=length)
        assert source == "gpu/attention.hip" or channels <= 128


@pytest.mark.parametrize("op", ATTENTION, ids=lambda op: op.name)
def test_a_wider_head_is_refused_on_a_gpu_and_served_by_the_cpu(op):
    wider = WIDEST_CHANNELS + 8
    for arch, act in itertools.product(("gfx1100", "gfx900"), (DType.F32, DType.BF16)):
        with pytest.raises(UserError, match=f"{op.name}: heads of 264 channels.*up to 256: raise model.num_heads"):
            served_by(op.name, arch, act, D=wider)
    assert served_by(op.name, "cpu", DType.F32, D=wider) == "cpu/attention.cpp"


@pytest.mark.parametrize(
    ("arch", "V", "source"),
    [
        ("sm_90a", 5000, "cross_entropy"), ("sm_90a", 50304, "cross_entropy_tma"),
        ("sm_90a", 50257, "cross_entropy_large"), ("sm_90a", 128000, "cross_entropy_large"),
        ("sm_80", 50304, "cross_entropy_large"),
    ],
)  # fmt: skip
def test_a_row_of_logits_in_shared_memory_is_aligned_and_leaves_room_for_another(arch, V, source):  # noqa: N803
    assert served_by("cross_entropy_training", arch, V=V) == f"gpu/{source}.hip"


def test_attention_backward_on_hopper_takes_heads_of_64_channels_by_the_copy_engine():
    sizes = {"B": 1, "H": 2}
    assert (
        served_by("attention_backward", "sm_90a", DType.BF16, **sizes, S=132, D=64) == "gpu/attention_backward_tma.hip"
    )
    for others in ({"S": 130, "D": 64}, {"S": 124, "D": 64}, {"S": 132, "D": 128}):
        assert served_by("attention_backward", "sm_90a", DType.BF16, **sizes, **others) == "gpu/attention_mma.hip"


@pytest.mark.parametrize(
    ("arch", "longest"),
    [
        pytest.param("sm_90a", {32: 256, 64: 127}, id="two blocks of a Hopper"),
        pytest.param("sm_80", {32: 224, 64: 127}, id="a block of every chip"),
        pytest.param("sm_75", {32: 0, 64: 0}, id="a chip without bf16"),
    ],
)
def test_attention_of_short_sequences_takes_heads_that_fit_shared_memory(arch, longest):
    for channels, length in longest.items():
        sizes = {"B": 2, "H": 3, "D": channels}
        assert [S for S in range(1, 300) if is_served(SHORT, arch, DType.BF16, sizes | {"S": S})] == [
            *range(1, length + 1)
        ]
        assert not is_served(SHORT, arch, DType.F32, sizes | {"S": 16})


def test_attention_of_short_sequences_takes_channels_of_whole_vectors():
    served = [D for D in range(1, 129) if is_served(SHORT, "sm_90a", DType.BF16, {"B": 2, "S": 64, "H": 3, "D": D})]
    assert served == [*range(8, 65, 8)]


def test_every_row_is_listed_for_some_chip():
    """Compilers and checks of code objects go through `variants_of`; the ops of fused_ops are not in the CATALOGUE."""
    archs = (*WITH_MMA, "sm_75", "cpu-amx", "cpu-avx512bf16", "cpu-avx2")

    def name(row):  # the same for a row and for its copies for some sizes
        return row.op, row.arch, row.dtype, row.source, *(() if row.for_sizes else row.macros.items())

    listed = {
        name(row)
        for op in CATALOGUE.values()
        for act in (DType.F32, DType.BF16)
        for arch in archs
        if op.name in ON_GPUS or arch.startswith("cpu")
        for row in variants_of(op, arch, act)
    }
    fused = ["decode_blocks", "decode_tokens", "token_layers_(forward|backward)", "block_weights"]
    fused += ["output_layer_loss", "output_layer_weight"]
    assert [row.op for row in VARIANTS if name(row) not in listed] == [*fused, *["attention_short_backward"] * 2]
