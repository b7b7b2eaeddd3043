"""Causality: the logits of a position do not depend on later tokens."""

from dataclasses import replace

import numpy as np
import pytest
from support.devices import every_device_in_every_dtype
from support.recorded_model import MODEL, RecordedModel, draw_batch

LLAMA = replace(MODEL, architecture="llama", activation="swiglu", output_bias=False)
POSITIONS = range(MODEL.context_length)


@pytest.fixture(params=[MODEL, LLAMA], ids=lambda model: model.architecture)
def logits_before_and_after(request, device, act):
    """Return the logits (B, S, V) of a batch, and those of the batch with another token at a position."""
    recorded = RecordedModel(device, request.param, act=act)
    tokens, _ = draw_batch(MODEL, 3)

    def change(position):
        changed = tokens.copy()
        changed[:, position] = (changed[:, position] + 1) % MODEL.vocab_size
        return recorded.logits(tokens), recorded.logits(changed)

    return change


@pytest.mark.parametrize("position", POSITIONS)
@every_device_in_every_dtype
def test_changing_a_token_leaves_earlier_logits_bitwise_equal(logits_before_and_after, position):
    before, after = logits_before_and_after(position)
    assert before[:, :position].tobytes() == after[:, :position].tobytes()


@pytest.mark.parametrize("position", POSITIONS)
@every_device_in_every_dtype
def test_changing_a_token_changes_its_own_and_all_later_logits(logits_before_and_after, position):
    before, after = logits_before_and_after(position)
    assert (before[:, position:] != after[:, position:]).any(axis=2).all()


@every_device_in_every_dtype
def test_changing_a_sequence_leaves_the_others_bitwise_equal(device, act):
    recorded = RecordedModel(device, MODEL, act=act)
    tokens, _ = draw_batch(MODEL, 3)
    changed = tokens.copy()
    changed[1] = (changed[1] + 1) % MODEL.vocab_size
    before, after = recorded.logits(tokens), recorded.logits(changed)
    np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])
    assert (before[1] != after[1]).any(axis=1).all()
