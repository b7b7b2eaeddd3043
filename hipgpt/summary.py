"""results/summary.csv: one row a run."""

from pathlib import Path

import pandas as pd

from hipgpt.checkpoint import load_checkpoint
from hipgpt.config import ModelConfig
from hipgpt.files import replacing
from hipgpt.model import parameter_count


def summarize(folders: list[Path], table: Path) -> None:
    """Write a row for each run's folder: its size, what it has seen, what it reaches, how fast it went."""
    with replacing(table) as file:
        file.write(pd.DataFrame([_row(folder) for folder in folders]).to_csv(index=False, float_format="%.7g").encode())


def _row(folder: Path) -> dict[str, str | int | float]:
    _, metadata = load_checkpoint(folder / "checkpoints" / "best.safetensors")
    model = ModelConfig(**metadata["model"])
    evaluation = pd.read_csv(folder / "evaluation.csv").set_index("predictor").loc["model"]
    last = pd.read_csv(folder / "metrics.csv").iloc[-1]
    return {
        "run": folder.name,
        "parameters": parameter_count(model),
        "vocab_size": model.vocab_size,
        "steps": int(last.step),
        "tokens_seen": int(last.tokens_seen),
        "best_step": metadata["step"],
        "validation_loss_nats_per_token": evaluation.loss_nats_per_token,
        "validation_bits_per_byte": evaluation.bits_per_byte,
        "next_token_accuracy": evaluation.next_token_accuracy,
        "median_tokens_per_second": pd.read_csv(folder / "throughput.csv").tokens_per_second.median(),
    }
