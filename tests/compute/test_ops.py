"""Every op of the catalogue on every device, at awkward sizes, compared with float64 formulas and derived bounds."""

import functools

import numpy as np
import pytest
from support import reference
from support.calls import GARBAGE, SCALARS, Case, Memory, cases, draw
from support.devices import DEVICES, splits_f32
from support.rounding import Rounded
from support.special_values import SPECIAL

from hipgpt.compute.backends.cpu import CpuDevice, output_layer_workspace
from hipgpt.compute.catalogue import CATALOGUE, ON_GPUS
from hipgpt.compute.contract import op
from hipgpt.compute.open_device import open_device
from hipgpt.compute.tensor import DType

CASES = {act: list(cases(act)) for act in (DType.F32, DType.BF16)}
EVERY = [case for listed in CASES.values() for case in listed]
ON_CPUS = [case for case in EVERY if not case.is_for_hopper]
FOR_HOPPER = [pytest.param(case, marks=pytest.mark.gpu) for case in EVERY if case.is_for_hopper]
# scope: the tests of a case run one after the other, so that its values, its reference and a run are made once
every_case = pytest.mark.parametrize("case", [*ON_CPUS, *FOR_HOPPER], ids=str, scope="module")
every_case_of_cpus = pytest.mark.parametrize("case", ON_CPUS, ids=str, scope="module")
every_case_of_every_device = pytest.mark.parametrize(
    ("device", "case"),
    [
        pytest.param(name, case, marks=marks, id=f"{name}-{case}")
        for name, (acts, marks) in DEVICES.items()
        for act in acts
        for case in (ON_CPUS if name == "cpu" else EVERY)
        if case.act is act and (name == "cpu" or case.op.name in ON_GPUS)
    ],
    indirect=["device"],
    scope="module",
)
drawn = functools.lru_cache(maxsize=1)(draw)
STEPS = {("matmul_relu_forward", "slope")}  # results that jump where rounding decides the sign of a sum


@functools.lru_cache(maxsize=1)
def expected(case: Case, split: bool) -> dict[str, Rounded | np.ndarray]:
    return reference.evaluate(case.op, drawn(case), case.sizes, SCALARS, case.act, split)


@functools.lru_cache(maxsize=1)
def after(device: str, case: Case) -> dict[str, np.ndarray]:
    """Return the tensors after a run in which each fills its memory."""
    return Memory(open_device(device, threads=2), case, drawn(case), guard=0).run()


@every_case_of_every_device
def test_result_lies_within_its_derived_bound(device, case):
    got = after(device.backend, case)
    for name, target in expected(case, splits_f32(device, case)).items():
        if isinstance(target, Rounded):
            error = np.abs(got[name].astype(np.float64) - target.value)
            assert (error <= target.error).all(), f"{name}: error {error.max():.3g}, bound {target.error.max():.3g}"
        else:
            np.testing.assert_array_equal(got[name], target)


@every_case
def test_bound_is_a_small_part_of_the_result(case):
    for name, target in expected(case, False).items():
        if isinstance(target, Rounded):
            part = 1e-2 if case.act is DType.F32 else 2**4 * case.act.unit_roundoff
            small = target.error < part * max(1.0, np.abs(target.value).max())
            assert small.mean() > 0.99 if (case.op.name, name) in STEPS else small.all(), name


@every_case
def test_reference_defines_every_output(case):
    written = {a.name for a in case.op.arguments if a.leaves_values and a.name not in case.absent}
    assert set(expected(case, False)) == written


@every_case_of_every_device
def test_inputs_stay_unchanged(device, case):
    values, got = drawn(case), after(device.backend, case)
    for argument in case.op.arguments:
        if not argument.writes and argument.name not in case.absent:
            assert got[argument.name].tobytes() == values[argument.name].tobytes(), argument.name


@every_case_of_every_device
def test_nothing_outside_the_tensors_is_read_or_written(device, case):
    memory = Memory(device, case, drawn(case))
    got, alone = memory.run(), after(device.backend, case)
    assert set(memory.surroundings()) == set(np.array([GARBAGE]).view(np.uint16))
    for argument in case.op.arguments:
        if argument.leaves_values and argument.name not in case.absent:
            assert got[argument.name].tobytes() == alone[argument.name].tobytes(), argument.name


@every_case_of_cpus
def test_results_do_not_depend_on_the_number_of_threads(case):
    others = [Memory(CpuDevice(threads), case, drawn(case)).run() for threads in (1, 3, 5)]
    for name, target in after("cpu", case).items():
        assert all(other[name].tobytes() == target.tobytes() for other in others), name


@pytest.mark.parametrize("act", [DType.F32, DType.BF16])
@pytest.mark.parametrize(("name", "sizes"), [
    ("matmul_forward", {"N": 2100, "O": 530, "C": 1100}),  # blocks of 512 or 1,032 rows, 256 columns
    ("matmul_backward_weight", {"O": 1100, "C": 530, "N": 2100}),
    ("output_layer_training", {"N": 1100, "C": 2080, "V": 70}),  # blocks of 224 tokens
])  # fmt: skip
def test_several_blocks_of_each_thread(name, sizes, act):
    if name == "output_layer_training":
        sizes = sizes | {"W": output_layer_workspace(sizes, act)}
    case = Case(CATALOGUE[name], sizes, (), act)
    alone, *others = (Memory(CpuDevice(threads), case, drawn(case)).run() for threads in (1, 2, 3))
    for output, target in expected(case, splits_f32(CpuDevice(1), case)).items():
        assert (np.abs(alone[output].astype(np.float64) - target.value) <= target.error).all(), output
        assert all(other[output].tobytes() == alone[output].tobytes() for other in others), output


def test_every_op_of_the_catalogue_has_cases():
    assert {case.op.name for case in EVERY} == set(CATALOGUE)


@pytest.mark.parametrize(("name", "argument"), SPECIAL, ids="-".join)
def test_special_values_are_of_arguments_that_an_op_reads(name, argument):
    (found,) = (one for one in CATALOGUE[name].arguments if one.name == argument)
    assert found.reads and found.access != "scratch"


def test_an_argument_without_special_values_is_drawn_by_its_dtype_whatever_its_name():
    unknown = op("scale_rows", "elementwise", "out y f32 (N, C)\nin weight f32 (N, C)\nin targets i32 (N)")
    values = draw(Case(unknown, {"N": 400, "C": 400}))
    assert abs(values["weight"].std() - 1) < 0.02 and abs(values["weight"].mean()) < 0.02
    assert set(values["targets"]) <= set(range(100)) and len(set(values["targets"])) > 50


def test_an_op_without_a_reference_fails():
    unknown = op("softsign", "activation", "out y f32 (N)\nin x f32 (N)")
    with pytest.raises(KeyError, match="softsign: tests/support/reference.py has no definition"):
        reference.evaluate(unknown, {}, {"N": 1}, {})
