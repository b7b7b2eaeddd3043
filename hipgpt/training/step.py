"""A model in training on a device: two plans, recorded once and replayed: a whole step, and a validation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.data.batches import Batches
from hipgpt.gpt.activations import activation_gradients, activations
from hipgpt.gpt.blocking import has_output_layer, rows_of_logits, sequences_at_a_time
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import Weights, initial_values, parameters
from hipgpt.gpt.precision import RoundedCopy, act_of
from hipgpt.training.optimizer import AdamW
from hipgpt.training.step_io import StepHistory, StepInputs


class Trainer:
    """One model in training on one device: weights, moments, gradients, and the plans over them.

    weights: the parameters, f32; computed: what the passes compute with, the same or a copy of them in bf16;
    at_a_time: how many sequences they take at a time.
    In mixed precision the passes compute with activations and a copy of the weights in bf16; weights, moments,
    gradients of weights, sums and losses stay f32. Micikevicius et al. 2018, arXiv:1710.03740; bf16's exponents need no
    scaling of the loss: Kalamkar et al. 2019, arXiv:1905.12322.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, device: Device, batches: Batches):
        self.model, self.training, self.device = model, training, device
        B, S = training.batch_sequences, model.context_length
        fields = parameters(model)
        self.act = act_of(training.precision, device)
        self.weights = Arena(device, "weights", fields)
        self._copy = RoundedCopy(device, self.weights, self.act) if self.act is not DType.F32 else None
        self.gradients = Arena(device, "gradients", fields)
        self.optimizer = AdamW(device, self.weights, training)
        self.history = StepHistory(device, training.log_every_steps)
        self.step_inputs = StepInputs(device, batches, training, training.log_every_steps)
        G = self.at_a_time = sequences_at_a_time(model, B, S, self.act, device)
        fields = [Field("tokens", (B, S)), Field("targets", (B * S,)), Field("starts", (G,)), Field("ranks", (G * S,))]
        self._batch = Arena(device, "batch", [dataclasses.replace(field, dtype=DType.I32) for field in fields])
        self._loss = Arena(device, "loss", [Field("loss", (1,))])["loss"]
        logit_rows = rows_of_logits(model, G * S, device)
        self._saved = Arena(device, "activations", activations(model, G, S, self.act, logit_rows))
        kept = logit_rows if has_output_layer(device) else None
        self._scratch = Arena(device, "activation_gradients", activation_gradients(model, G, S, self.act, kept))
        self.computed = Weights(self._copy.arena if self._copy else self.weights, model)
        self.step_plan, self._validation = self._record_step(), self._record_validation()

    def _record_step(self) -> Plan:
        """Record every micro-batch of a step, forward and backward by groups of sequences, and the update."""
        training, inputs, loss = self.training, self.step_inputs, self._loss
        computed, gradients = self.computed.arena.flat, self.gradients
        tokens, targets = self._batch["tokens"], self._batch["targets"]
        given = [*self.optimizer.given, *self.history.given, *inputs.given, computed, gradients.flat, loss]
        plan = Plan(self.device, "step", [*given, self._batch["starts"]], self.act)
        passed_back = Weights(gradients, self.model), self._scratch
        dropout = {"drop_probability": training.drop_probability, "counters": inputs.counters}
        groups = [self._network(group, **dropout) for group in range(training.batch_sequences // self.at_a_time)]
        scale = 1 / (targets.elements * training.accumulation_steps)
        for micro_step in range(training.accumulation_steps):
            if micro_step:
                inputs.record_advance(plan)
            inputs.record(plan, tokens, targets.view(*tokens.shape))
            for network, wanted in groups:
                network.forward(plan)
                network.training_loss(plan, loss, wanted, scale, *passed_back)
                network.backward(plan, *passed_back)
        self.optimizer.update(plan, gradients, inputs.schedule, inputs.counters, self._copy and self._copy.arena)
        self.history.record(plan, loss, self.optimizer.norm, inputs.counters)
        return plan

    def _record_validation(self) -> Plan:
        given = [self._batch[name] for name in ("tokens", "targets", "starts")]
        plan = Plan(self.device, "validation", [self.computed.arena.flat, *given], self.act)
        network, wanted = self._network(group=0)
        network.forward(plan)
        network.losses(plan, wanted, self._batch["ranks"])
        return plan

    def _network(self, group: int, **dropout: Any) -> tuple[Network, Tensor]:
        """Return the network of a group of the batch's sequences, and their targets."""
        first, last = group * self.at_a_time, (group + 1) * self.at_a_time
        tokens, targets, S = self._batch["tokens"].rows(first, last), self._batch["targets"], self.model.context_length
        network = Network(self.model, self.computed, self._saved, tokens, self._batch["starts"], group=group, **dropout)
        return network, targets.rows(first * S, last * S)

    def initialize(self, weights: Mapping[str, np.ndarray] | None = None) -> None:
        """Begin with these weights by name, or draw them from the seed."""
        for field in self.weights.fields:
            values = initial_values(field, self.training.seed) if weights is None else weights[field.name]
            self.device.write(self.weights[field.name], values)
        self.weights_written()

    def weights_written(self) -> None:
        """Renew the copy that the passes compute with; to be called when `weights` were set from outside."""
        if self._copy:
            self._copy.renew()

    def prepare(self) -> None:
        """Compile and bind what a step and a validation run, which the first ones would do else."""
        self.step_plan.prepare()
        self._validation.prepare()

    def step(self, step: int) -> None:
        """Run one optimizer step, counted from 1; its loss and norm go to the history."""
        self.step_inputs.prepare(step)
        self.step_plan.run()

    def losses(self, windows: np.ndarray) -> np.ndarray:
        """Return the loss in nats, (G * S) f32, of each target of the windows (G, S + 1) i32, without dropout.

        G: `at_a_time`.
        """
        G, S = self.at_a_time, self.model.context_length
        self.device.write(self._batch["tokens"].rows(0, G), np.ascontiguousarray(windows[:, :-1]))
        self.device.write(self._batch["targets"].rows(0, G * S), windows[:, 1:].ravel())
        self._validation.run()
        return self.device.read(self._saved["losses"])

    @property
    def state(self) -> list[Arena]:
        """The arenas that a resumed run needs."""
        return [self.weights, self.optimizer.first_moment, self.optimizer.second_moment]
