"""The samples of a finished run as files, and those that are written while a run trains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hipgpt.base.csv_file import write_csv
from hipgpt.base.files import replacing
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.config.settings import ModelConfig, SamplingConfig, TrainingConfig
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.decoder import Decoder
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.inference.sampling import generate_all, generate_one

TRAINING_TEMPERATURE, TRAINING_TOP_K = 0.8, 50


class TrainingSampler:
    """Continues training.sample_prompt with the current weights of a model in training."""

    def __init__(self, device: Device, model: ModelConfig, training: TrainingConfig, tokenizer: Tokenizer):
        self._device, self._model, self._tokenizer = device, model, tokenizer
        self._prompt = tokenizer.encode(training.sample_prompt).tolist()
        self._settings = SamplingConfig(
            training.sample_tokens, TRAINING_TEMPERATURE, TRAINING_TOP_K, seed=training.seed
        )
        self._decoder: Decoder | None = None

    def __call__(self, weights: ParameterTensors) -> str:
        """Return the prompt and its continuation. All calls must be given the same tensors, whose values may change."""
        continuation = generate_one(
            self._decoder_of(weights), self._prompt, self._settings, self._tokenizer.end_of_text
        )
        return _text(self._tokenizer, [*self._prompt, *continuation])

    def plans(self, weights: ParameterTensors) -> list[Plan]:
        """Return the plans that a call runs."""
        return self._decoder_of(weights).plans(max(1, len(self._prompt) - 1))

    def _decoder_of(self, weights: ParameterTensors) -> Decoder:
        if self._decoder is None:
            self._decoder = Decoder(self._device, self._model, weights)
        return self._decoder


def write_samples(decoder: Decoder, tokenizer: Tokenizer, settings: Mapping[str, Any], text: Path, table: Path) -> None:
    """Continue each prompt of the config's sampling section. Write a text to read, and a CSV with the settings.

    Prompt number i draws from stream i, so adding a prompt does not change the draws of the others.
    """
    sampling = SamplingConfig(**{key: value for key, value in settings.items() if key != "prompts"})
    exact = [repr(value) if isinstance(value, float) else value for value in vars(sampling).values()]
    ids = [tokenizer.encode(prompt).tolist() for prompt in settings["prompts"]]
    rows, blocks = [], []
    for number, continuation in enumerate(generate_all(decoder, ids, sampling, tokenizer.end_of_text)):
        prompt = settings["prompts"][number]
        rows.append([number, prompt, _text(tokenizer, continuation), len(continuation), *exact])
        blocks.append(f"--- prompt {number}\n{_text(tokenizer, ids[number] + continuation)}\n")
    with replacing(text) as file:
        file.write("\n".join(blocks).encode())
    write_csv(table, ["number", "prompt", "continuation", "tokens", *vars(sampling)], rows)


def _text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    return tokenizer.decode(tokens).decode("utf-8", "replace")
