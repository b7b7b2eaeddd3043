"""`hipgpt info`: show the memory and the operations that a run of the config needs, before it is trained."""

import argparse
import sys
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.paths import DEFAULTS
from hipgpt.base.tables import table
from hipgpt.cli.arguments import Commands, add_command, add_json, print_json
from hipgpt.compute.backends.cpu import traits as cpu_traits
from hipgpt.compute.backends.gpu import traits as gpu_traits
from hipgpt.compute.device import DeviceAbsent, Traits
from hipgpt.compute.open_device import GPUS, open_device
from hipgpt.compute.tensor import DType
from hipgpt.config.reading import read_config
from hipgpt.config.settings import DEFAULT_RUN, Config, RunConfig
from hipgpt.data.tokens import open_split

GIB = 1 << 30


def add(commands: Commands) -> None:
    parser = add_command(commands, info, "show the parameters, memory and operations of a run before it is trained")
    parser.add_argument("--run", default=DEFAULT_RUN, help="its name in the config (default: %(default)s)")
    parser.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[],
        help="files that override config.yaml, as in snakemake (default: none)",
    )
    parser.add_argument(
        "--memory-gib",
        type=float,
        metavar="GIB",
        help="memory that the run must fit into (default: that of the device, if it is here)",
    )
    add_json(parser)


def info(arguments: argparse.Namespace) -> None:
    """Print parameters, memory by table, and operations and bytes of a training step."""
    from hipgpt.training.estimate import estimate

    if arguments.memory_gib is not None and not arguments.memory_gib > 0:
        raise UserError(f"--memory-gib: got {arguments.memory_gib}, expected a number > 0")
    config = load(arguments.configfile)
    if arguments.run not in config.runs:
        raise UserError(f"--run: no run {arguments.run!r} in the config; it has {', '.join(config.runs)}")
    run = config.runs[arguments.run]
    traits, available = _device(run.sections["device"], arguments.memory_gib)
    found = estimate(run.model, run.training, traits, _tokens(run))
    step, total = found.step, found.device_bytes + (found.host_bytes if traits.shares_host_memory else 0)
    arenas = [{"memory": name, "bytes": size} for name, size in found.arenas.items()]
    arenas += [{"memory": "all on the device", "bytes": found.device_bytes}]
    arenas += [{"memory": "the process on the host", "bytes": found.host_bytes}]
    ops = [
        {"op": name, "launches": cost.launches, "operations": cost.operations, "bytes": cost.bytes_moved}
        for name, cost in sorted(found.ops.items(), key=lambda pair: -pair[1].operations)
    ]
    ops += [{"op": "a step", "launches": step.launches, "operations": step.operations, "bytes": step.bytes_moved}]
    steps = run.training.steps
    if arguments.json:
        print_json(
            {
                "run": run.name,
                "parameters": found.parameters,
                "steps": steps,
                "tokens_per_step": found.tokens_per_step,
                "operations": steps * step.operations,
                "bytes": total,
                "available_bytes": int(available),
                "fits": total <= available,
                "memory": arenas,
                "ops": ops,
            }
        )
        return
    sys.stdout.write(f"run {run.name}: {found.parameters:,} parameters\n\n{table(arenas, 'text')}\n")
    sys.stdout.write(f"{table(ops, 'text')}\n")
    sys.stdout.write(
        f"{steps:,} steps of {found.tokens_per_step:,} tokens: {steps * found.tokens_per_step:,} tokens, "
        f"{steps * step.operations:.3g} operations\n"
    )
    verdict = "fits" if total <= available else "does not fit"
    sys.stdout.write(f"{verdict}: {total / GIB:.2f} GiB of {available / GIB:.2f} GiB\n")


def _device(name: str, memory_gib: float | None) -> tuple[Traits, float]:
    """Return the traits of a run's device, and the number of bytes that a run may use there."""
    if memory_gib is not None and name != "auto":
        traits = gpu_traits if name.startswith(GPUS) else cpu_traits
        return traits((DType.F32, DType.BF16)), memory_gib * GIB
    try:
        device = open_device(name)
    except DeviceAbsent as error:
        raise UserError(f"{error}; or say how much memory it has: --memory-gib") from error
    return device.traits, device.free_bytes() if memory_gib is None else memory_gib * GIB


def _tokens(run: RunConfig) -> int:
    """Return the number of tokens of a run's training split; 0 if the text is not tokenized yet."""
    manifest = Path("results/corpora") / run.corpus / run.tokenizer / "manifest.json"
    return len(open_split(manifest, "train")) if manifest.exists() else 0


def load(configfiles: list[Path]) -> Config:
    """Return the config that snakemake would use with these files as --configfile."""
    from hipgpt.pipeline.sweeps import load_runs

    here = Path("config.yaml")
    return load_runs(read_config(DEFAULTS, *([here] if here.exists() else []), *configfiles))
