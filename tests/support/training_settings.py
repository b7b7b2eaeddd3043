"""TrainingConfig for tests that state only the settings that matter to them."""

import dataclasses
from typing import Any

from hipgpt.config.settings import TrainingConfig


def training_config(**given: Any) -> TrainingConfig:
    """Return settings in which a required key that is not given is 0, and an optional one has its default."""
    required = [field.name for field in dataclasses.fields(TrainingConfig) if field.default is dataclasses.MISSING]
    return TrainingConfig(**dict.fromkeys(required, 0) | given)
