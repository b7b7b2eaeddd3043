"""Several ranks train as one device with the same batches does, the same bytes each time."""

import dataclasses
import functools

import numpy as np
import pytest
from support import curves
from support.group import train_in_processes
from support.rank import MODEL, TRAINING, WINDOWS, tokens, trainer_on

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.cpu import CpuDevice, traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import DType
from hipgpt.data.batches import Batches
from hipgpt.gpt.precision import PRECISIONS
from hipgpt.training.step import trainer_of

KINDS = [("adamw", "float32"), ("adamw", "bfloat16"), ("muon", "float32"), ("muon", "bfloat16")]


@functools.cache
def alone(optimizer: str, precision: str) -> np.ndarray:
    return curves.losses(trainer_on(CpuDevice(1), optimizer, precision))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a function: the figures of a training on a number of ranks, trained once."""

    @functools.cache
    def of(size, optimizer, precision, reduce_precision="float32"):
        return train_in_processes(size, tmp_path_factory.mktemp("ranks"), optimizer, precision, reduce_precision)

    return of


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("optimizer, precision", KINDS)
def test_the_losses_are_those_of_one_device_but_for_roundings(trained, optimizer, precision, size):
    losses, reference = trained(size, optimizer, precision)["losses"], alone(optimizer, precision)
    assert reference[-1] < 0.85 * reference[0]  # there was something to learn
    bound = curves.tolerance(lambda: trainer_on(CpuDevice(1), optimizer, precision), reference, PRECISIONS[precision])
    assert (np.abs(losses - reference) <= bound).all()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_gradients_may_travel_in_bfloat16(trained, optimizer):
    losses, reference = trained(3, optimizer, "bfloat16", "bfloat16")["losses"], alone(optimizer, "bfloat16")
    bound = curves.tolerance(lambda: trainer_on(CpuDevice(1), optimizer, "bfloat16"), reference, DType.BF16)
    assert (np.abs(losses - reference) <= bound).all()
    assert losses.tobytes() != trained(3, optimizer, "bfloat16")["losses"].tobytes()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_ranks_score_windows_between_them_as_one_would(trained, precision, size):
    found = trained(size, "muon", precision)
    for count in WINDOWS:
        assert found[f"scored_{count}"].shape == (count, MODEL.context_length)
        assert found[f"scored_{count}"].tobytes() == found[f"scored_alone_{count}"].tobytes()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_reruns_give_the_same_bytes(trained, tmp_path, optimizer):
    first, again = trained(2, optimizer, "float32"), train_in_processes(2, tmp_path, optimizer, "float32")
    assert first.keys() == again.keys()
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)


def test_the_state_has_the_arrays_of_one_device(trained):
    one = trainer_on(CpuDevice(1), "muon", "float32").state_fields
    for size in (2, 3):
        found = trained(size, "muon", "float32")
        assert {name: found[name].shape for name in one} == {name: field.shape for name, field in one.items()}


def test_ranks_read_the_windows_of_one_batch_between_them():
    B, S = TRAINING.batch_sequences, MODEL.context_length
    whole = Batches(tokens(), B, S, seed=1)
    for ranks in (2, 3, 4):
        parts = [Batches(tokens(), B, S, 1, rank, ranks) for rank in range(ranks)]
        for step in (0, 7, 150):  # 150: in a later epoch
            np.testing.assert_array_equal(np.concatenate([part.batch(step) for part in parts]), whole.batch(step))


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(
        UserError, match="training.batch_sequences: got 12, expected a multiple of the number of devices, 5"
    ):
        Batches(tokens(), 12, MODEL.context_length, 1, 0, 5)


def test_the_moments_of_a_rank_take_their_part_of_the_memory():
    def bytes_of(size, optimizer):
        device = NullDevice(traits((DType.F32,)), ProcessGroup(0, size))
        trainer = trainer_on(device, optimizer, "float32")
        return trainer.optimizer.first_moment.size_bytes + trainer.optimizer.second_moment.size_bytes

    for optimizer in ("adamw", "muon"):
        assert bytes_of(2, optimizer) < 0.6 * bytes_of(1, optimizer)
        assert bytes_of(4, optimizer) < 0.4 * bytes_of(1, optimizer)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_model_that_is_too_small_for_so_many_ranks_is_refused(optimizer):
    training = dataclasses.replace(TRAINING, optimizer=optimizer, precision="float32", batch_sequences=600)
    device = NullDevice(traits((DType.F32,)), ProcessGroup(0, 600))
    with pytest.raises(UserError, match="devices: got 600, expected fewer: the model is too small"):
        trainer_of(MODEL, training, device, tokens())


def test_a_rank_makes_no_other_call_than_those_of_a_training():
    class Stranger(ProcessGroup):
        def told(self):
            return ["weights_written"]

    trainer = trainer_on(NullDevice(traits((DType.F32,)), Stranger(1, 2)), "adamw", "float32")
    with pytest.raises(UserError, match="rank 1: rank 0 said 'weights_written', expected one of .*'step'"):
        trainer.follow()
