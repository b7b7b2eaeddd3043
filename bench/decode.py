"""Time greedy decoding of one sequence with a KV cache, compared with PyTorch: tokens/s, and the ratio.

    python bench/decode.py --size S1 --threads 2 --peer-python <python of an environment with torch>

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


def ours(size: str, threads: int, seconds: float, precision: str) -> Callable[[], float]:
    from hipgpt.compute.open_device import open_device
    from hipgpt.compute.tensor import Arena
    from hipgpt.config.settings import ModelConfig
    from hipgpt.gpt.decoder import Decoder
    from hipgpt.gpt.parameters import ParameterTensors, initial_values, parameters
    from hipgpt.gpt.precision import weights_in

    E, L, H, F, V, S, _ = SIZES[size]
    device, model = open_device("cpu", threads), ModelConfig(V, E, L, H, F, S, "gelu", False, output_bias=False)
    arena = Arena(device, "weights", parameters(model))
    for field in arena.fields:
        device.write(arena[field.name], initial_values(field, seed=1))
    decoder = Decoder(device, model, weights_in(precision, device, model, ParameterTensors(arena, model)))

    def decode():
        decoder.restart([[1]])
        for _ in range(S - 2):
            decoder.append_greedy()

    return rate_of(decode, S - 1, seconds)


def torch_decoding(size: str, threads: int, seconds: float, precision: str, compiled: bool) -> Callable[[], float]:
    import torch
    import torch.nn.functional as functional
    from torch import nn

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    E, L, H, F, V, S, _ = SIZES[size]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.LayerNorm(E), nn.LayerNorm(E)
            self.qkv, self.projection = nn.Linear(E, 3 * E), nn.Linear(E, E)
            self.mlp = nn.Sequential(nn.Linear(E, F), nn.GELU(approximate="tanh"), nn.Linear(F, E))

        def forward(self, x, keys, values, position):
            query, key, value = self.qkv(self.attention_norm(x)).view(3, 1, H, 1, E // H).unbind(0)
            keys[:, :, position : position + 1], values[:, :, position : position + 1] = key, value
            seen = keys[:, :, : position + 1], values[:, :, : position + 1]
            x = x + self.projection(functional.scaled_dot_product_attention(query, *seen).reshape(1, E))
            return x + self.mlp(self.mlp_norm(x))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(V, E), nn.Embedding(S, E)
            self.blocks, self.norm = nn.ModuleList(Block() for _ in range(L)), nn.LayerNorm(E)
            self.head = nn.Linear(E, V, bias=False)

        def forward(self, token, position, cache):
            x = self.tokens.weight[token : token + 1] + self.positions.weight[position : position + 1]
            for block, (keys, values) in zip(self.blocks, cache, strict=True):
                x = block(x, keys, values, position)
            return self.head(self.norm(x))

    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    model = Model().eval().to(dtype)
    step = torch.compile(model, dynamic=True) if compiled else model
    cache = [tuple(torch.zeros(1, H, S, E // H, dtype=dtype) for _ in "kv") for _ in range(L)]

    def decode():
        token = 1
        for position in range(S - 1):
            token = int(step(token, position, cache).argmax())

    return rate_of(decode, S - 1, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="S1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement")
    parser.add_argument("--isa", choices=PEER_ISA, help="the newest instructions to use; default: this processor's")
    parser.add_argument("--peer-python", help="python of an environment with torch; without it only ours is timed")
    parser.add_argument("--role", choices=["ours", *PEERS], help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=PRECISIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size, threads, seconds = arguments.size, arguments.threads, arguments.seconds
    if arguments.role:
        settings = size, threads, seconds, arguments.precision
        is_ours, compiled = arguments.role == "ours", arguments.role == "compile"
        serve(ours(*settings) if is_ours else torch_decoding(*settings, compiled))
        return

    pythons = {"ours": sys.executable}
    if arguments.peer_python:
        pythons |= dict.fromkeys(PEERS, arguments.peer_python)
    options = ["--size", size, "--threads", str(threads), "--seconds", str(seconds)]
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
