"""Train the default run's model in PyTorch on the same batches from the same initial weights, and compare the curves.

    python bench/same_curve.py --results results --steps 1500      (in an environment with torch)

Needs a finished run `default`. Prints both losses at some steps, the largest difference of the first 20 steps, and the
final loss of PyTorch's model on the validation split, in windows that do not overlap.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
import yaml

from hipgpt.config.reading import load_config
from hipgpt.config.settings import NORM_EPSILON
from hipgpt.data.batches import Batches
from hipgpt.data.tokens import open_split
from hipgpt.gpt.parameters import initial_values, parameters
from hipgpt.training.schedule import learning_rate


def logits(w: dict[str, torch.Tensor], tokens: torch.Tensor, model) -> torch.Tensor:
    """Return the logits (B * S, V) of tokens (B, S) from the same GPT-2, by PyTorch's own operations."""
    B, S = tokens.shape
    E, H = model.embed_dim, model.num_heads

    def norm(x, name):
        return functional.layer_norm(x, (E,), w[f"{name}.gamma"], w[f"{name}.beta"], NORM_EPSILON)

    def linear(x, name):
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = w["token_embedding.weight"][tokens] + w["position_embedding.weight"][:S]
    for i in range(model.num_layers):
        qkv = linear(norm(x, f"block{i}.attention_norm"), f"block{i}.qkv").view(B, S, 3, H, E // H)
        attended = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), is_causal=True)
        x = x + linear(attended.transpose(1, 2).reshape(B, S, E), f"block{i}.projection")
        hidden = functional.gelu(linear(norm(x, f"block{i}.mlp_norm"), f"block{i}.mlp_in"), approximate="tanh")
        x = x + linear(hidden, f"block{i}.mlp_out")
    return linear(norm(x, "final_norm"), "output").view(B * S, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--steps", type=int, help="stop after this many steps of the schedule (default: all)")
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    run = load_config(yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))).runs["default"]
    model, training = run.model, run.training
    manifest = arguments.results / "corpora" / run.corpus / f"bpe-{run.vocab_size}" / "manifest.json"
    train, validation = (open_split(manifest, split) for split in ("train", "validation"))
    with open(arguments.results / "runs" / "default" / "metrics.csv", encoding="utf-8") as file:
        ours = [float(row["loss_nats_per_token"]) for row in csv.DictReader(file)]

    fields = parameters(model)
    w = {field.name: torch.tensor(initial_values(field, training.seed), requires_grad=True) for field in fields}
    decayed, others = ([w[field.name] for field in fields if field.decay == decay] for decay in (True, False))
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(training.beta1, training.beta2), eps=training.epsilon)
    batches = Batches(train, training.batch_sequences, model.context_length, training.seed)
    theirs = []
    for step in range(1, (arguments.steps or training.steps) + 1):
        batch = torch.from_numpy(batches.batch(step - 1)).long()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        loss = functional.cross_entropy(logits(w, batch[:, :-1], model), batch[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), training.clip_norm)
        optimizer.step()
        theirs.append(loss.item())
        if step in (1, 2, 5, 10, 20, 50, 100) or step % 250 == 0:
            print(f"step {step:5d}: loss {ours[step - 1]:.6f} ours, {theirs[-1]:.6f} PyTorch", flush=True)
    first = np.abs(np.array(ours[:20]) - theirs[:20]).max()
    print(f"largest difference of the first 20 steps: {first:.2e}")

    S = model.context_length
    windows = torch.from_numpy(validation.windows(np.arange((len(validation) - 1) // S) * S, S + 1)).long()
    with torch.no_grad():
        losses = [
            functional.cross_entropy(logits(w, part[:, :-1], model), part[:, 1:].reshape(-1), reduction="sum").item()
            for part in windows.split(256)
        ]
    print(f"PyTorch: {sum(losses) / (len(windows) * S):.4f} nats per token on all plain windows of {S}")


if __name__ == "__main__":
    main()
