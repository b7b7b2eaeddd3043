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
        self.second_moment = Arena(device, "second_moment", weights.fields)
        self._scratch = Arena(device, "optimizer", [Field("norm", (1,)), Field("partials", (NORM_PARTS,))])
        self.norm = self._scratch["norm"]

    @property
    def given(self) -> list[Tensor]:
        """The tensors that must hold values before an update."""
        return [self.weights.flat, self.first_moment.flat, self.second_moment.flat]

    def update(
        self, plan: Plan, gradients: Arena, schedule: Tensor, counters: Tensor, copy: Arena | None = None
    ) -> None:
        """Record the global norm of the gradients, then AdamW. The gradients are zero afterwards.

        schedule (K, 3): rows of the function `schedule`; counters: select the row. copy: the copy of the weights that
        the passes read, which is written too.
        """
        training = self.training
        plan(SUM_OF_SQUARES, self._scratch["partials"], gradients.flat)
        plan(GRADIENT_NORM, self.norm, self._scratch["partials"])
        settings = {"beta1": training.beta1, "beta2": training.beta2, "epsilon": training.epsilon}
        settings |= {"weight_decay": training.weight_decay, "clip_norm": training.clip_norm}
        arenas = self.weights, self.first_moment, self.second_moment, gradients
        tensors = [arena.flat for arena in arenas] + [copy.flat if copy else None]
        plan(ADAMW, *tensors, self.norm, schedule, counters, **settings, decayed=self._decayed_elements)

    @property
    def _decayed_elements(self) -> int:
        undecayed = next(field for field in self.weights.fields if not field.decay)
        return self.weights.offsets[undecayed.name] // DType.F32.size_bytes
