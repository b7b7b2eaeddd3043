"""Tables of the tensors that the passes write: activations, their gradients, cached keys and values."""

from collections.abc import Sequence

from hipgpt.compute.tensor import DType, Field
from hipgpt.config.settings import ModelConfig

# backward pass of the norms: the least number of rows of a partial sum, and the largest number of partial sums
NORM_ROWS, NORM_PARTIALS = 16, 512


def packed_width(model: ModelConfig) -> int:
    """Return the number of outputs of the layer qkv: queries, keys and values."""
    return (model.num_heads + 2 * model.kv_heads) * model.head_channels


def hidden_width(model: ModelConfig) -> int:
    """Return the number of outputs of the layer mlp_in."""
    return (2 if model.parts.gated else 1) * model.mlp_dim


def activations(
    model: ModelConfig, sequences: int, length: int, act: DType = DType.F32, logit_rows: int | None = None
) -> list[Field]:
    """Return the table of activations that the forward pass of (B, S) tokens writes and the backward pass reads.

    sequences: B; length: S. logit_rows: the number of tokens whose logits are stored at once; default: all.
    """
    N, E, F, V, parts = sequences * length, model.embed_dim, model.mlp_dim, model.vocab_size, model.parts
    heads = model.num_heads * model.head_channels

    def rows(name: str, width: int) -> Field:
        return Field(name, (N, width), act)

    def norm(name: str) -> list[Field]:
        figures = [Field(f"{name}.rstd", (N,))]
        if not parts.rms_norm:
            figures.insert(0, Field(f"{name}.mean", (N,)))
        return [rows(name, E), *figures]

    fields = [rows("residual0", E), rows("branch", E), rows("dropped", E)]
    if parts.rotary:
        fields += [Field("rotations", (sequences, length, model.head_channels)), rows("packed", packed_width(model))]
    for i in range(model.num_layers):
        fields += norm(f"block{i}.attention_norm")
        if parts.head_norm:
            fields += [rows(f"block{i}.packed", packed_width(model))]
            fields += [Field(f"block{i}.heads.rstd", (N, model.num_heads + 2 * model.kv_heads))]
        fields += [rows(f"block{i}.qkv", 3 * heads), rows(f"block{i}.attention", heads)]
        fields += [Field(f"block{i}.logsumexp", (sequences, model.num_heads, length))]
        fields += [rows(f"block{i}.middle", E)]
        fields += norm(f"block{i}.mlp_norm")
        saved = "mlp_hidden" if parts.gated else "mlp_slope"
        fields += [rows(f"block{i}.{saved}", hidden_width(model)), rows(f"block{i}.mlp_active", F)]
        fields += [rows(f"residual{i + 1}", E)]
    return [*fields, *norm("final_norm"), Field("logits", (logit_rows or N, V), act), Field("losses", (N,))]


def activation_gradients(
    model: ModelConfig,
    sequences: int,
    length: int,
    act: DType = DType.F32,
    of_output_layer: Sequence[Field] = (),
    of_token_layers: Sequence[Field] = (),
) -> list[Field]:
    """Return the table of gradients with respect to activations. It holds those of one block; all blocks reuse it.

    of_output_layer: the fields of `fused_output_layer`; without them, the output layer takes four ops.
    of_token_layers: the fields of `fused_layers`, which take the place of some others.
    """
    N, E, parts = sequences * length, model.embed_dim, model.parts
    heads = model.num_heads * model.head_channels
    widths = {"residual": E, "middle": E, "dropped": E, "norm": E, "hidden": hidden_width(model), "attention": heads}
    widths["qkv"] = 3 * heads
    if parts.rotary:
        widths["packed"] = packed_width(model)
    if parts.head_norm:
        widths["normed"] = packed_width(model)
    if parts.gated:
        widths["active"] = model.mlp_dim
    if of_token_layers:
        widths = {name: widths[name] for name in ("norm", "attention")}
    fields = [*(Field(name, (N, width), act) for name, width in widths.items()), *of_token_layers, *of_output_layer]
    partials = min(NORM_PARTIALS, -(-N // NORM_ROWS))
    fields.append(Field("norm_partials", (partials, E) if parts.rms_norm else (partials, 2, E)))
    if parts.head_norm:
        fields.append(Field("head_partials", (partials, 2, model.head_channels)))
    return [*fields, Field("delta", (sequences, model.num_heads, length))]


def kv_cache(model: ModelConfig, sequences: int, act: DType = DType.F32) -> list[Field]:
    """Return the table of cached keys and values, (B, H, T, D) each."""
    shape = (sequences, model.num_heads, model.context_length, model.head_channels)
    return [Field(f"block{i}.{kind}", shape, act) for i in range(model.num_layers) for kind in ("keys", "values")]
