"""Time greedy decoding with a KV cache, or the reading of prompts, compared with PyTorch: tokens/s, and the ratio.

    python bench/decode.py --size S1 --threads 2 --peer-python <python of an environment with torch>
    python bench/decode.py --size S2 --sequences 16 --task prompt

Several sequences are decoded together. A prompt is all of the context but its last token.

PyTorch decodes in f32 and bf16, eagerly and compiled. The programs take turns (side_by_side.py). The ratio is the
median over the rounds of ours over the best of PyTorch's four modes.
"""

import argparse
import statistics
import sys
from collections.abc import Callable

from side_by_side import PEER_ISA, environment, median_seconds, serve, take_turns
from train_step import PRECISIONS, SIZES

PEERS = ["eager", "compile"]


def rate_of(decode: Callable[[], object], count: int, seconds: float) -> Callable[[], float]:
    """Return a function that measures the rate of decode(), which generates `count` tokens, in tokens/s."""
    return lambda: count / median_seconds(decode, seconds)


def ours(size: str, threads: int, seconds: float, sequences: int, task: str, precision: str) -> Callable[[], float]:
    from hipgpt.compute.open_device import open_device
    from hipgpt.compute.tensor import Arena
    from hipgpt.config.settings import ModelConfig, SamplingConfig
    from hipgpt.gpt.decoder import Decoder
    from hipgpt.gpt.parameters import ParameterTensors, initial_values, parameters
    from hipgpt.gpt.precision import weights_in
    from hipgpt.inference.sampling import generate

    E, L, H, F, V, S, _ = SIZES[size]
    device, model = open_device("cpu", threads), ModelConfig(V, E, L, H, F, S, "gelu", False, output_bias=False)
    arena = Arena(device, "weights", parameters(model))
    for field in arena.fields:
        device.write(arena[field.name], initial_values(field, seed=1))
    weights = weights_in(precision, device, model, ParameterTensors(arena, model))
    decoder = Decoder(device, model, weights, sequences)
    prompts = [[1] * (S - 1)] * sequences

    sampling = SamplingConfig(num_tokens=S - 2, temperature=0.0, stop_at_end_of_text=False)

    def decode():
        for _ in generate(decoder, [[1]] * sequences, sampling, V - 1):
            pass

    work = decode if task == "decode" else lambda: decoder.restart(prompts)
    return rate_of(work, sequences * (S - 1), seconds)


def torch_decoding(
    size: str, threads: int, seconds: float, sequences: int, task: str, precision: str, compiled: bool
) -> Callable[[], float]:
    import torch
    import torch.nn.functional as functional
    from torch import nn

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    E, L, H, F, V, S, _ = SIZES[size]
    B = sequences

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.LayerNorm(E), nn.LayerNorm(E)
            self.qkv, self.projection = nn.Linear(E, 3 * E), nn.Linear(E, E)
            self.mlp = nn.Sequential(nn.Linear(E, F), nn.GELU(approximate="tanh"), nn.Linear(F, E))

        def forward(self, x, keys, values, position):
            """Continue x (B, N, E), whose first token has this position, or is a whole prompt."""
            N = x.shape[1]
            packed = self.qkv(self.attention_norm(x)).view(B, N, 3, H, E // H)
            query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
            keys[:, :, position : position + N], values[:, :, position : position + N] = key, value
            seen = keys[:, :, : position + N], values[:, :, : position + N]
            y = functional.scaled_dot_product_attention(query, *seen, is_causal=N > 1)
            x = x + self.projection(y.transpose(1, 2).reshape(B, N, E))
            return x + self.mlp(self.mlp_norm(x))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(V, E), nn.Embedding(S, E)
            self.blocks, self.norm = nn.ModuleList(Block() for _ in range(L)), nn.LayerNorm(E)
            self.head = nn.Linear(E, V, bias=False)

        def forward(self, tokens, position, cache):
            x = self.tokens(tokens) + self.positions.weight[position : position + tokens.shape[1]]
            for block, (keys, values) in zip(self.blocks, cache, strict=True):
                x = block(x, keys, values, position)
            return self.head(self.norm(x[:, -1]))

    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    model = Model().eval().to(dtype)
    step = torch.compile(model, dynamic=True) if compiled else model
    cache = [tuple(torch.zeros(B, H, S, E // H, dtype=dtype) for _ in "kv") for _ in range(L)]
    prompts = torch.ones(B, S - 1, dtype=torch.int64)

    def decode():
        tokens = prompts[:, :1]
        for position in range(S - 1):
            tokens = step(tokens, position, cache).argmax(-1, keepdim=True)
        return tokens.tolist()

    work = decode if task == "decode" else lambda: step(prompts, 0, cache).argmax(-1).tolist()
    return rate_of(work, B * (S - 1), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="S1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=1, help="decoded together")
    parser.add_argument("--task", choices=["decode", "prompt"], default="decode")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement")
    parser.add_argument("--isa", choices=PEER_ISA, help="the newest instructions to use; default: this processor's")
    parser.add_argument("--peer-python", help="python of an environment with torch; without it only ours is timed")
    parser.add_argument("--role", choices=["ours", *PEERS], help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=PRECISIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size, threads, seconds = arguments.size, arguments.threads, arguments.seconds
    if arguments.role:
        settings = size, threads, seconds, arguments.sequences, arguments.task, arguments.precision
        is_ours, compiled = arguments.role == "ours", arguments.role == "compile"
        serve(ours(*settings) if is_ours else torch_decoding(*settings, compiled))
        return

    pythons = {"ours": sys.executable}
    if arguments.peer_python:
        pythons |= dict.fromkeys(PEERS, arguments.peer_python)
    options = ["--size", size, "--threads", str(threads), "--seconds", str(seconds)]
    options += ["--sequences", str(arguments.sequences), "--task", arguments.task]
    programs = {
        (role, precision): (
            [python, __file__, *options, "--role", role, "--precision", precision],
            environment(role != "ours", arguments.isa),
        )
        for precision in PRECISIONS
        for role, python in pythons.items()
    }
    rates = take_turns(programs, arguments.rounds)
    for (role, precision), taken in rates.items():
        spread = f"({min(taken):,.0f} to {max(taken):,.0f})"
        print(f"{size} {role:8s} {precision:8s} {statistics.median(taken):10,.0f} tokens/s {spread}")
    if arguments.peer_python:
        modes = [taken for (role, _), taken in rates.items() if role != "ours"]
        peers = [max(taken) for taken in zip(*modes, strict=True)]
        for precision in PRECISIONS:
            ratios = [mine / best for mine, best in zip(rates["ours", precision], peers, strict=True)]
            print(f"{size} {precision}: {statistics.median(ratios):.2f} times PyTorch's best mode")


if __name__ == "__main__":
    main()
