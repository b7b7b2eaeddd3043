"""Time decoding on a GPU with a KV cache: tokens/s, compared with the script of a peer.

    python bench/gpu_decode.py --device cuda
    python bench/gpu_decode.py --device cuda --peer 'python torch_decode_gpu.py'

Each row continues prompts of one token by TOKENS tokens. top-k 50 draws, the other rows are greedy. Several sequences
are decoded together. The peer prints a line of JSON for each measurement, with `shape`, `B` and `tok_s`; its best mode
counts. A model has a context of 256 or more, so that no row begins again.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import time
from collections.abc import Iterator

from gpu_train import SIZES

from hipgpt.compute.device import Device
from hipgpt.compute.open_device import open_device
from hipgpt.compute.tensor import Arena
from hipgpt.config.settings import ModelConfig, SamplingConfig
from hipgpt.gpt.decoder import Decoder
from hipgpt.gpt.parameters import ParameterTensors, initial_values, parameters
from hipgpt.gpt.precision import weights_in
from hipgpt.inference.sampling import generate

ROWS = [(size, sequences) for size in ("S1", "S2", "S3") for sequences in (1, 64)]
GREEDY, TOP_K = {"temperature": 0.0}, {"temperature": 1.0, "top_k": 50}
TOKENS, ROUNDS = 200, 5


def model_of(size: str, device: Device, precision: str) -> tuple[ModelConfig, ParameterTensors]:
    """Return the model of a size, with a context of at least 256, and initial weights of it."""
    E, L, H, F, V, S, _, *tied = SIZES[size]
    model = ModelConfig(V, E, L, H, F, max(S, 256), "gelu", bool(tied), output_bias=False)
    arena = Arena(device, "weights", parameters(model))
    for field in arena.fields:
        device.write(arena[field.name], initial_values(field, seed=1))
    return model, weights_in(precision, device, model, ParameterTensors(arena, model))


def rates(size: str, sequences: int, device: Device, precision: str) -> Iterator[tuple[str, float]]:
    """Yield each way of sampling with its rate in tokens/s, of all sequences together."""
    decoder = Decoder(device, *model_of(size, device, precision), sequences)
    end = SIZES[size][4] - 1
    for name, settings in (("greedy", GREEDY), ("top-k 50", TOP_K)):
        sampling = SamplingConfig(num_tokens=TOKENS, stop_at_end_of_text=False, **settings)
        times = []
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            for _ in generate(decoder, [[1]] * sequences, sampling, end):
                pass
            times.append(time.perf_counter() - started)
        yield name, sequences * TOKENS / statistics.median(times[1:])


def peers_best(command: str) -> dict[tuple[str, int], float]:
    """Return the peer's tokens/s by size and number of sequences."""
    output = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
    found: dict[tuple[str, int], float] = {}
    for line in output.splitlines():
        if line.startswith("{") and "B" in (row := json.loads(line)):
            key = row["shape"], row["B"]
            found[key] = max(found.get(key, 0.0), row["tok_s"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--peer", help="a command that prints the peer's JSON lines")
    arguments = parser.parse_args()
    device = open_device(arguments.device)
    best = peers_best(arguments.peer) if arguments.peer else {}
    for size, sequences in ROWS:
        for name, rate in rates(size, sequences, device, arguments.precision):
            line = f"{size:3s} {sequences:3d} {name:9s}{rate:12,.0f} tokens/s"
            if peer := best.get((size, sequences)):
                line += f"   peer's best, greedy: {peer:,.0f}   ratio {rate / peer:.2f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
