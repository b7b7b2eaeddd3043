"""Estimate the memory, operations and memory traffic of a training run, from plans recorded on the null device."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.backends.cpu import traits as cpu_traits
from hipgpt.compute.backends.gpu import traits as gpu_traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.device import Traits
from hipgpt.compute.launch import Launch
from hipgpt.compute.open_device import GPUS
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.gpt.decoder import Decoder
from hipgpt.gpt.parameters import parameter_count
from hipgpt.training.step import trainer_of

HOST_BYTES = 512 << 20  # Python with numpy, the compiler, mapped token shards in use
# A low estimate of the speed of our kernels, so that a job asks for too much time rather than too little.
OPERATIONS_PER_SECOND = {"cpu": 2e10, "gpu": 2e12}
STARTUP_SECONDS = 900  # compiling kernels, reading the tokens, validating, saving
DTYPES = (DType.F32, DType.BF16)  # assumed of a device that is not here: f32 is first, because it needs more memory
STATE_COPIES = 2  # host memory of a state that is being saved: the arrays, and the bytes of the file


@dataclass(frozen=True)
class Cost:
    """The cost of all launches of one op in a step."""

    launches: int = 0
    operations: int = 0
    bytes_moved: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        sums = (self.launches + other.launches, self.operations + other.operations)
        return Cost(*sums, self.bytes_moved + other.bytes_moved)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.launches * times, self.operations * times, self.bytes_moved * times)


@dataclass(frozen=True)
class Estimate:
    """What one rank needs. arenas: bytes of each arena on the device; host_bytes: memory of the process on the host.

    ops: cost of a step by op. tokens_per_step: of all ranks.
    """

    parameters: int
    arenas: Mapping[str, int]
    host_bytes: int
    ops: Mapping[str, Cost]
    tokens_per_step: int

    @property
    def device_bytes(self) -> int:
        return sum(self.arenas.values())

    @property
    def step(self) -> Cost:
        return sum(self.ops.values(), Cost())


@functools.cache
def job_resources(model: ModelConfig, training: TrainingConfig, device: str, devices: int | str) -> dict[str, int]:
    """Return the resources that a training job asks a cluster for: mem_mb, gpu, and runtime in minutes.

    device, devices: as in the config. A job asks for GPUs only if its device names them, and for one if `devices` is
    auto, because it takes those that it is given.
    """
    gpu, ranks = device.startswith(GPUS), 1 if isinstance(devices, str) else devices
    any_seed = dataclasses.replace(training, seed=0, learning_rate_peak=1.0, weight_decay=0.0)
    found = _of_any_seed(model, any_seed, gpu, ranks)
    memory = ranks * (found.host_bytes + (0 if gpu else found.device_bytes))
    speed = OPERATIONS_PER_SECOND["gpu" if gpu else "cpu"] * (ranks if gpu else 1)
    seconds = STARTUP_SECONDS + training.steps * ranks * found.step.operations / speed
    return {"mem_mb": math.ceil(memory / 1e6), "gpu": ranks * int(gpu), "runtime": math.ceil(seconds / 60)}


@functools.cache
def _of_any_seed(model: ModelConfig, training: TrainingConfig, gpu: bool, ranks: int) -> Estimate:
    """Return the estimate of runs that differ by these numbers only, because sweeps have hundreds of them."""
    return estimate(model, training, gpu_traits(DTYPES) if gpu else cpu_traits(DTYPES), ranks=ranks)


class AnyTokens:
    """A stand-in for a split of `count` tokens whose values are not read."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int32]:
        return np.broadcast_to(np.int32(0), (len(starts), length))


def estimate(model: ModelConfig, training: TrainingConfig, traits: Traits, tokens: int = 0, ranks: int = 1) -> Estimate:
    """Return the estimate of a run, for one of its ranks. Nothing is allocated or computed.

    traits: of the device that it will run on; tokens: length of the training split, which a GPU stores too. The
    workspaces of a GPU's kernels are not counted: they depend on the chip, and take some hundred MB at most.
    """
    device = NullDevice(traits, ProcessGroup(0, ranks))
    S = model.context_length
    trainer = trainer_of(model, training, device, AnyTokens(max(tokens, S + 1)))
    launches = trainer.last_plan.launches
    costs = _costs(launches)
    if trainer.micro_plan:
        for name, cost in _costs(trainer.micro_plan.launches).items():
            costs[name] = costs.get(name, Cost()) + cost * (training.accumulation_steps - 1)
    arenas = _arena_bytes(launches)
    arenas["unused in a step, and padding"] = device.allocated_bytes - sum(arenas.values())
    before = device.allocated_bytes
    Decoder(device, model, trainer.compute_weights).restart([[0] * S])
    arenas["the sampler's own"] = device.allocated_bytes - before
    state_bytes = sum(field.elements * field.dtype.size_bytes for field in trainer.state_fields.values())
    tokens_per_step = training.batch_sequences * training.accumulation_steps * model.context_length
    host_bytes = HOST_BYTES + STATE_COPIES * state_bytes
    return Estimate(parameter_count(model), arenas, host_bytes, costs, tokens_per_step)


def _costs(launches: Iterable[Launch]) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    for launch in launches:
        cost = Cost(1, launch.operations, launch.bytes_moved)
        costs[launch.op.name] = costs.get(launch.op.name, Cost()) + cost
    return costs


def _arena_bytes(launches: Iterable[Launch]) -> dict[str, int]:
    """Return how many bytes of each arena the launches touch."""
    spans: dict[str, set[tuple[int, int]]] = {}
    for launch in launches:
        for tensor in filter(None, launch.tensors):
            spans.setdefault(tensor.arena, set()).add((tensor.address, tensor.address + tensor.size_bytes))
    return {arena: _covered(sorted(pairs)) for arena, pairs in spans.items()}


def _covered(spans: list[tuple[int, int]]) -> int:
    total, reached = 0, 0
    for start, stop in spans:
        total += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return total
