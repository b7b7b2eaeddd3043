"""Train a GPT: writes checkpoints, curves as CSV, samples and resumable state into a folder."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from hipgpt.backends.device import open_device
from hipgpt.code_hash import code_hash
from hipgpt.config import ModelConfig, TrainingConfig
from hipgpt.errors import exit_on_user_error
from hipgpt.files import alone_in, sha256_of
from hipgpt.gpt2 import files_sha256
from hipgpt.metrics import start_log
from hipgpt.precision import on_device
from hipgpt.provenance import write_record
from hipgpt.sampling import training_sampler
from hipgpt.shards import open_split
from hipgpt.slurm import requeue_at_the_time_limit
from hipgpt.tokenizer import Tokenizer
from hipgpt.trainer import Splits
from hipgpt.training import Interrupted, Run


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=json.loads, help="the model section and vocab_size, as JSON")
    parser.add_argument("--training", required=True, type=json.loads, help="the training section, as JSON")
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.json")
    parser.add_argument("--manifest", required=True, type=Path, help="manifest.json of the token shards")
    parser.add_argument("--corpus", required=True, type=Path, help="provenance.json of the corpus")
    parser.add_argument("--pretrained", type=Path, help="Hugging Face directory of the weights to begin with")
    parser.add_argument("--output", required=True, type=Path, help="the run's folder")
    parser.add_argument("--device", default="auto", help="cpu, cuda, hip, or auto for the best present")
    parser.add_argument("--threads", type=int, help="threads of the CPU kernels (default: all cores)")
    parser.add_argument("--log", type=Path, help="file that gets a copy of all messages")
    arguments = parser.parse_args()

    start_log(arguments.log)
    tokenizer, device = Tokenizer.load(arguments.tokenizer), open_device(arguments.device, arguments.threads)
    model, training = ModelConfig(**arguments.model), on_device(TrainingConfig(**arguments.training), device)
    train, validation = (open_split(arguments.manifest, split, tokenizer.sha256) for split in ("train", "validation"))
    fingerprint = {
        "model": asdict(model),
        "training": asdict(training),
        "tokenizer_sha256": tokenizer.sha256,
        "data_sha256": sha256_of(arguments.manifest),
        "code": code_hash("hipgpt.training"),
        "device": device.backend,
        "pretrained_sha256": files_sha256(arguments.pretrained) if arguments.pretrained else None,
    }
    splits = Splits(train, validation, tokenizer.byte_counts)
    sampler = training_sampler(device, model, training, tokenizer)
    config = {"device": arguments.device, "model": asdict(model), "training": asdict(training)}
    with alone_in(arguments.output, "another process is training this run"):
        write_record(arguments.output / "run.json", config, fingerprint, device, arguments.corpus)
        try:
            Run(model, training, device, splits, arguments.output, fingerprint, sampler, arguments.pretrained).run()
        except Interrupted:
            requeue_at_the_time_limit(os.environ)
            raise


if __name__ == "__main__":
    main()
