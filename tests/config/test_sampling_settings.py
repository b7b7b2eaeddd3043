"""Sampling settings of a user: the accepted values are those of the config's section `sampling`."""

import dataclasses

import pytest
from jsonschema import Draft202012Validator

from hipgpt.config.sampling import ACCEPTED, with_settings
from hipgpt.config.schema import load_schema
from hipgpt.config.settings import SamplingConfig

RUN = SamplingConfig(num_tokens=100)
VALUES = [-1, 0, 1, 2, 7, 10**6, 10**6 + 1, 2**63, 2**64, -0.5, 0.5, 1.5, "1", None, True, [1]]


def test_every_setting_of_a_run_is_checked():
    assert [field.name for field in dataclasses.fields(SamplingConfig)] == list(ACCEPTED)


@pytest.mark.parametrize("field", ACCEPTED)
@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_accepted_if_the_config_accepts_it(field, value):
    rule = Draft202012Validator(load_schema()["properties"]["sampling"]["properties"][field])
    if rule.is_valid(value):
        assert with_settings(RUN, {field: value}) == dataclasses.replace(RUN, **{field: value})
    else:
        with pytest.raises(ValueError, match=f"^{field}: got .*, expected "):
            with_settings(RUN, {field: value})
