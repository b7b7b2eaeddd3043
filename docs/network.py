"""The figures of the network: the ops of the embedding, of one block and of the output, for each architecture.

`python docs/network.py` draws docs/images/network-<architecture>.svg again, from the plan of a forward pass.
"""

from pathlib import Path

from hipgpt.compute.backends.gpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.launch import Launch
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.architectures import ARCHITECTURES
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activations
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors, parameters

IMAGES = Path(__file__).resolve().parent / "images"
# Sizes in the SVG's units. The width is that of a phone, so that the text keeps its size there.
WIDTH, LINE, GAP, PADDING, TOP = 400, 17, 8, 8, 34
INSIDE = 10  # from the edge of the figure to the boxes
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
font-family="system-ui, sans-serif" font-size="13">
<title>{title}</title>
<g fill="#1e293b">
<text x="{middle}" y="22" font-size="16" font-weight="bold" text-anchor="middle">{title}</text>
"""


def model_of(architecture: str) -> ModelConfig:
    """Return a model of one block with small sizes; grouped queries where the architecture has them."""
    parts = ARCHITECTURES[architecture]
    return ModelConfig(
        vocab_size=11, embed_dim=8, num_layers=1, num_heads=2, mlp_dim=16, context_length=4,
        activation=parts.activations[0], tie_embeddings=False, output_bias=False, architecture=architecture,
        num_kv_heads=1 if parts.rotary else None,
    )  # fmt: skip


def forward_launches(model: ModelConfig) -> list[Launch]:
    """Return the launches of a forward pass to the logits."""
    device = NullDevice(traits((DType.F32,)))
    weights = Arena(device, "weights", parameters(model))
    inputs = Arena(device, "inputs", [Field("tokens", (1, 4), DType.I32), Field("starts", (1,), DType.I32)])
    saved = Arena(device, "saved", activations(model, 1, 4))
    plan = Plan(device, "forward", [weights.flat, inputs.flat])
    network = Network(model, ParameterTensors(weights, model), saved, inputs["tokens"], inputs["starts"])
    network.forward(plan)
    network.logits(plan)
    return plan.launches


def lines_of(launch: Launch) -> tuple[str, str]:
    """Return the name of the op, and its arguments: what it reads and what it writes."""
    pairs = [(a, t) for a, t in zip(launch.op.arguments, launch.tensors, strict=True) if t]
    names = {id(t): t.name.split(".", 1)[1].removeprefix("block0.") for _, t in pairs}
    read = [names[id(t)] for a, t in pairs if a.reads and not names[id(t)].endswith((".mean", ".rstd"))]
    written = [names[id(t)] for a, t in pairs if a.leaves_values and not names[id(t)].endswith((".mean", ".rstd"))]
    return launch.op.name, f"{', '.join(read)} → {', '.join(written)}"


def figure(architecture: str) -> str:
    """Return the figure of an architecture: a box for each op, in the order of the plan."""
    launches = forward_launches(model_of(architecture))
    first = next(i for i, launch in enumerate(launches) if launch.op.name == "matmul_forward")
    last = max(i for i, launch in enumerate(launches[:-1]) if launch.op.name.startswith("matmul_"))
    height, drawn = 2 * LINE + 2 * PADDING, ""
    for i, launch in enumerate(launches):
        name, arguments = lines_of(launch)
        top, fill = TOP + i * (height + GAP), "#bfdbfe" if first <= i <= last else "#e2e8f0"
        drawn += f'<rect x="{INSIDE}" y="{top}" width="{WIDTH - 2 * INSIDE}" height="{height}" rx="4" fill="{fill}"/>\n'
        drawn += f'<text x="{INSIDE + PADDING}" y="{top + PADDING + 12}" font-weight="bold">{name}</text>\n'
        drawn += f'<text x="{INSIDE + PADDING}" y="{top + PADDING + 12 + LINE}" font-size="11">{arguments}</text>\n'
    end = TOP + len(launches) * (height + GAP)
    title = f"{ARCHITECTURES[architecture].title}: the ops of a forward pass"
    return HEAD.format(width=WIDTH, height=end, title=title, middle=WIDTH // 2) + drawn + "</g></svg>\n"


if __name__ == "__main__":
    for name in ARCHITECTURES:
        (IMAGES / f"network-{name}.svg").write_text(figure(name), encoding="utf-8")
