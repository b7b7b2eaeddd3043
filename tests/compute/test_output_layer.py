"""The output layer in two launches: the bounds of its results, the same bytes again, and how blocks divide the work."""

import functools
import math

import numpy as np
import pytest
from support import reference
from support.calls import GARBAGE, SCALARS, Case, Memory, draw
from support.rounding import accumulated

from hipgpt.compute.backends.output_layer import TILE
from hipgpt.compute.backends.variants import find_variant, is_served
from hipgpt.compute.fused_ops import OUTPUT_LAYER_LOSS, OUTPUT_LAYER_WEIGHT
from hipgpt.compute.tensor import DType

OPS = OUTPUT_LAYER_LOSS, OUTPUT_LAYER_WEIGHT
S1 = {"N": 2048, "C": 128, "V": 5000}
SIZES = (  # whole and ragged tiles; blocks that visit more tiles than they have memory for; clusters of 1 to 8
    S1, {"N": 1024, "C": 64, "V": 1024}, {"N": 1030, "C": 64, "V": 1160}, {"N": 3001, "C": 128, "V": 1087},
    {"N": 8452, "C": 64, "V": 1024}, {"N": 1027, "C": 128, "V": 8584},
    {"N": 1024, "C": 64, "V": 1025},  # a block visits one logit only, which is the target of some tokens
)  # fmt: skip
NO_BIAS = {OUTPUT_LAYER_LOSS: ("bias",), OUTPUT_LAYER_WEIGHT: ("bias", "dbias")}
CASES = [Case(op, sizes, absent, DType.BF16) for sizes in SIZES for op in OPS for absent in ((), NO_BIAS[op])]
LOSSES = [case for case in CASES if case.op is OUTPUT_LAYER_LOSS and not case.absent]
LOGITS = "plain", "rising", "equal"
NOT_SERVED = ("sm_90a", DType.F32), ("sm_80", DType.BF16), ("sm_120", DType.BF16), ("gfx942", DType.BF16)
EQUAL = 1e4  # the most that all logits are


def on_an_nvidia_gpu(cases: list[Case], logits: tuple[str, ...]) -> pytest.MarkDecorator:
    """Run a test with every case and every kind of logits."""
    return pytest.mark.parametrize(
        ("device", "case", "logits"),
        [
            pytest.param("cuda", case, kind, marks=pytest.mark.gpu, id=f"cuda-{case}-{kind}")
            for case in cases
            for kind in logits
        ],
        indirect=["device"],
        scope="module",
    )


def borders(V: int) -> np.ndarray:
    """Return the first and the last row of each tile of the weight."""
    first = np.arange(0, V, TILE)
    return np.concatenate([first, np.minimum(first + TILE, V) - 1])


@functools.lru_cache(maxsize=1)
def drawn(case: Case, logits: str = "plain") -> dict[str, np.ndarray | None]:
    """Return a value for each tensor before the call.

    Targets are at the borders of tiles, some others the most probable token. logits: "rising" ones are at times far
    above those before them; "equal" ones are all alike, and large.
    """
    values, sizes = draw(case), case.sizes
    x, weight, bias = values["x"], values["weight"], values["bias"]
    weight[:] = weight.astype(np.float32) / math.sqrt(sizes["C"])
    if logits == "rising":
        weight[::97] *= np.linspace(2, 30, len(weight[::97]))[:, None].astype(weight.dtype)
    if logits == "equal":
        x[:], weight[:] = 1, EQUAL / sizes["C"]
        if bias is not None:
            bias[:] = 1
    products = x.astype(np.float32) @ weight.T.astype(np.float32)
    targets = values["targets"] = products.argmax(1).astype(np.int32)
    random = np.random.default_rng(1)
    targets[::2] = random.integers(sizes["V"], size=len(targets[::2]))
    at = borders(sizes["V"])
    targets[: len(at)] = at
    if case.op is OUTPUT_LAYER_WEIGHT:
        given = {name: values[name] for name in ("x", "weight", "bias", "targets")}
        statistics = reference.evaluate(OUTPUT_LAYER_LOSS, given, sizes, SCALARS, case.act)
        for name in ("logsumexp", "not_target"):
            values[name] = statistics[name].value.astype(np.float32)
    return values


def run(device, case: Case, logits: str, guard: int | None = None) -> tuple[Memory, dict[str, np.ndarray]]:
    """Return a call's memory and its values afterwards. Skips where the device has no such op."""
    if not device.traits.workspace(OUTPUT_LAYER_LOSS, case.sizes, case.act):
        pytest.skip(f"{device.name} has no output layer in two launches for {case}")
    memory = Memory(device, case, drawn(case, logits), **({} if guard is None else {"guard": guard}))
    return memory, memory.run()


def expected(case: Case, logits: str = "plain") -> dict:
    return reference.evaluate(case.op, drawn(case, logits), case.sizes, SCALARS, case.act)


@on_an_nvidia_gpu(CASES, LOGITS)
def test_results_lie_within_their_derived_bounds(device, case, logits):
    _, got = run(device, case, logits)
    for name, target in expected(case, logits).items():
        error = np.abs(got[name].astype(np.float64) - target.value)
        assert (error <= target.error).all(), f"{name}: error {error.max():.3g}, bound {target.error.max():.3g}"


@on_an_nvidia_gpu(LOSSES, ("equal",))
def test_equal_logits_give_every_token_the_same_probability(device, case, logits):
    """In numbers: the bound of the other test grows with the logits' magnitude, although these logits are exact."""
    _, got = run(device, case, logits)
    V, relative = case.sizes["V"], accumulated(case.sizes["V"])  # roundings of the total
    assert (np.abs(got["losses"] - math.log(V)) <= relative).all()
    assert (np.abs(got["not_target"] - (1 - 1 / V)) <= relative).all()
    # dx is a sum that cancels but for the rounding of exponentials to bf16
    rounding = SCALARS["scale"] * EQUAL / case.sizes["C"] * case.act.unit_roundoff
    assert np.abs(got["dx"].astype(np.float64)).max() <= rounding


@on_an_nvidia_gpu(CASES, ("plain",))
def test_only_the_results_are_written(device, case, logits):
    memory, _ = run(device, case, logits)
    assert set(memory.surroundings()) == set(np.array([GARBAGE]).view(np.uint16))
    _, after = run(device, case, logits, guard=0)
    for argument in case.op.arguments:
        if not argument.writes and argument.name not in case.absent:
            assert after[argument.name].tobytes() == drawn(case, logits)[argument.name].tobytes(), argument.name


@on_an_nvidia_gpu(CASES, ("plain",))
def test_the_same_bytes_come_again(device, case, logits):
    (_, first), (_, second) = run(device, case, logits), run(device, case, logits)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize("case", [case for case in CASES if case.sizes in SIZES[1:4]], ids=str)
def test_bounds_are_a_small_part_of_the_results(case):
    for name, target in expected(case).items():
        assert (target.error < 2**4 * case.act.unit_roundoff * max(1.0, np.abs(target.value).max())).all(), name


@pytest.mark.parametrize(
    ("sizes", "loss", "weight"),
    [
        pytest.param(S1, (6, 16), (2, 40), id="S1"),
        pytest.param(S1 | {"N": 32768}, (1, 256), (2, 40), id="S1b, whose tokens fill the GPU"),
        pytest.param(S1 | {"N": 1030, "V": 1032}, (5, 9), (2, 9), id="few rows of both"),
    ],
)
def test_clusters_divide_what_few_blocks_own(sizes, loss, weight):
    for op, (blocks, owned_tiles) in zip(OPS, (loss, weight), strict=True):
        row = find_variant(op, "sm_90a", DType.BF16, sizes)
        ((grid, _), _), *more = row.launches(op, sizes, 32, workspace=None)
        assert (row.macros, grid, more) == ({"CHANNELS": 128, "CLUSTER": blocks}, (blocks * owned_tiles, 1, 1), [])


@pytest.mark.parametrize(
    ("sizes", "served"),
    [
        pytest.param(S1, True, id="S1"),
        pytest.param(S1 | {"N": 2047, "C": 64, "V": 5003}, True, id="any number of tokens, any vocabulary"),
        pytest.param(S1 | {"C": 96}, False, id="96 channels"),
        pytest.param(S1 | {"C": 256}, False, id="256 channels"),
        pytest.param(S1 | {"N": 992}, False, id="tokens for less than half of the GPU"),
        pytest.param(S1 | {"V": 1016}, False, id="a vocabulary for less than half of the GPU"),
    ],
)
def test_these_sizes_are_served(sizes, served):
    assert all(is_served(op, "sm_90a", DType.BF16, sizes) is served for op in OPS)
    assert not any(is_served(op, arch, act, sizes) for op in OPS for arch, act in NOT_SERVED)
