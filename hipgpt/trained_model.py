"""The model of a finished run, for programs: `hipgpt.load`. The command for people is hipgpt/cli/generate.py."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.compute.device import Device
from hipgpt.compute.open_device import open_device
from hipgpt.config.sampling import with_settings
from hipgpt.config.settings import ModelConfig, SamplingConfig
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.checkpoint import load_weights
from hipgpt.gpt.decoder import Decoder
from hipgpt.gpt.parameters import ParameterTensors, parameter_count
from hipgpt.gpt.precision import weights_in
from hipgpt.inference.sampling import generate_one
from hipgpt.reports.runs import read_record
from hipgpt.reports.samples import sampling_of
from hipgpt.reports.trained import BEST, run_tokenizer

Text = str | bytes


def load(run: str | os.PathLike[str], device: str = "auto", threads: int | None = None) -> "TrainedModel":
    """Return the model of a finished run, with the weights of its best checkpoint.

    run: the run's folder, such as results/runs/default. device: as the config's key, such as cpu or cuda:1. threads: of
    the CPU's kernels; default: all cores. Raises UserError if the run is not finished, or if a file of it is damaged.
    """
    folder = Path(run)
    checkpoint = folder / BEST
    if not checkpoint.exists():
        raise UserError(f"{folder}: not a finished run, because {checkpoint} is missing; run snakemake first")
    tokenizer, opened = run_tokenizer(folder), open_device(device, threads)
    model, weights = load_weights(checkpoint, opened, tokenizer.sha256)
    precision = read_record(folder)["config"]["training"]["precision"]
    sampling = sampling_of(folder)
    return TrainedModel(folder, model, tokenizer, sampling, opened, weights_in(precision, opened, model, weights))


class TrainedModel:
    """A model with its tokenizer. It is not safe to use one from several threads at once.

    run: the folder of its run; config: its sizes; tokenizer: encode and decode, among others; sampling: the settings of
    the run's section `sampling`, which `generate` takes by default; weights: the tensors on the device, in the dtype of
    its precision.
    """

    def __init__(
        self,
        run: Path,
        config: ModelConfig,
        tokenizer: Tokenizer,
        sampling: SamplingConfig,
        device: Device,
        weights: ParameterTensors,
    ):
        self.run, self.config, self.tokenizer, self.sampling, self.weights = run, config, tokenizer, sampling, weights
        self._decoder = Decoder(device, config, weights)

    def __repr__(self) -> str:
        return (
            f"<TrainedModel {self.run}: {self.config.architecture}, {parameter_count(self.config):,} parameters, "
            f"context of {self.config.context_length:,} tokens, on {self._decoder.device.name}>"
        )

    def generate(self, prompt: Text = "", *, stream: int = 0, **settings: Any) -> str:
        """Return the continuation of a prompt, without the prompt.

        settings: fields of SamplingConfig (num_tokens, temperature, top_k, top_p, repetition_penalty, seed,
        stop_at_end_of_text) in place of the run's own. An empty prompt begins a document. The same seed and stream give
        the same text. Bytes that are not UTF-8 become U+FFFD. Raises ValueError, which names the field, the value and
        the accepted values, at a setting that is unknown or does not take its value.
        """
        pieces = map(self.tokenizer.token_bytes, self.tokens(prompt, stream=stream, **settings))
        return b"".join(pieces).decode("utf-8", "replace")

    def tokens(self, prompt: Text = "", *, stream: int = 0, **settings: Any) -> Iterator[int]:
        """Return an iterator over the ids of the tokens that `generate` joins, as they are drawn."""
        sampling = with_settings(self.sampling, settings)
        ids = self.tokenizer.encode(prompt).tolist()
        return generate_one(self._decoder, ids, sampling, self.tokenizer.end_of_text, stream)

    def logits(self, text: Text | Sequence[int]) -> NDArray[np.float32]:
        """Return (N, V) f32: row i has the logits of the token that follows the first i + 1 tokens.

        text: a text, or ids. N: the number of its tokens, of which there must be 1 to the context length T. Raises
        ValueError otherwise.
        """
        ids = self.tokenizer.encode(text).tolist() if isinstance(text, str | bytes) else list(text)
        if not 1 <= len(ids) <= self.config.context_length:
            raise ValueError(f"logits: got {len(ids)} tokens, expected 1 to {self.config.context_length}")
        self._decoder.restart([ids[:1]])
        return np.concatenate([self._decoder.logits(), *(self._logits_after(token) for token in ids[1:])])

    def _logits_after(self, token: int) -> NDArray[np.float32]:
        self._decoder.append([token])
        return self._decoder.logits()
