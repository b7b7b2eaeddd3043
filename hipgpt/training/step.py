"""One training step on a device: its plans are recorded once, then replayed."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.compute.communicator import BROADCAST, REDUCE
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.process_group import END
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.data.batches import Batches, TokenSequence
from hipgpt.gpt.activations import activation_gradients, activations
from hipgpt.gpt.blocking import blocking
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors, initial_values, parameters
from hipgpt.gpt.precision import RoundedCopy, act_of
from hipgpt.gpt.scoring import Scorer
from hipgpt.gpt.token_layers import fused_layers
from hipgpt.training.muon import Muon
from hipgpt.training.optimizer import AdamW
from hipgpt.training.reduction import Reduction
from hipgpt.training.step_io import StepHistory, StepInputs, steps_ahead

P = ParamSpec("P")
R = TypeVar("R")
TOLD = {"receive_weights", "receive_moments", "score_part"}  # methods that rank 0 may tell other ranks to call


def on_every_rank(method: Callable[Concatenate["Trainer", P], R]) -> Callable[Concatenate["Trainer", P], R]:
    """Make a call of this method on rank 0 a call on all ranks. Its arguments are numbers."""
    TOLD.add(method.__name__)

    @functools.wraps(method)
    def told_to_all(self: "Trainer", /, *arguments: P.args, **keywords: P.kwargs) -> R:
        assert not keywords, f"{method.__name__}: other ranks are told numbers without names"
        self.process_group.tell(method.__name__, *arguments)
        return method(self, *arguments, **keywords)

    return told_to_all


class Trainer:
    """One model in training on one device: weights, moments, gradients, and the plans of a step.

    weights: the parameters, f32.
    compute_weights: the weights that the passes read: the same tensors, or a copy in bf16.
    steps_ahead: the number of steps whose results
    the history holds; it must be read before it is full.
    Several ranks train one model together if the device's communicator has a process group: each takes its part of
    every batch and updates the weights that it owns. Only rank 0 is called; the others `follow`.

    In mixed precision the passes use activations and a copy of the weights in bf16. Weights, moments, gradients of
    weights, sums and losses stay f32. Micikevicius et al. 2018, arXiv:1710.03740. The loss is not scaled, because bf16
    has the exponent range of f32: Kalamkar et al. 2019, arXiv:1905.12322.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, device: Device, batches: Batches):
        self.model, self.training, self.device = model, training, device
        self.process_group = device.communicator.group
        B, S, act = batches.sequences, model.context_length, act_of(training.precision, device)
        table = parameters(model)
        self.weights = Arena(device, "weights", table)
        self._copy = RoundedCopy(device, self.weights, act) if act is not DType.F32 else None
        self.compute_weights = ParameterTensors(self._copy.arena if self._copy else self.weights, model)
        self.gradients = Arena(device, "gradients", table)
        self.optimizer = (
            Muon(device, self.weights, training, act)
            if training.optimizer == "muon"
            else AdamW(device, self.weights, training)
        )
        # act, because an estimate of memory may assume f32 for a device that will train in bf16
        reduced = act if training.reduce_precision == "bfloat16" else DType.F32
        self.reduction = Reduction(device, self.gradients, self.optimizer.ownership, reduced)
        self.steps_ahead = steps_ahead(training, S)
        self.history = StepHistory(device, self.steps_ahead)
        self.step_inputs = StepInputs(device, batches, training, self.steps_ahead)
        self.blocking = blocking(model, B, S, act, device)
        shapes = {"tokens": (B, S), "targets": (B * S,), "starts": (self.blocking.sequences,)}
        self._batch = Arena(device, "batch", [Field(name, shape, DType.I32) for name, shape in shapes.items()])
        self._loss = Arena(device, "loss", [Field("loss", (1,))])["loss"]
        sizes = model, self.blocking.sequences, S, act
        self._saved = Arena(device, "activations", activations(*sizes, self.blocking.logit_rows))
        shared, rows = (device, model, self.compute_weights, self._saved), self.blocking.sequences * S
        self._token_layers, fused_table = fused_layers(*shared, rows, training.drop_probability)
        gradient_table = activation_gradients(*sizes, self.blocking.of_output_layer, fused_table)
        self._activation_gradients = Arena(device, "activation_gradients", gradient_table)
        self._scorer = Scorer(device, model, self.compute_weights, self.blocking.sequences, self._saved)
        # A step replays micro_plan accumulation_steps - 1 times, then last_plan once, so that the time to record them
        # does not grow with accumulation_steps.
        self.micro_plan = self._record(act, last=False) if training.accumulation_steps > 1 else None
        self.last_plan = self._record(act, last=True)

    def _record(self, act: DType, last: bool) -> Plan:
        """Record the passes of a micro-batch, one group of sequences after the other. last: record the update too."""
        training, inputs, loss = self.training, self.step_inputs, self._loss
        tokens, targets = self._batch["tokens"], self._batch["targets"]
        given = [*self.optimizer.given, *self.history.given, *inputs.given, self.compute_weights.arena.flat]
        name = "last micro-batch and update" if last else "micro-batch"
        plan = Plan(self.device, name, [*given, self.gradients.flat, loss, self._batch["starts"]], act)
        gradients = ParameterTensors(self.gradients, self.model), self._activation_gradients
        dropout = {"drop_probability": training.drop_probability, "counters": inputs.counters}
        scale = 1 / (targets.elements * self.process_group.size * training.accumulation_steps)
        inputs.record(plan, tokens, targets.view(*tokens.shape))
        for group in range(tokens.shape[0] // self.blocking.sequences):
            network, group_targets = self._network(group, **dropout)
            network.forward(plan)
            network.training_loss(plan, loss, group_targets, scale, *gradients)
            network.backward(plan, *gradients)
        if last:
            copy = self._copy.arena if self._copy else None
            if self.process_group.size > 1:
                plan(REDUCE, loss, root=0)
            self.reduction.record(plan)
            self.optimizer.update(plan, self.gradients, inputs.schedule, inputs.counters, copy)
            if self.process_group.size > 1:
                plan(BROADCAST, loss, root=0)
            self.history.record(plan, loss, self.optimizer.norm, inputs.counters)
        else:
            inputs.record_advance(plan)
        return plan

    def _network(self, group: int, **dropout: Any) -> tuple[Network, Tensor]:
        """Return the network of a group of sequences, and the targets of the group."""
        first, last = group * self.blocking.sequences, (group + 1) * self.blocking.sequences
        group += self.process_group.rank * self._batch["tokens"].shape[0] // self.blocking.sequences
        tokens, starts, S = self._batch["tokens"].rows(first, last), self._batch["starts"], self.model.context_length
        passes = {"token_layers": self._token_layers, "group": group, **dropout}
        network = Network(self.model, self.compute_weights, self._saved, tokens, starts, **passes)
        return network, self._batch["targets"].rows(first * S, last * S)

    def initialize(self, weights: Mapping[str, NDArray[np.float32]] | None = None) -> None:
        """Set the weights of all ranks to these, by name, or draw them from the seed."""

        def values_of(field: Field) -> NDArray[np.float32]:
            return initial_values(field, self.training.seed) if weights is None else weights[field.name]

        self.process_group.tell("receive_weights")
        self.receive_weights(values_of)

    def receive_weights(self, values_of: Callable[[Field], NDArray[np.float32]] | None = None) -> None:
        """Set the weights to those of rank 0, which gives them as a function of the field."""
        for field in self.weights.fields:
            values = values_of(field) if values_of else np.empty(field.shape, np.float32)
            self.process_group.share(values)
            self.device.write(self.weights[field.name], values)
        self.weights_written()

    def weights_written(self) -> None:
        """Update the copy that the passes read. Must be called after `weights` were set from outside."""
        if self._copy:
            self._copy.renew()

    @property
    def plans(self) -> list[Plan]:
        """All plans that this rank runs."""
        copy = [self._copy.plan] if self._copy else []
        return [*copy, *([self.micro_plan] if self.micro_plan else []), self.last_plan, self._scorer.plan]

    def compile(self, others: Sequence[Plan] = ()) -> None:
        """Compile the kernels of all plans, and of other ones that will run between steps.

        In one go: a kernel that is compiled later is announced by a line of its own, and in the middle of the bar.
        """
        self.device.compile([launch for plan in [*self.plans, *others] for launch in plan.launches])

    @on_every_rank
    def prepare(self) -> None:
        """Compile and bind all plans now, so that the time of the first step does not include compilation."""
        for plan in self.plans:
            plan.prepare()

    @on_every_rank
    def step(self, step: int) -> None:
        """Run one optimizer step. Steps count from 1; loss and gradient norm are added to the history."""
        self.step_inputs.prepare(step)
        if self.micro_plan:
            for _ in range(self.training.accumulation_steps - 1):
                self.micro_plan.run()
        self.last_plan.run()

    def score(self, windows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the losses (n, S) of windows (n, S + 1) with the current weights: each rank scores a part of them."""
        self.process_group.tell("score_part", len(windows))
        return self.score_part(len(windows), windows)

    def score_part(self, count: int, windows: NDArray[np.int32] | None = None) -> NDArray[np.float32]:
        """Score this rank's part of the windows that rank 0 gives. On rank 0, return the losses of all."""
        group, S = self.process_group, self.model.context_length
        bounds = [count * rank // group.size for rank in range(group.size + 1)]
        found, own = np.empty((count, S), np.float32), slice(bounds[group.rank], bounds[group.rank + 1])
        given = np.empty((count, S + 1), np.int32) if windows is None else windows
        for rank, (first, last) in enumerate(itertools.pairwise(bounds)):
            group.take(rank, given[first:last])
        for first in range(own.start, own.stop, self._scorer.sequences):
            last = min(first + self._scorer.sequences, own.stop)
            found[first:last] = self._scorer(given[first:last]).nats
        for rank, (first, last) in enumerate(itertools.pairwise(bounds)):
            group.bring(rank, found[first:last])
        return found

    @property
    def state_fields(self) -> dict[str, Field]:
        """The arrays that a run resumes from, by name."""
        return {f"{arena.name}.{field.name}": field for arena, fields in self._state for field in fields}

    @on_every_rank
    def read_state(self) -> dict[str, NDArray[Any]]:
        """Return, on rank 0, the arrays that a run resumes from."""
        found: dict[str, NDArray[Any]] = {}
        for arena, fields in self._state:
            found |= self.optimizer.ownership.gather(self.device, arena, fields)
        return found

    def write_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue, on all ranks, from arrays of `read_state`."""
        self.initialize({field.name: arrays[f"{self.weights.name}.{field.name}"] for field in self.weights.fields})
        self.process_group.tell("receive_moments")
        self.receive_moments(arrays)

    def receive_moments(self, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Set the moments of the weights that this rank owns to those of rank 0, which gives `arrays`."""
        for arena, fields in self._state[1:]:
            self.optimizer.ownership.scatter(self.device, arena, fields, arrays or {})

    @on_every_rank
    def read_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return, on rank 0, the weights by name."""
        arrays = self.optimizer.ownership.gather(self.device, self.weights, self.weights.fields)
        return {name.removeprefix(f"{self.weights.name}."): values for name, values in arrays.items()}

    @property
    def _state(self) -> list[tuple[Arena, Sequence[Field]]]:
        """The arenas that a run resumes from, with the fields that all ranks together have of each."""
        fields, optimizer = self.weights.fields, self.optimizer
        adamw_moved = [field for field in fields if optimizer.moved_by_adamw(field)]
        moments = (optimizer.first_moment, fields), (optimizer.second_moment, adamw_moved)
        return [(self.weights, fields), *moments]

    def follow(self) -> None:
        """Make the calls that rank 0 makes, until it ends. Raises UserError if it has gone, or says something else."""
        while (told := self.process_group.told())[0] != END:
            name, *numbers = told
            if name not in TOLD:
                raise UserError(f"rank {self.process_group.rank}: rank 0 said {name!r}, expected one of {sorted(TOLD)}")
            getattr(self, name)(*numbers)


def trainer_of(model: ModelConfig, training: TrainingConfig, device: Device, tokens: TokenSequence) -> Trainer:
    """Return the trainer of the training split for this rank of the device's process group."""
    group, S = device.communicator.group, model.context_length
    batches = Batches(tokens, training.batch_sequences, S, training.seed, group.rank, group.size)
    return Trainer(model, training, device, batches)
