"""Batches: every window comes once per epoch, the step is the only state, and evaluation counts each target once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hipgpt.base.errors import UserError
from hipgpt.data.batches import Batches, windows
from hipgpt.data.tokens import Tokens


def counting(length: int) -> Tokens:
    """Return the tokens 0, 1, 2, ...: each equals its position."""
    return Tokens([np.arange(length, dtype=np.uint16)])


@given(st.integers(1, 20), st.integers(1, 400), st.integers(1, 40), st.integers(0, 2**64 - 1))
def test_every_window_comes_once_an_epoch(context_length, more, batch_size, seed):
    length = context_length + more
    batches = Batches(counting(length), batch_size, context_length, seed)
    per_epoch = batches.windows_per_epoch
    steps = -(-3 * per_epoch // batch_size)
    starts = np.concatenate([batches.starts(step) for step in range(steps)])[: 3 * per_epoch]
    for epoch in starts.reshape(3, per_epoch):
        phase = epoch.min()
        assert sorted(epoch) == list(range(phase, phase + per_epoch * context_length, context_length))
        assert phase >= 0 and epoch.max() + context_length < length
    assert length - per_epoch * context_length < 2 * context_length


def test_a_batch_holds_inputs_and_the_targets_one_further_on():
    batches = Batches(counting(100), 4, 8, seed=1)
    batch = batches.batch(3)
    assert batch.dtype == np.int32
    assert np.array_equal(batch, batches.starts(3)[:, None] + np.arange(9))


def test_a_step_s_batch_depends_on_nothing_but_step_and_seed():
    forward = Batches(counting(1000), 7, 8, seed=1)
    straight = [forward.batch(step) for step in range(60)]
    resumed = Batches(counting(1000), 7, 8, seed=1)
    for step in (59, 0, 31, 30):
        assert np.array_equal(resumed.batch(step), straight[step])
    assert not np.array_equal(Batches(counting(1000), 7, 8, seed=2).batch(0), straight[0])


def test_epochs_differ_in_order_and_phase():
    batches = Batches(
        counting(1000), batch_size=Batches(counting(1000), 1, 50, 0).windows_per_epoch, context_length=50, seed=0
    )
    epochs = [tuple(batches.starts(step)) for step in range(20)]
    assert len(set(epochs)) == 20
    assert len({min(epoch) for epoch in epochs}) > 10


def test_every_token_is_a_target_in_some_epoch():
    batches = Batches(counting(50), 4, 8, seed=3)
    targets = np.concatenate([batches.batch(step)[:, 1:].ravel() for step in range(200)])
    assert set(targets.tolist()) == set(range(1, 50))


@pytest.mark.parametrize(
    "make", [lambda tokens: Batches(tokens, 1, 32, 0), lambda tokens: next(windows(tokens, 32, 8))]
)
def test_a_context_longer_than_the_data_is_refused_with_the_numbers(make):
    make(counting(33))
    with pytest.raises(UserError, match="context_length: 32 needs 33 tokens, but the split has 32; shorten"):
        make(counting(32))


@given(st.integers(1, 30), st.integers(1, 200), st.data())
def test_evaluation_windows_count_each_target_once_with_enough_context(context_length, more, data):
    length = context_length + more
    stride = data.draw(st.integers(1, context_length))
    counted = []
    for start, first_counted in windows(range(length), context_length, stride):
        assert start >= 0 and start + context_length < length
        assert start == 0 or first_counted >= context_length - stride
        counted += range(start + 1 + first_counted, start + 1 + context_length)
    assert counted == list(range(1, length))


@pytest.mark.parametrize("stride", [0, 33])
def test_a_stride_that_would_skip_targets_is_refused(stride):
    with pytest.raises(UserError, match=f"stride: got {stride}, expected 1 to context_length, 32"):
        next(windows(range(100), 32, stride))
