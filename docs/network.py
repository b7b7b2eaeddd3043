"""The figures of the network: the ops of the embedding, of one block and of the output, for each architecture.

`python docs/network.py` draws docs/images/network-<architecture>.svg again, from the plan of a forward pass.
"""

import textwrap
from pathlib import Path

from hipgpt.compute.backends.gpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.launch import Launch
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.architectures import ARCHITECTURES
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activations
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors, parameters

IMAGES = Path(__file__).resolve().parent / "images"
# Sizes in the SVG's units. The width is that of a phone, so that the text keeps its size there.
WIDTH, LINE, GAP, PADDING, TOP = 400, 17, 8, 8, 34
CHARACTERS = 58  # of a line
NO_BREAK = "\u00a0"
INSIDE = 10  # from the edge of the figure to the boxes
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
font-family="system-ui, sans-serif" font-size="13">
<title>{title}</title>
<g fill="#1e293b">
<text x="{middle}" y="22" font-size="16" font-weight="bold" text-anchor="middle">{title}</text>
"""


# Sizes that no two letters of the glossary share, so that a shape tells its letters.
B, S, E, H, K, F, V = 7, 5, 24, 4, 2, 40, 97
D, G = E // H, H + 2 * K
LETTERS = {B: "B", S: "S", B * S: "N", E: "E", 3 * E: "3E", H: "H", D: "D", G * D: "G D", F: "F", 2 * F: "2F", V: "V"}
LETTERS |= {G: "G", 2: "2", 3: "3"}


def model_of(architecture: str) -> ModelConfig:
    """Return a model of one block; grouped queries where the architecture has them."""
    parts = ARCHITECTURES[architecture]
    return ModelConfig(
        vocab_size=V, embed_dim=E, num_layers=1, num_heads=H, mlp_dim=F, context_length=S,
        activation=parts.activations[0], tie_embeddings=False, output_bias=False, architecture=architecture,
        num_kv_heads=K if parts.rotary else None,
    )  # fmt: skip


def forward_launches(model: ModelConfig) -> list[Launch]:
    """Return the launches of a forward pass to the logits."""
    device = NullDevice(traits((DType.F32,)))
    weights = Arena(device, "weights", parameters(model))
    inputs = Arena(device, "inputs", [Field("tokens", (B, S), DType.I32), Field("starts", (B,), DType.I32)])
    saved = Arena(device, "saved", activations(model, B, S))
    plan = Plan(device, "forward", [weights.flat, inputs.flat])
    network = Network(model, ParameterTensors(weights, model), saved, inputs["tokens"], inputs["starts"])
    network.forward(plan)
    network.logits(plan)
    return plan.launches


def lines_of(launch: Launch) -> list[str]:
    """Return the arguments of an op with their shapes: lines of what it reads, then lines of what it writes."""
    pairs = [(a, t) for a, t in zip(launch.op.arguments, launch.tensors, strict=True) if t]
    read = ", ".join(shown(t) for a, t in pairs if a.reads and not t.name.endswith((".mean", ".rstd")))
    written = ", ".join(shown(t) for a, t in pairs if a.leaves_values and not t.name.endswith((".mean", ".rstd")))
    return [*textwrap.wrap(read, CHARACTERS), *textwrap.wrap(f"→ {written}", CHARACTERS, subsequent_indent="   ")]


def shown(tensor: Tensor) -> str:
    """Return the name of a tensor with the letters of its shape."""
    name = tensor.name.split(".", 1)[1].removeprefix("block0.")
    # no line breaks inside of a shape
    return f"{name} ({', '.join(LETTERS[size] for size in tensor.shape)})".replace(" ", NO_BREAK)


def figure(architecture: str) -> str:
    """Return the figure of an architecture: a box for each op, in the order of the plan."""
    launches = forward_launches(model_of(architecture))
    first = next(i for i, launch in enumerate(launches) if launch.op.name == "matmul_forward")
    last = max(i for i, launch in enumerate(launches[:-1]) if launch.op.name.startswith("matmul_"))
    top, drawn = TOP, ""
    for i, launch in enumerate(launches):
        lines, fill = lines_of(launch), "#bfdbfe" if first <= i <= last else "#e2e8f0"
        height = (1 + len(lines)) * LINE + 2 * PADDING
        drawn += f'<rect x="{INSIDE}" y="{top}" width="{WIDTH - 2 * INSIDE}" height="{height}" rx="4" fill="{fill}"/>\n'
        left, y = INSIDE + PADDING, top + PADDING + 12
        drawn += f'<text x="{left}" y="{y}" font-weight="bold">{launch.op.name}</text>\n'
        for number, line in enumerate(lines, 1):
            drawn += f'<text x="{left}" y="{y + number * LINE}" font-size="11">{line}</text>\n'
        top += height + GAP
    title = f"{ARCHITECTURES[architecture].title}: the ops of a forward pass"
    return HEAD.format(width=WIDTH, height=top, title=title, middle=WIDTH // 2) + drawn + "</g></svg>\n"


if __name__ == "__main__":
    for name in ARCHITECTURES:
        (IMAGES / f"network-{name}.svg").write_text(figure(name), encoding="utf-8")
