"""How large a model a page can hold. The Snakefile asks it at every start, so it imports little."""

from hipgpt.base.errors import UserError
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.parameters import parameter_count

MOST_PARAMETERS = 64_000_000  # a page of 170 MB; browsers read a larger one slowly or not at all


def fits_a_page(model: ModelConfig) -> bool:
    return parameter_count(model) <= MOST_PARAMETERS


def check_size(model: ModelConfig) -> None:
    """Raise UserError if the model is too large for a page."""
    if not fits_a_page(model):
        raise UserError(
            f"playground: got a model of {parameter_count(model):,} parameters, expected at most {MOST_PARAMETERS:,}, "
            "because the page holds all of them; use hipgpt generate"
        )
