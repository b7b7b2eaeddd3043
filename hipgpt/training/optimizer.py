"""AdamW over arenas, with gradients clipped by their global norm."""

from hipgpt.compute.catalogue import ADAMW, GRADIENT_NORM, SUM_OF_SQUARES
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import TrainingConfig

NORM_PARTS = 256


class AdamW:
    """The two moments of an arena of weights, and the ops of one update."""

    def __init__(self, device: Device, weights: Arena, training: TrainingConfig):
        self.weights, self.training = weights, training
        self.first_moment = Arena(device, "first_moment", weights.fields)
        self.second_moment = Arena(device, "second_moment", self._moved_by_adamw())
        self._scratch = Arena(device, "optimizer", [Field("norm", (1,)), Field("partials", (NORM_PARTS,))])
        self.norm = self._scratch["norm"]

    @property
    def given(self) -> list[Tensor]:
        """The tensors that must hold values before an update."""
        return [self.weights.flat, self.first_moment.flat, self.second_moment.flat]

    def update(
        self, plan: Plan, gradients: Arena, schedule: Tensor, counters: Tensor, copy: Arena | None = None
    ) -> None:
        """Record the global norm of the gradients, then the update of the weights. The gradients are zero afterwards.

        schedule (K, 3): rows of the function `schedule`; counters: select the row. copy: the copy of the weights that
        the passes read, which is written too.
        """
        plan(SUM_OF_SQUARES, self._scratch["partials"], gradients.flat)
        plan(GRADIENT_NORM, self.norm, self._scratch["partials"])
        self._record_updates(plan, gradients, schedule, counters, copy)

    def _moved_by_adamw(self) -> list[Field]:
        """Return the fields that AdamW updates, in the order of the weights."""
        return list(self.weights.fields)

    def _record_updates(
        self, plan: Plan, gradients: Arena, schedule: Tensor, counters: Tensor, copy: Arena | None
    ) -> None:
        everything = 0, self.weights.flat.elements
        self._record_adamw(plan, everything, 0, gradients, schedule, counters, copy)

    def _record_adamw(
        self,
        plan: Plan,
        elements: tuple[int, int],
        left_out: int,
        gradients: Arena,
        schedule: Tensor,
        counters: Tensor,
        copy: Arena | None,
    ) -> None:
        """Record ADAMW for the elements first to last of the weights.

        left_out: the number of elements before them that the second moment does not have.
        """
        training, (first, last) = self.training, elements
        settings = {"beta1": training.beta1, "beta2": training.beta2, "epsilon": training.epsilon}
        settings |= {"weight_decay": training.weight_decay, "clip_norm": training.clip_norm}
        weights, first_moment = (arena.flat.rows(first, last) for arena in (self.weights, self.first_moment))
        second_moment = self.second_moment.flat.rows(first - left_out, last - left_out)
        tensors = weights, first_moment, second_moment, gradients.flat.rows(first, last)
        copied = copy.flat.rows(first, last) if copy else None
        decayed = min(max(self._decayed_elements - first, 0), last - first)
        plan(ADAMW, *tensors, copied, self.norm, schedule, counters, **settings, decayed=decayed)

    @property
    def _decayed_elements(self) -> int:
        undecayed = next(field for field in self.weights.fields if not field.decay)
        return self.weights.offsets[undecayed.name] // DType.F32.size_bytes
