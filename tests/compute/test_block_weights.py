"""The gradients of a block's weights in one launch: the bounds of each, and how its GEMMs share the clusters."""

import functools

import numpy as np
import pytest
from support import reference
from support.calls import Case, Memory, draw

from hipgpt.compute.backends.variants import find_variant, is_served
from hipgpt.compute.catalogue import MATMUL_BACKWARD_WEIGHT
from hipgpt.compute.fused_ops import BLOCK_WEIGHTS
from hipgpt.compute.tensor import DType

GEMMS = {  # gradients of a weight and a bias: their factors
    ("dmlp_out", "dmlp_out_bias"): ("dy", "active"),
    ("dmlp_in", "dmlp_in_bias"): ("dhidden", "mlp_norm"),
    ("dprojection", "dprojection_bias"): ("dmiddle", "attention"),
    ("dqkv_weight", "dqkv_bias"): ("dqkv", "norm"),
}
NO_NEXT_BLOCK = "dqkv_weight", "dqkv_bias", "dqkv", "norm"
SIZES = (  # C, F, G, A, Q, N: cut along N and not, one round of the clusters and several, tiles filled in part
    (128, 128, 128, 128, 384, 128), (128, 256, 256, 128, 384, 2048), (128, 512, 512, 128, 384, 640),
    (256, 1024, 1024, 256, 768, 8192), (256, 2048, 2048, 256, 768, 1152), (768, 3072, 3072, 768, 2304, 1024),
    (1288, 2064, 4128, 1288, 2576, 136),
)  # fmt: skip
NO_BIASES = "dmlp_out_bias", "dmlp_in_bias", "dprojection_bias", "dqkv_bias"
CASES = [
    Case(
        BLOCK_WEIGHTS,
        dict(zip("CFGAQN", sizes, strict=True)) | ({"Q": 0} if absent is NO_NEXT_BLOCK else {}),
        absent,
        DType.BF16,
    )
    for sizes in SIZES
    for absent in ((), NO_NEXT_BLOCK, NO_BIASES)
]
on_a_hopper = pytest.mark.parametrize(
    ("device", "case"),
    [pytest.param("cuda", case, marks=pytest.mark.gpu, id=f"cuda-{case}") for case in CASES],
    indirect=["device"],
    scope="module",
)
drawn = functools.lru_cache(maxsize=1)(draw)


def run(device, case: Case) -> dict[str, np.ndarray | None]:
    if not device.traits.workspaces[BLOCK_WEIGHTS](case.sizes, case.act):
        pytest.skip(f"{device.name} has no op for these weights together")
    return Memory(device, case, drawn(case)).run()


@on_a_hopper
def test_each_gradient_lies_within_the_bound_of_its_gemm(device, case):
    before, got = drawn(case), run(device, case)
    for (dweight, dbias), (dy, x) in GEMMS.items():
        if before[dy] is None:
            continue
        tensors = {"dweight": before[dweight], "dbias": before[dbias], "dy": before[dy], "x": before[x]}
        expected = reference.evaluate(MATMUL_BACKWARD_WEIGHT, tensors, {}, {}, case.act)
        for name, of in ((dweight, "dweight"), (dbias, "dbias")):
            if before[name] is None:
                continue
            target = expected[of]
            error = np.abs(got[name].astype(np.float64) - target.value)
            assert (error <= target.error).all(), f"{name}: error {error.max():.3g}, bound {target.error.max():.3g}"


@on_a_hopper
def test_the_same_bytes_come_again(device, case):
    first, second = run(device, case), run(device, case)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize(
    ("sizes", "tiles", "slices"),
    [
        pytest.param((256, 1024, 1024, 256, 768, 8192), 12, 5, id="one slice of a tile for each of 66 clusters"),
        pytest.param((256, 1024, 1024, 256, 0, 8192), 9, 7, id="without a layer qkv"),
        pytest.param((128, 256, 256, 128, 384, 2048), 5, 4, id="tiles that are filled in part"),
        pytest.param((256, 1024, 1024, 256, 768, 1024), 12, 1, id="too few terms to be cut"),
        pytest.param((1024, 4096, 4096, 1024, 3072, 8192), 192, 1, id="several rounds of the clusters"),
    ],
)
def test_slices_of_tiles_fill_the_clusters(sizes, tiles, slices):
    sizes = dict(zip("CFGAQN", sizes, strict=True))
    row = find_variant(BLOCK_WEIGHTS, "sm_90a", DType.BF16, sizes)
    launches = row.launches(BLOCK_WEIGHTS, sizes, 32, workspace=None)
    (blocks, _, _), _ = launches[0][0]
    assert (row.schedule.slices(BLOCK_WEIGHTS, sizes), blocks) == (slices, 2 * min(tiles * slices, 66))
    assert len(launches) == (2 if slices > 1 else 1)


@pytest.mark.parametrize(
    ("sizes", "is_one"),
    [
        pytest.param((256, 1024, 1024, 256, 768, 8192), True, id="between token layers, all slices at once"),
        pytest.param((256, 1024, 2048, 256, 768, 8192), False, id="a Llama, where the next launch waits"),
        pytest.param((384, 1536, 1536, 384, 1152, 8192), False, id="tiles for some of the clusters"),
        pytest.param((1024, 4096, 4096, 1024, 3072, 8192), True, id="tiles for all clusters"),
        pytest.param((768, 3072, 3072, 768, 2304, 32768), False, id="slices in several rounds"),
        pytest.param((1024, 4096, 4096, 1024, 3072, 8191), False, id="rows that 8 does not divide"),
    ],
)
def test_one_launch_serves_where_it_is_faster(sizes, is_one):
    assert is_served(BLOCK_WEIGHTS, "sm_90a", DType.BF16, dict(zip("CFGAQN", sizes, strict=True))) is is_one
