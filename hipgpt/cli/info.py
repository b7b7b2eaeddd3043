"""`hipgpt info`: show the memory and the operations that a run of the config needs, before it is trained."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hipgpt.base.errors import UserError
from hipgpt.base.nearest import names_like
from hipgpt.base.tables import table
from hipgpt.cli.arguments import Commands, add_command, add_configfile, add_json, number, print_json
from hipgpt.compute.backends.cpu import traits as cpu_traits
from hipgpt.compute.backends.gpu import traits as gpu_traits
from hipgpt.compute.device import DeviceAbsent, Traits
from hipgpt.compute.open_device import GPUS, count_devices, open_device
from hipgpt.compute.tensor import DType
from hipgpt.config.reading import read_config, with_defaults
from hipgpt.config.settings import Config, RunConfig
from hipgpt.data.tokens import open_split

if TYPE_CHECKING:  # plans take long to import, and other commands need not wait
    from hipgpt.training.estimate import Estimate

GIB = 1 << 30
CONFIG = Path("config.yaml")


def add(commands: Commands) -> None:
    parser = add_command(commands, info, "show the parameters, memory and operations of a run before it is trained")
    parser.add_argument("--run", metavar="NAME", help="its name in the config (default: that of the key `name`)")
    add_configfile(parser)
    parser.add_argument(
        "--memory-gib",
        type=number,
        metavar="GIB",
        help="memory that the run must fit into (default: that of the device, if it is here)",
    )
    parser.add_argument(
        "--measure", action="store_true", help="run 20 steps on the device, and show the time to the end (default: no)"
    )
    add_json(parser)


def info(arguments: argparse.Namespace) -> None:
    """Print parameters, memory by table, and operations and bytes of a step. Exit with 1 if the run does not fit."""
    from hipgpt.training.estimate import estimate

    if arguments.memory_gib is not None and not arguments.memory_gib > 0:
        raise UserError(f"--memory-gib: got {arguments.memory_gib}, expected a number > 0")
    config = load(arguments.configfile)
    name = arguments.run or config.name
    if name not in config.runs:
        raise UserError(f"--run: no run {name!r} in the config; it has {names_like(name, config.runs)}")
    run = config.runs[name]
    ranks = devices_of(run)
    traits, available = _device(run.sections["device"], arguments.memory_gib)
    found = estimate(run.model, run.training, traits, _tokens(run), ranks)
    shared = traits.shares_host_memory
    total = ranks * (found.device_bytes + found.host_bytes) if shared else found.device_bytes
    fits = total <= available
    seconds = _measured(run, ranks) if arguments.measure and fits else None
    if arguments.json:
        print_json(_document(run, found, ranks, total, available, seconds))
    else:
        if not CONFIG.exists():
            sys.stdout.write(
                f"no {CONFIG} here: the packaged default{' and --configfile' * bool(arguments.configfile)}\n"
            )
        _show(run, found, ranks, seconds)
        verdict = "fits" if fits else "does not fit"
        where = " on each" if ranks > 1 and not shared else ""
        sys.stdout.write(f"{verdict}: {total / GIB:.2f} GiB of {available / GIB:.2f} GiB{where}\n")
    if not fits:
        sys.exit(1)


def devices_of(run: RunConfig) -> int:
    """Return how many devices would train a run here."""
    devices = run.sections["devices"]
    return count_devices(run.sections["device"]) if devices == "auto" else int(devices)


def _measured(run: RunConfig, ranks: int) -> float:
    """Return the seconds of a step on this machine's device, which takes one rank's part of the batch."""
    from hipgpt.training.measure import seconds_per_step

    part = dataclasses.replace(run.training, batch_sequences=run.training.batch_sequences // ranks)
    return seconds_per_step(run.model, part, open_device(run.sections["device"]))


def _arenas(found: "Estimate") -> list[dict[str, Any]]:
    arenas = [{"memory": name, "bytes": size} for name, size in found.arenas.items()]
    arenas += [{"memory": "all on the device", "bytes": found.device_bytes}]
    return [*arenas, {"memory": "the process on the host", "bytes": found.host_bytes}]


def _ops(found: "Estimate") -> list[dict[str, Any]]:
    costs = [*sorted(found.ops.items(), key=lambda pair: -pair[1].operations), ("a step", found.step)]
    return [
        {"op": name, "launches": cost.launches, "operations": cost.operations, "bytes": cost.bytes_moved}
        for name, cost in costs
    ]


def _document(
    run: RunConfig, found: "Estimate", ranks: int, total: int, available: float, seconds: float | None
) -> dict[str, Any]:
    steps = run.training.steps
    return {
        "run": run.name,
        "devices": ranks,
        "parameters": found.parameters,
        "steps": steps,
        "tokens_per_step": found.tokens_per_step,
        "operations": steps * ranks * found.step.operations,
        "bytes": total,
        "available_bytes": int(available),
        "fits": total <= available,
        "seconds_per_step": seconds,
        "hours": steps * seconds / 3600 if seconds else None,
        "memory": _arenas(found),
        "ops": _ops(found),
    }


def _show(run: RunConfig, found: "Estimate", ranks: int, seconds: float | None) -> None:
    each = f"\nEach of {ranks} devices, with its part of every batch:\n" if ranks > 1 else ""
    arenas = [{**arena, "GiB": round(arena["bytes"] / GIB, 3)} for arena in _arenas(found)]
    sys.stdout.write(f"run {run.name}: {found.parameters:,} parameters\n{each}\n{table(arenas, 'text')}\n")
    sys.stdout.write(f"{table(_ops(found), 'text')}\n")
    steps, tokens = run.training.steps, found.tokens_per_step
    sys.stdout.write(
        f"{steps:,} steps of {tokens:,} tokens: {steps * tokens:,} tokens, "
        f"{steps * ranks * found.step.operations:.3g} operations\n"
    )
    if seconds:
        sys.stdout.write(
            f"measured here: {seconds * 1000:,.1f} ms a step, {tokens / seconds:,.0f} tokens/s, "
            f"{found.step.operations / seconds:.3g} operations/s a device; "
            f"{_duration(steps * seconds)} for all steps\n"
        )
        if ranks > 1:
            sys.stdout.write("one device was measured; what the devices send each other comes on top\n")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:,.1f} hours"


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

    return load_runs(with_defaults(read_config(*([CONFIG] if CONFIG.exists() else []), *configfiles)))
