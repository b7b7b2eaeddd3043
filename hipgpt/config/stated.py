"""Settings as the files of a run state them: without optional keys that have their default."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from hipgpt.config.architectures import ARCHITECTURES
from hipgpt.config.settings import SAVING_KEYS, ModelConfig, TrainingConfig, mistakes
from hipgpt.config.values import shown

# optional keys that say how another one works, and are stated together with it
OF_ANOTHER_KEY = {"muon_learning_rate_peak": "optimizer", "decay_fraction": "schedule"}


def optional(section: type[ModelConfig] | type[TrainingConfig]) -> dict[str, Any]:
    """Return the keys that a file of a run may leave out, with the values that they then have."""
    return {f.name: f.default for f in dataclasses.fields(section) if f.default is not dataclasses.MISSING}


def stated(settings: ModelConfig | TrainingConfig) -> dict[str, Any]:
    """Return the settings by key, without optional ones that have their default.

    What describes a run holds these: a new optional key then changes nothing about runs that do not use it.
    """
    found = dataclasses.asdict(settings)
    for name, default in optional(type(settings)).items():
        if found[name] == default and OF_ANOTHER_KEY.get(name) not in found:
            del found[name]
    return found


def deciding(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a `training` section that decide the results: all but how the state is saved."""
    return {key: value for key, value in training.items() if key not in SAVING_KEYS}


def model_from(stated: Any) -> ModelConfig:
    """Return the model that a file of a run states, a value for each key.

    Raises ValueError, which names the key if it is one, unless keys, types and values are those of a model.
    """
    fields = {field.name: field for field in dataclasses.fields(ModelConfig)}
    required = fields.keys() - optional(ModelConfig).keys()
    if not isinstance(stated, dict) or not required <= stated.keys() <= fields.keys():
        raise ValueError(f"model: got {shown(stated)}, expected the keys {', '.join(sorted(required))}")
    for key, value in stated.items():
        kinds = _kinds(fields[key].type)
        if type(value) not in kinds:  # not isinstance, because bool is a subclass of int
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"model.{key}: got {shown(value)}, expected {expected}")
        if type(value) is int and value < 1:
            raise ValueError(f"model.{key}: got {value}, expected 1 or more")
    model = ModelConfig(**stated)
    if model.architecture not in ARCHITECTURES:
        raise ValueError(f"model.architecture: got {model.architecture!r}, expected {' or '.join(ARCHITECTURES)}")
    for key, got, expected in mistakes(model):
        raise ValueError(f"model.{key}: got {got!r}, expected {expected}")
    return model


def _kinds(annotation: Any) -> tuple[type, ...]:
    """Return the types of the values of a field: those of a union one by one."""
    return typing.get_args(annotation) or (annotation,)
