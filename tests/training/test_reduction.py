"""Gradients are reduced in buckets, each as soon as it is complete, in the same order on every rank."""

import dataclasses

import pytest
from support.rank import TRAINING, tokens

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.cpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.catalogue import MATMUL_BACKWARD_WEIGHT, ROUND_WEIGHTS, WIDEN_GRADIENTS
from hipgpt.compute.communicator import REDUCE, REDUCE_ROUNDED
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.precision import on_device
from hipgpt.training import reduction
from hipgpt.training.estimate import job_resources
from hipgpt.training.step import trainer_of

MODEL = ModelConfig(50, 64, 6, 2, 128, 8, "gelu", tie_embeddings=False, output_bias=False)
BUCKET = 30_000  # elements: a block of MODEL has 32,768


def launches_of(rank=0, size=2, **settings):
    """Return the gradients and the launches of the last micro-batch of a step of one rank."""
    training = dataclasses.replace(TRAINING, **{"optimizer": "adamw", "precision": "float32", **settings})
    dtypes = (DType.BF16,) if training.precision == "bfloat16" else (DType.F32,)
    trainer = trainer_of(MODEL, training, NullDevice(traits(dtypes), ProcessGroup(rank, size)), tokens())
    return trainer.gradients.flat, trainer.last_plan.launches


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(reduction, "BUCKET_ELEMENTS", BUCKET)


def reductions_of(gradients, launches):
    return [launch for launch in launches if launch.op is REDUCE and launch.tensor("x").overlaps(gradients)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("size", [2, 3])
def test_every_gradient_is_reduced_once_after_its_last_use_and_no_later(optimizer, size):
    gradients, launches = launches_of(size=size, optimizer=optimizer)
    found = reductions_of(gradients, launches)
    assert sum(launch.tensor("x").elements for launch in found) == gradients.elements
    for launch in found:
        place = launches.index(launch)
        before = next(each for each in reversed(launches[:place]) if each not in found)
        neighbours = [before, *launches[launches.index(before) : place]]
        assert any(launch.shares_memory_with(each) for each in neighbours if each is not launch)
        backward = [each for each in launches[place:] if each.op is MATMUL_BACKWARD_WEIGHT]
        assert not any(launch.shares_memory_with(each) for each in backward)


def test_most_gradients_are_reduced_beside_the_backward_pass():
    gradients, launches = launches_of()
    last = max(i for i, launch in enumerate(launches) if launch.op is MATMUL_BACKWARD_WEIGHT)
    beside = [launch for launch in reductions_of(gradients, launches) if launches.index(launch) < last]
    assert len(beside) >= 4
    assert sum(launch.tensor("x").elements for launch in beside) > 0.6 * gradients.elements


def test_all_ranks_reduce_the_same_buckets_at_the_same_places():
    def places(rank):
        gradients, launches = launches_of(rank, 3)
        return [
            (launches.index(each), each.tensor("x").address - gradients.address, each.scalars["root"])
            for each in reductions_of(gradients, launches)
        ]

    assert places(0) == places(1) == places(2) != []


def test_rounded_gradients_are_reduced_where_they_are_complete_and_widened_before_the_update():
    gradients, launches = launches_of(precision="bfloat16", reduce_precision="bfloat16")
    ops = [launch.op for launch in launches]
    assert not reductions_of(gradients, launches)
    assert ops.count(REDUCE_ROUNDED) == ops.count(ROUND_WEIGHTS) > 4
    assert all(ops[i - 1] in (ROUND_WEIGHTS, REDUCE_ROUNDED) for i, op in enumerate(ops) if op is REDUCE_ROUNDED)
    last = max(i for i, op in enumerate(ops) if op is MATMUL_BACKWARD_WEIGHT)
    assert sum(op is REDUCE_ROUNDED for op in ops[:last]) >= 4  # beside the backward pass
    assert ops.index(WIDEN_GRADIENTS) > max(i for i, op in enumerate(ops) if op is REDUCE_ROUNDED)
    assert launches[ops.index(WIDEN_GRADIENTS)].tensor("gradients") == gradients


def test_one_rank_reduces_nothing():
    gradients, launches = launches_of(size=1, precision="bfloat16", reduce_precision="bfloat16")
    assert not {REDUCE, REDUCE_ROUNDED, WIDEN_GRADIENTS} & {launch.op for launch in launches}


def test_bfloat16_between_ranks_that_compute_in_float32_is_refused():
    training = dataclasses.replace(TRAINING, precision="auto", reduce_precision="bfloat16")
    with pytest.raises(
        UserError,
        match="training.reduce_precision: got bfloat16, expected float32, because training.precision is auto, which "
        "means float32 on null",
    ):
        on_device(training, NullDevice(traits((DType.F32,))))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_memory_of_a_job_is_estimated_with_gradients_in_bfloat16(device):
    settings = {"optimizer": "adamw", "precision": "auto", "reduce_precision": "bfloat16"}
    assert job_resources(MODEL, dataclasses.replace(TRAINING, **settings), device, 2)["mem_mb"] > 0
