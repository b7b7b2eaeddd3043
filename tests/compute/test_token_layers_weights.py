"""The gradients of several layers' weights in one launch: the bounds of each, and how its GEMMs share the clusters."""

import functools

import numpy as np
import pytest
from support import reference
from support.calls import Case, Memory, draw

from hipgpt.compute.backends.variants import find_variant
from hipgpt.compute.catalogue import MATMUL_BACKWARD_WEIGHT
from hipgpt.compute.fused_ops import TOKEN_LAYERS_BACKWARD, TOKEN_LAYERS_WEIGHTS
from hipgpt.compute.tensor import DType

GEMMS = {  # gradients of a weight and a bias: their factors
    ("dmlp_out", "dmlp_out_bias"): ("dy", "active"),
    ("dmlp_in", "dmlp_in_bias"): ("dhidden", "mlp_norm"),
    ("dprojection", "dprojection_bias"): ("dmiddle", "attention"),
    ("dqkv_weight", "dqkv_bias"): ("dqkv", "norm"),
}
NO_NEXT_BLOCK = "dqkv_weight", "dqkv_bias", "dqkv", "norm"
SIZES = (  # C, F, N; two of them are not cut along N
    (128, 128, 128), (128, 256, 2048), (128, 512, 640), (256, 256, 128), (256, 1024, 8192), (256, 2048, 1152),
)  # fmt: skip
CASES = [
    Case(TOKEN_LAYERS_WEIGHTS, {"C": C, "F": F, "Q": 0 if absent else 3 * C, "N": N}, absent, DType.BF16)
    for C, F, N in SIZES
    for absent in ((), NO_NEXT_BLOCK)
]
on_a_hopper = pytest.mark.parametrize(
    ("device", "case"),
    [pytest.param("cuda", case, marks=pytest.mark.gpu, id=str(case)) for case in CASES],
    indirect=["device"],
    scope="module",
)
drawn = functools.lru_cache(maxsize=1)(draw)


def run(device, case: Case) -> dict[str, np.ndarray | None]:
    if TOKEN_LAYERS_BACKWARD not in device.traits.workspaces:
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
        for name, target in ((dweight, expected["dweight"]), (dbias, expected["dbias"])):
            error = np.abs(got[name].astype(np.float64) - target.value)
            assert (error <= target.error).all(), f"{name}: error {error.max():.3g}, bound {target.error.max():.3g}"


@on_a_hopper
def test_the_same_bytes_come_again(device, case):
    first, second = run(device, case), run(device, case)
    for names in GEMMS:
        for name in names:
            assert first[name] is None or first[name].tobytes() == second[name].tobytes()


@pytest.mark.parametrize(
    ("sizes", "tiles", "slices"),
    [
        pytest.param({"C": 256, "F": 1024, "Q": 768, "N": 8192}, 12, 5, id="66 clusters have 5 slices of 12 tiles"),
        pytest.param({"C": 256, "F": 1024, "Q": 0, "N": 8192}, 9, 7, id="no next block"),
        pytest.param({"C": 128, "F": 256, "Q": 384, "N": 2048}, 5, 4, id="tiles that are filled in part"),
        pytest.param({"C": 256, "F": 1024, "Q": 768, "N": 1024}, 12, 1, id="too few terms to be cut"),
    ],
)
def test_every_slice_of_every_tile_has_a_cluster(sizes, tiles, slices):
    row = find_variant(TOKEN_LAYERS_WEIGHTS, "sm_90a", DType.BF16, sizes)
    launches = row.launches(TOKEN_LAYERS_WEIGHTS, sizes, 32, workspace=None)
    (blocks, _, _), _ = launches[0][0]
    assert (row.schedule.slices(TOKEN_LAYERS_WEIGHTS, sizes), blocks) == (slices, 2 * tiles * slices)
    assert len(launches) == (2 if slices > 1 else 1)
