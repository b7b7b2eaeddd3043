"""The training run: its loop, the files that grow with it, and the state that it resumes from."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.csv_file import CsvFile, read_csv
from hipgpt.base.errors import UserError
from hipgpt.base.files import append, remove, replacing, sync
from hipgpt.base.log import LOG, STOPPED, Progress
from hipgpt.compute.device import Device
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.config.stated import stated
from hipgpt.gpt.checkpoint import load_checkpoint, save_checkpoint
from hipgpt.gpt.parameters import ParameterTensors, parameter_count
from hipgpt.training.interruption import Interrupted, stop_requests
from hipgpt.training.schedule import learning_rate
from hipgpt.training.state import StateFolder
from hipgpt.training.step import trainer_of
from hipgpt.training.validation import Splits, ValidationSet

METRICS = ("step", "tokens_seen", "loss_nats_per_token", "gradient_norm", "learning_rate")
VALIDATION = ("step", "tokens_seen", "loss_nats_per_token", "bits_per_byte")
THROUGHPUT = ("step", "step_seconds", "tokens_per_second")

# files and folders that later stages write into the folder of a run
LATER_RESULTS = ("evaluation.csv", "tasks.csv", "samples.txt", "samples.csv", "inspection.json", "report.html",
                 "playground.html", "model", "plots")  # fmt: skip

Sampler = Callable[[ParameterTensors], str]
Arrays = Mapping[str, NDArray[Any]]


class Run:
    """A training run in its folder.

    fingerprint: the inputs that determine the result (config, data, code, device). States of other ones are not loaded.
    sampler: returns a sample of the model with the weights on the device. It is handed in, so that the code hash of
    training does not cover the sampler's code.
    read_initial_weights: returns the weights by name to start from, instead of random ones.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        device: Device,
        splits: Splits,
        folder: Path,
        fingerprint: Mapping[str, Any],
        sampler: Sampler,
        read_initial_weights: Callable[[], Arrays] | None = None,
    ):
        """Raise UserError if there are too few tokens for the context, or if their vocabulary has another size."""
        if len(splits.byte_counts) != model.vocab_size:
            raise UserError(
                f"vocab_size: got {model.vocab_size}, but the tokenizer has {len(splits.byte_counts)} tokens"
            )
        self.model, self.training = model, training
        self.validation_set = ValidationSet(splits, model, training)
        self.trainer = trainer_of(model, training, device, splits.train)
        self.folder, self._sampler, self._read_initial_weights = folder, sampler, read_initial_weights
        self.metrics = CsvFile(folder / "metrics.csv", METRICS)
        self.validation = CsvFile(folder / "validation.csv", VALIDATION)
        self.throughput = CsvFile(folder / "throughput.csv", THROUGHPUT)
        self.samples = folder / "training_samples.txt"
        live_files = [self.metrics.path, self.validation.path, self.throughput.path, self.samples]
        self.states = StateFolder(folder / "state", fingerprint, training.keep_last, live_files)
        self._tokens_per_step = training.batch_sequences * training.accumulation_steps * model.context_length
        self._best_loss, self._recorded_step = math.inf, 0

    def run(self, follow: Callable[[], None] = lambda: None) -> None:
        """Train from the last saved state, or from step 1, to the last step. Then write both checkpoints.

        follow: called whenever the CSV files may have new rows. Raises Interrupted after SIGINT or SIGTERM, when the
        step is finished and its state saved. Raises UserError if a loss or a gradient norm is not finite.
        """
        first, total = self._resume_or_begin(), self.training.steps
        follow()
        self.trainer.prepare()
        with stop_requests() as stop_requested, Progress(total, first, self.folder.name) as progress:
            started, timed_from = time.perf_counter(), first
            for step in range(first + 1, total + 1):
                self.trainer.step(step)
                stopping = stop_requested()
                if stopping or self._something_is_due(step):
                    loss = self._record(step)
                    seconds = (time.perf_counter() - started) / (step - timed_from)
                    self.throughput.append(step, seconds, self._tokens_per_step / seconds)
                    progress.update(step, loss, seconds, self._tokens_per_step / seconds)
                    self._validate_sample_save(step, stopping)
                    follow()
                    started, timed_from = time.perf_counter(), step
                if stopping and step < total:
                    raise Interrupted(
                        f"{STOPPED} {step} of {total}, state saved; the same command continues from there"
                    )
        self._finish()

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.training.steps

    def _something_is_due(self, step: int) -> bool:
        t = self.training
        intervals = (t.log_every_steps, t.validate_every_steps, t.sample_every_steps, t.save_every_steps)
        history_is_full = step - self._recorded_step == self.trainer.steps_ahead
        return history_is_full or any(self._due(step, every) for every in intervals)

    def _validate_sample_save(self, step: int, stopping: bool) -> None:
        """Validate, sample and save, each if it is due after this step."""
        if self._due(step, self.training.validate_every_steps):
            self._validate(step)
        if self._due(step, self.training.sample_every_steps):
            append(self.samples, f"--- step {step}\n{self._sampler(self.trainer.compute_weights)}\n\n")
        if stopping or self._due(step, self.training.save_every_steps):
            self.states.save(step, self.trainer.read_state(), {"step": step, "best_loss": self._best_loss})

    def _resume_or_begin(self) -> int:
        """Load the last saved state, or initialize the weights and files. Return the last finished step, or 0."""
        fields = {name: (field.shape, field.dtype.numpy) for name, field in self.trainer.state_fields.items()}
        state = self.states.load_last(fields)
        if state is not None and state[1]["best_loss"] < math.inf and not self.states.best.exists():
            LOG.warning("%s: is missing; starting at step 1", self.states.best)
            state = None
        if state is not None:
            arrays, progress = state
            self.trainer.write_state(arrays)
            self._best_loss, self._recorded_step = float(progress["best_loss"]), int(progress["step"])
            done = f"; to train again, remove {self.states.root}" if self._recorded_step == self.training.steps else ""
            LOG.info("resuming after step %d of %d%s", self._recorded_step, self.training.steps, done)
            return self._recorded_step
        if refusal := self.states.refuse_others():
            LOG.warning("%s; starting at step 1", refusal)
        for name in LATER_RESULTS:  # of an earlier model
            remove(self.folder / name)
        self.trainer.initialize(self._read_initial_weights() if self._read_initial_weights else None)
        for file in (self.metrics, self.validation, self.throughput):
            file.begin()
        self.samples.write_text("", encoding="utf-8")
        origin = " from pretrained weights" if self._read_initial_weights else ""
        ranks, device = self.trainer.process_group.size, self.trainer.device.name
        where = device if ranks == 1 else f"{ranks} devices, each {device}"
        LOG.info("%s parameters%s on %s", f"{parameter_count(self.model):,}", origin, where)
        return 0

    def _record(self, step: int) -> float:
        """Append the rows of metrics.csv up to this step, and return the last loss."""
        first = self._recorded_step + 1
        for at, (loss, norm) in enumerate(self.trainer.history.read(first, step), start=first):
            if not (np.isfinite(loss) and np.isfinite(norm)):
                saved = self.states.steps()
                good = f"the last good state is {self.states.path(saved[-1])}" if saved else "no state was saved yet"
                raise UserError(
                    f"step {at}: loss is {loss}, gradient norm {norm}, expected finite numbers; {good}; "
                    "lower training.learning_rate_peak or training.clip_norm, or raise training.warmup_fraction"
                )
            self.metrics.append(at, at * self._tokens_per_step, loss, norm, learning_rate(self.training, at))
        self._recorded_step = step
        return float(loss)

    def _validate(self, step: int) -> None:
        loss, bits_per_byte = self.validation_set.measure(self.trainer.score)
        self.validation.append(step, step * self._tokens_per_step, loss, bits_per_byte)
        LOG.debug("step %d: validation loss %.4f nats per token, %.4f bits per byte", step, loss, bits_per_byte)
        if loss < self._best_loss:
            self._best_loss = loss
            self._write_weights(self.states.best, step, loss)

    def _write_weights(self, path: Path, step: int, validation_loss: float) -> None:
        metadata = {
            "model": stated(self.model),
            "step": step,
            "validation_loss_nats_per_token": validation_loss,
            "tokenizer_sha256": self.states.fingerprint["tokenizer_sha256"],
        }
        save_checkpoint(path, self.trainer.read_weights(), metadata)

    def _finish(self) -> None:
        """Write checkpoints/best.safetensors and last.safetensors, when the files that grew are on the disk."""
        for live_file in self.states.live_files:
            sync(live_file)
        checkpoints = self.folder / "checkpoints"
        _, best = load_checkpoint(self.states.best)
        with replacing(checkpoints / "best.safetensors") as file:
            file.write(self.states.best.read_bytes())
        last = read_csv(self.validation.path, {"loss_nats_per_token": float}, "run the train stage again")[-1]
        self._write_weights(checkpoints / "last.safetensors", self.training.steps, last["loss_nats_per_token"])
        LOG.info("best validation loss %.4f at step %d", best["validation_loss_nats_per_token"], best["step"])
