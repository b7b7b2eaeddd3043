"""One rank of a small training: python rank.py RANK SIZE PORT OUTPUT DEVICE OPTIMIZER PRECISION REDUCE_PRECISION."""

import dataclasses
import sys

import numpy as np

from hipgpt.compute.open_device import open_device
from hipgpt.compute.process_group import meet
from hipgpt.config.settings import ModelConfig
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.scoring import Scorer
from hipgpt.training.step import Trainer, trainer_of
from support.training_settings import training_config

STEPS = 40
WINDOWS = (1, 37)  # fewer than ranks; several passes of a rank
MODEL = ModelConfig(50, 16, 2, 2, 32, 8, "gelu", tie_embeddings=True, output_bias=False)
GIVEN = {"seed": 1, "steps": STEPS, "batch_sequences": 12, "accumulation_steps": 2, "learning_rate_peak": 5e-3,
         "learning_rate_floor_fraction": 0.1, "warmup_fraction": 0.1, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8,
         "weight_decay": 0.1, "clip_norm": 1.0, "drop_probability": 0.1, "log_every_steps": STEPS}  # fmt: skip
TRAINING = training_config(**GIVEN)


def tokens() -> Tokens:
    """Return tokens that can be learned: three of four follow from the token before."""
    random, found = np.random.default_rng(3), [0]
    follows = random.permutation(MODEL.vocab_size)
    for surprise in random.random(2000) < 1 / 4:
        found.append(int(random.integers(MODEL.vocab_size)) if surprise else int(follows[found[-1]]))
    return Tokens([np.array(found, np.uint16)])


def windows(count: int) -> np.ndarray:
    """Return windows that do not overlap."""
    return tokens().windows(np.arange(count) * MODEL.context_length, MODEL.context_length + 1)


def trainer_on(device, optimizer: str, precision: str, reduce_precision: str = "float32") -> Trainer:
    settings = {"optimizer": optimizer, "precision": precision, "reduce_precision": reduce_precision}
    return trainer_of(MODEL, dataclasses.replace(TRAINING, **settings), device, tokens())


def main() -> None:
    rank, size, port = map(int, sys.argv[1:4])
    group = meet(rank, size, "127.0.0.1", port)
    trainer = trainer_on(open_device(sys.argv[5], 1, group, rank), *sys.argv[6:9])
    if not group.leads:
        trainer.follow()
        return
    trainer.initialize()
    for step in range(1, STEPS + 1):
        trainer.step(step)
        if step == STEPS // 2:  # as a resumed run does
            trainer.write_state(trainer.read_state())
    figures = trainer.history.read(1, STEPS)
    scored = {f"scored_{count}": trainer.score(windows(count)) for count in WINDOWS}
    alone = Scorer(trainer.device, MODEL, trainer.compute_weights, 4)
    scored |= {
        f"scored_alone_{count}": np.concatenate([alone(one[None]).nats for one in windows(count)]) for count in WINDOWS
    }
    np.savez(sys.argv[4], losses=figures[:, 0], norms=figures[:, 1], **scored, **trainer.read_state())
    group.close()


if __name__ == "__main__":
    main()
