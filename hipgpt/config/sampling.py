"""Sampling settings that a user gives in place of those of a run: the one place that checks them.

The accepted values are those of the section `sampling` in workflow/schemas/config.schema.yaml.
"""

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from hipgpt.base.nearest import nearest
from hipgpt.config.settings import SamplingConfig
from hipgpt.config.values import shown

MOST_TOKENS = 1_000_000
LARGEST_F32 = 3.4e38  # the device reads numbers as f32


class SamplingError(ValueError):
    """A setting that is unknown or does not take its value. field: its name; problem: what is wrong and expected."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


def _integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and least <= int(value) <= most


def _number(value: Any, most: float = LARGEST_F32) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    number: Any = value  # the type Real promises no comparison
    return bool(0 <= number <= most)


ACCEPTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "num_tokens": (lambda value: _integer(value, 1, MOST_TOKENS), f"an integer >= 1 and <= {MOST_TOKENS:,}"),
    "temperature": (_number, "a finite number >= 0"),
    "top_k": (lambda value: value is None or _integer(value, 1, 2**64), "an integer >= 1 or None"),
    "top_p": (lambda value: _number(value, 1) and value > 0, "a number > 0 and <= 1"),
    "repetition_penalty": (lambda value: _number(value) and value > 0, "a finite number > 0"),
    "stop_at_end_of_text": (lambda value: isinstance(value, bool), "True or False"),
    "seed": (lambda value: _integer(value, 0, 2**64 - 1), "an integer >= 0 and < 2^64"),
}


def with_settings(sampling: SamplingConfig, given: Mapping[str, Any]) -> SamplingConfig:
    """Return the settings of a run with those that were given in their place.

    Raises SamplingError, which is a ValueError, at the first one that is unknown or does not take its value.
    """
    for field, value in given.items():
        if field not in ACCEPTED:
            close = nearest(field, ACCEPTED)
            remedy = f"did you mean {close!r}?" if close else f"expected one of {', '.join(ACCEPTED)}"
            raise SamplingError(field, f"got {shown(value)} for an unknown setting, {remedy}")
        accepts, expected = ACCEPTED[field]
        if not accepts(value):
            raise SamplingError(field, f"got {shown(value)}, expected {expected}")
    return dataclasses.replace(sampling, **given)
