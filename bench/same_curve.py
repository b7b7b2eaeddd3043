"""Train a run's GPT-2 in PyTorch on the same batches from the same initial weights, and compare the curves.

    python bench/same_curve.py --config adamw.yaml --results results      (in an environment with torch)
    python bench/same_curve.py --config ... --results ... --run NAME --device cuda --out curve.csv

Needs the tokens and metrics.csv of a run that AdamW trained. Without a GPU PyTorch trains in f32; on a GPU it is
compiled, in bf16 by autocast with weights in f32. Prints both losses at some steps, the mean difference of the last
hundred steps, tokens/s, and the loss of PyTorch's model on the validation split, in windows that do not overlap. --out:
a CSV of both curves.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional

from hipgpt.base.paths import DEFAULTS
from hipgpt.config.reading import load_config, read_config
from hipgpt.config.settings import NORM_EPSILON
from hipgpt.data.batches import Batches
from hipgpt.data.tokens import open_split
from hipgpt.gpt.parameters import initial_values, parameters
from hipgpt.training.schedule import learning_rate

SHOWN = {1, 2, 5, 10, 20, 50, 100}


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
    head = w["token_embedding.weight" if model.tie_embeddings else "output.weight"]
    return functional.linear(norm(x, "final_norm"), head, w.get("output.bias")).view(B * S, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=DEFAULTS, help="what overrides the defaults")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--run", default="default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, help="stop after this many steps of the schedule (default: all)")
    parser.add_argument("--out", type=Path, help="CSV of both curves")
    arguments = parser.parse_args()
    run = load_config(read_config(DEFAULTS, arguments.config)).runs[arguments.run]
    model, training, device = run.model, run.training, arguments.device
    if (model.architecture, training.optimizer) != ("gpt2", "adamw"):
        parser.error(
            f"run {arguments.run} is a {model.architecture} with {training.optimizer}, expected gpt2 with adamw: "
            "give --config a file with training: {optimizer: adamw}"
        )
    manifest = arguments.results / "corpora" / run.corpus / f"bpe-{run.vocab_size}" / "manifest.json"
    train, validation = (open_split(manifest, split) for split in ("train", "validation"))
    with open(arguments.results / "runs" / arguments.run / "metrics.csv", encoding="utf-8") as file:
        ours = {int(row["step"]): float(row["loss_nats_per_token"]) for row in csv.DictReader(file)}

    fields = parameters(model)
    w = {field.name: torch.tensor(initial_values(field, training.seed), device=device) for field in fields}
    for tensor in w.values():
        tensor.requires_grad_()
    decayed, others = ([w[field.name] for field in fields if field.decay == decay] for decay in (True, False))
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    betas = training.beta1, training.beta2
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=training.epsilon, fused=True)
    batches = Batches(train, training.batch_sequences, model.context_length, training.seed)

    def mean_loss(batch: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
            scores = logits(w, batch[:, :-1], model)
        return functional.cross_entropy(scores.float(), batch[:, 1:].reshape(-1), reduction=reduction)

    training_loss = torch.compile(mean_loss) if device == "cuda" else mean_loss
    losses: list[torch.Tensor] = []
    accumulated = training.accumulation_steps
    steps = arguments.steps or training.steps
    started = time.perf_counter()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        optimizer.zero_grad()
        parts = []
        for micro_step in range((step - 1) * accumulated, step * accumulated):
            batch = torch.from_numpy(batches.batch(micro_step)).to(device, non_blocking=True).long()
            loss = training_loss(batch) / accumulated
            loss.backward()
            parts.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(w.values(), training.clip_norm)
        optimizer.step()
        losses.append(sum(parts))
        if step == 10:
            losses[-1].item()  # waits
            started = time.perf_counter()
        if step in SHOWN or step % 250 == 0:
            print(f"step {step:5d}: loss {ours[step]:.6f} ours, {losses[-1].item():.6f} PyTorch", flush=True)
    theirs = [float(loss) for loss in losses]
    tokens = (steps - 10) * training.batch_sequences * accumulated * model.context_length
    print(f"PyTorch: {tokens / (time.perf_counter() - started):,.0f} tokens/s from step 11 on")
    difference = np.array([ours[step] for step in range(1, steps + 1)]) - theirs
    print(f"largest difference of the first 20 steps: {np.abs(difference[:20]).max():.2e}")
    print(f"ours less PyTorch's, mean of the last 100 steps: {difference[-100:].mean():+.4f}")
    if arguments.out:
        rows = ((step, ours[step], theirs[step - 1]) for step in range(1, steps + 1))
        with open(arguments.out, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("step", "ours_nats_per_token", "pytorch_nats_per_token"), *rows])

    S = model.context_length
    windows = torch.from_numpy(validation.windows(np.arange((len(validation) - 1) // S) * S, S + 1)).long()
    parts_of_windows = windows.split(max(1, 16384 // S))
    with torch.no_grad():
        total = sum(mean_loss(part.to(device), "sum").item() for part in parts_of_windows)
    print(f"PyTorch: {total / (len(windows) * S):.4f} nats per token on all plain windows of {S}")


if __name__ == "__main__":
    main()
