"""Plan: the calls that it refuses, its messages, and the launches that it records."""

import pytest
from support.recorded_model import MODEL, RecordedModel, draw_batch

from hipgpt.compute.backends.cpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.catalogue import DROPOUT, LAYERNORM_FORWARD, MATMUL_BACKWARD_WEIGHT, MATMUL_FORWARD
from hipgpt.compute.contract import ContractError, op
from hipgpt.compute.open_device import open_device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field

TRAITS = traits((DType.F32, DType.BF16))

COPY = op("copy", "none", "out y f32 (N)\nin x f32 (N)")
SCALE = op("scale", "none", "inout y f32 (N)\nin x f32 (N)")


@pytest.fixture
def null():
    return NullDevice(TRAITS)


def tensors(device, dtype=DType.F32, **shapes):
    """Return new tensors by name."""
    fields = [Field(name, shape, dtype) for name, shape in shapes.items()]
    arena = Arena(device, "test", fields)
    return [arena[name] for name in shapes]


def refusal(plan, *call, **scalars) -> str:
    """Return the message with which a plan refuses a call. Asserts that the call is not recorded."""
    before = list(plan.launches)
    with pytest.raises(ContractError) as refused:
        plan(*call, **scalars)
    assert plan.launches == before
    return str(refused.value)


def layernorm(device, **changed):
    """Return the tensors of LAYERNORM_FORWARD for N=3, C=64, some in other shapes."""
    shapes = {"y": (3, 64), "mean": (3,), "rstd": (3,), "x": (3, 64), "gamma": (64,), "beta": (64,)} | changed
    y, mean, rstd, x, gamma, beta = tensors(device, **shapes)
    return [y, mean, rstd, None, x, None, gamma, beta]


def test_wrong_dimension_names_op_argument_got_and_expected(null):
    made = layernorm(null, gamma=(63,))
    message = refusal(Plan(null, "p", filter(None, made)), LAYERNORM_FORWARD, *made, epsilon=1e-5)
    assert message == "layernorm_forward: gamma has C=63, but an earlier argument has C=64"


def test_wrong_fixed_dimension_shows_both_shapes(null):
    y, x = tensors(null, y=(8,), x=(8,))
    (counters,) = tensors(null, DType.I32, counters=(3,))
    scalars = {"drop_probability": 0.1, "stream": 0, "first_quad": 0}
    message = refusal(Plan(null, "p", [x, counters]), DROPOUT, y, x, counters, **scalars)
    assert message == "dropout: counters (test.counters) has shape (3,), expected (4)"


def test_wrong_rank_shows_both_shapes(null):
    made = layernorm(null, x=(3, 8, 8))
    message = refusal(Plan(null, "p", filter(None, made)), LAYERNORM_FORWARD, *made, epsilon=1e-5)
    assert message == "layernorm_forward: x (test.x) has shape (3, 8, 8), expected (N, C)"


def test_wrong_dtype_shows_both(null):
    (x,) = tensors(null, DType.I32, x=(8,))
    (gradient,) = tensors(null, gradient=(8,))
    message = refusal(Plan(null, "p", [x, gradient]), SCALE, gradient, x)
    assert message == "scale: x (test.x) has dtype i32, expected f32"


def test_wrong_number_of_tensors_lists_the_arguments(null):
    y, x, weight = tensors(null, y=(2, 3), x=(2, 4), weight=(3, 4))
    message = refusal(Plan(null, "p", [x, weight]), MATMUL_FORWARD, y, x, weight)
    assert message == "matmul_forward: got 3 tensors, expected 4 (y, x, weight, bias)"


@pytest.mark.parametrize("scalars", [{}, {"eps": 1e-5}, {"epsilon": 1e-5, "scale": 1.0}])
def test_wrong_scalars_show_both_lists(null, scalars):
    made = layernorm(null)
    message = refusal(Plan(null, "p", filter(None, made)), LAYERNORM_FORWARD, *made, **scalars)
    assert message == f"layernorm_forward: got scalars {sorted(scalars)}, expected ['epsilon']"


def test_none_where_an_argument_is_required_is_refused(null):
    y, x = tensors(null, y=(2, 3), x=(2, 4))
    message = refusal(Plan(null, "p", [x]), MATMUL_FORWARD, y, x, None, None)
    assert message == "matmul_forward: weight is None, but it is not optional"


def test_none_where_an_argument_is_optional_is_taken(null):
    y, x, weight = tensors(null, y=(2, 3), x=(2, 4), weight=(3, 4))
    plan = Plan(null, "p", [x, weight])
    plan(MATMUL_FORWARD, y, x, weight, None)
    assert plan.launches[0].sizes == {"N": 2, "O": 3, "C": 4}


@pytest.mark.parametrize("start", [0, 1, 15])
def test_output_that_overlaps_an_input_is_refused(null, start):
    (both,) = tensors(null, both=(32,))
    message = refusal(Plan(null, "p", [both]), SCALE, both.rows(start, start + 16), both.rows(0, 16))
    assert message == f"scale: y (test.both[{start}:{start + 16}]) overlaps x (test.both[0:16])"


def test_neighbours_do_not_overlap(null):
    (both,) = tensors(null, both=(32,))
    plan = Plan(null, "p", [both])
    plan(SCALE, both.rows(0, 16), both.rows(16, 32))
    assert len(plan.launches) == 1


def test_outputs_that_overlap_are_refused(null):
    dweight, dy, x = tensors(null, dweight=(3, 4), dy=(2, 3), x=(2, 4))
    dbias = dweight.view(12).rows(9, 12)
    plan = Plan(null, "p", [dweight, dy, x])
    message = refusal(plan, MATMUL_BACKWARD_WEIGHT, dweight, dbias, dy, x)
    assert message == "matmul_backward_weight: dweight (test.dweight) overlaps dbias (test.dweight[9:12])"


def test_inputs_may_overlap(null):
    y, x = tensors(null, y=(2, 2), x=(2, 2))
    plan = Plan(null, "p", [x])
    plan(MATMUL_FORWARD, y, x, x, None)
    assert len(plan.launches) == 1


def test_reading_what_nothing_wrote_is_refused(null):
    y, x, weight, gradient = tensors(null, y=(2, 3), x=(2, 4), weight=(3, 4), gradient=(6,))
    plan = Plan(null, "p", [x, gradient])
    message = refusal(plan, MATMUL_FORWARD, y, x, weight, None)
    assert message == "matmul_forward: weight (test.weight) is read, but nothing has written it"
    message = refusal(plan, SCALE, gradient, y.view(6))
    assert message == "scale: x (test.y) is read, but nothing has written it"


@pytest.mark.parametrize("access", ["add", "inout"])
def test_adding_to_what_nothing_wrote_is_refused(null, access):
    accumulate = op("accumulate", "none", f"{access} y f32 (N)\nin x f32 (N)")
    y, x = tensors(null, y=(8,), x=(8,))
    message = refusal(Plan(null, "p", [x]), accumulate, y, x)
    assert message == "accumulate: y (test.y) is read, but nothing has written it"


def test_an_output_may_be_read_afterwards(null):
    y, x, gradient = tensors(null, y=(8,), x=(8,), gradient=(8,))
    plan = Plan(null, "p", [x, gradient])
    plan(COPY, y, x)
    plan(SCALE, gradient, y)
    assert [launch.op.name for launch in plan.launches] == ["copy", "scale"]


def test_writing_half_a_tensor_does_not_write_all_of_it(null):
    y, x = tensors(null, y=(8,), x=(8,))
    plan = Plan(null, "p", [x])
    plan(COPY, y.rows(0, 4), x.rows(0, 4))
    assert "nothing has written it" in refusal(plan, SCALE, x, y)


def test_recording_after_a_run_is_refused(null):
    y, x = tensors(null, y=(8,), x=(8,))
    plan = Plan(null, "forward", [x])
    plan(COPY, y, x)
    plan.run()
    message = refusal(plan, COPY, y, x)
    assert message == "copy: plan forward is ready to run; a plan is recorded once, then only replayed"


@pytest.mark.parametrize("line", ["inn x f32 (N)", "in x f32 N"])
def test_a_contract_of_another_form_is_refused(line):
    with pytest.raises(ValueError, match="broken: cannot read the line"):
        op("broken", "none", line)


def test_a_scalar_of_another_type_is_refused():
    with pytest.raises(ValueError, match="broken: scalar types are"):
        op("broken", "none", "in x f32 (N)", scalars="scale f64")


def test_null_device_records_the_plan_of_a_real_one():
    def launches(device):
        plan = RecordedModel(device, MODEL, drop_probability=0.1).training
        return [(launch.op.name, launch.sizes, launch.scalars, launch.bytes_moved) for launch in plan.launches]

    assert launches(NullDevice(TRAITS)) == launches(open_device("cpu", threads=1))


def test_null_device_counts_the_bytes_of_every_arena(null):
    recorded = RecordedModel(null, MODEL)
    needed = sum(arena.size_bytes for arena in recorded.arenas)
    alignment = 128 * len(recorded.arenas)
    assert needed <= null.allocated_bytes <= needed + alignment


def test_null_device_computes_nothing(null):
    recorded = RecordedModel(null, MODEL)
    recorded.train(*draw_batch(MODEL, 3))
    assert all((values == 0).all() for values in recorded.read_gradients().values())


def test_launch_counts_bytes_and_operations(null):
    y, x, weight, bias = tensors(null, y=(2, 3), x=(2, 4), weight=(3, 4), bias=(3,))
    plan = Plan(null, "p", [x, weight, bias])
    plan(MATMUL_FORWARD, y, x, weight, bias)
    assert plan.launches[0].operations == 2 * 2 * 3 * 4
    assert plan.launches[0].bytes_moved == 4 * (2 * 3 + 2 * 4 + 3 * 4 + 3)


def test_what_is_added_to_counts_as_read_and_written(null):
    gradient, x = tensors(null, gradient=(8,), x=(8,))
    plan = Plan(null, "p", [gradient, x])
    plan(SCALE, gradient, x)
    assert plan.launches[0].bytes_moved == 4 * 3 * 8
