"""Train a GPT: writes checkpoints, curves as CSV, samples and resumable state into a folder."""

import argparse
import contextlib
import functools
import json
import os
import sys
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import add_device, parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.base.files import alone_in, sha256_of
from hipgpt.compute.device import Device
from hipgpt.compute.open_device import available_cores, count_devices, open_device
from hipgpt.compute.process_group import meet
from hipgpt.config.huggingface import files_sha256
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.config.stated import deciding, stated
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokens import open_split
from hipgpt.gpt.precision import on_device
from hipgpt.inference.samples import TrainingSampler
from hipgpt.interchange.pretrained import read_weights
from hipgpt.pipeline.code_hash import code_hash
from hipgpt.pipeline.recipes import STAGES
from hipgpt.reports.provenance import write_record
from hipgpt.training.estimate import estimate
from hipgpt.training.interruption import Interrupted
from hipgpt.training.loop import Run
from hipgpt.training.ranks import Place, leave_signals_to_rank_0, own_place, run_ranks, stop_without_parent
from hipgpt.training.slurm import requeue_at_the_time_limit
from hipgpt.training.step import trainer_of
from hipgpt.training.trackers import TRACKERS, Trackers
from hipgpt.training.validation import Splits


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=json.loads, help="the model section and vocab_size, as JSON")
    parser.add_argument("--training", required=True, type=json.loads, help="the training section, as JSON")
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.json")
    parser.add_argument("--manifest", required=True, type=Path, help="manifest.json of the token shards")
    parser.add_argument("--corpus", required=True, type=Path, help="provenance.json of the corpus")
    parser.add_argument("--pretrained", type=Path, help="Hugging Face directory with the weights to start from")
    parser.add_argument("--output", required=True, type=Path, help="the run's folder")
    parser.add_argument("--trackers", nargs="*", default=[], choices=TRACKERS, help="programs that get the curves too")
    parser.add_argument("--devices", default="1", help="devices that train together, a process each; auto: all GPUs")
    add_device(parser)
    place = own_place(os.environ)
    if place:
        stop_without_parent() if place.rank == 0 else leave_signals_to_rank_0()
    arguments = parsed(parser, place.rank if place else 0)
    devices = count_devices(arguments.device) if arguments.devices == "auto" else int(arguments.devices)
    if place is None and devices > 1:
        run_ranks([sys.executable, *sys.argv], devices)
        return
    place = place or Place()
    with contextlib.closing(meet(place.rank, place.size, place.host, place.port)) as group:
        threads = max(1, (arguments.threads or available_cores()) // place.local_size)
        train(arguments, open_device(arguments.device, threads, group, place.local_rank))


def train(arguments: argparse.Namespace, device: Device) -> None:
    tokenizer = Tokenizer.load(arguments.tokenizer)
    model, training = ModelConfig(**arguments.model), on_device(TrainingConfig(**arguments.training), device)
    known = tokenizer.sha256, tokenizer.vocab_size
    train, validation = (open_split(arguments.manifest, split, *known) for split in ("train", "validation"))
    if not device.communicator.group.leads:
        trainer_of(model, training, device, train).follow()
        return
    fingerprint = {
        "model": stated(model),
        "training": deciding(stated(training)),
        "tokenizer_sha256": tokenizer.sha256,
        "data_sha256": sha256_of(arguments.manifest),
        "code": code_hash(*STAGES["train"].modules),
        "device": device.backend,
        "pretrained_sha256": files_sha256(arguments.pretrained) if arguments.pretrained else None,
    }
    splits = Splits(train, validation, tokenizer.byte_counts)
    sampler = TrainingSampler(device, model, training, tokenizer)
    pretrained = arguments.pretrained
    read_initial_weights = functools.partial(read_weights, pretrained, model) if pretrained else None
    operations = estimate(model, training, device.traits).step.operations
    config = {
        "device": arguments.device,
        "devices": device.communicator.group.size,
        "model": stated(model),
        "training": stated(training),
    }
    with alone_in(arguments.output, "another process is training this run"):
        write_record(arguments.output / "run.json", config, fingerprint, device, arguments.corpus, operations)
        run = Run(model, training, device, splits, arguments.output, fingerprint, sampler, read_initial_weights)
        run.trainer.compile(sampler.plans(run.trainer.compute_weights))
        try:
            with Trackers(arguments.trackers, arguments.output, config) as trackers:
                run.run(trackers.follow)
        except Interrupted:
            requeue_at_the_time_limit(os.environ)
            raise


if __name__ == "__main__":
    main()
