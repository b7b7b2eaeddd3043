"""Tables of what the passes write: activations, their gradients, cached keys and values."""

from hipgpt.compute.tensor import DType, Field
from hipgpt.config.settings import ModelConfig

NORM_ROWS, NORM_PARTS = 16, 512  # rows of a partial sum in LayerNorm's backward pass, at least; how many sums, at most
STRIP = 32  # rows of a strip of exponentials, and what of the vocabulary is filled up to
EXPONENTIALS = {DType.F32: STRIP + STRIP // 2, DType.BF16: STRIP}  # what a strip takes: an f32 may be three bf16


def strips(rows: int) -> int:
    """Return how many strips of exponentials `rows` rows begin."""
    return -(-rows // STRIP)


def activations(
    model: ModelConfig, sequences: int, length: int, act: DType = DType.F32, logit_rows: int | None = None
) -> list[Field]:
    """Return the table of what the forward pass of (B, S) tokens writes; the backward pass reads it again.

    logit_rows: of how many tokens the logits are kept at a time; default: of all.
    """
    N, E, F, V = sequences * length, model.embed_dim, model.mlp_dim, model.vocab_size

    def rows(name: str, width: int) -> Field:
        return Field(name, (N, width), act)

    def norm(name: str) -> list[Field]:
        return [rows(name, E), Field(f"{name}.mean", (N,)), Field(f"{name}.rstd", (N,))]

    fields = [rows("residual0", E), rows("branch", E), rows("dropped", E)]
    for i in range(model.num_layers):
        fields += norm(f"block{i}.attention_norm")
        fields += [rows(f"block{i}.qkv", 3 * E), rows(f"block{i}.attention", E)]
        fields += [Field(f"block{i}.logsumexp", (sequences, model.num_heads, length))]
        fields += [rows(f"block{i}.middle", E)]
        fields += norm(f"block{i}.mlp_norm")
        fields += [rows(f"block{i}.mlp_hidden", F), rows(f"block{i}.mlp_active", F)]
        fields += [rows(f"residual{i + 1}", E)]
    return [*fields, *norm("final_norm"), Field("logits", (logit_rows or N, V), act), Field("losses", (N,))]


def activation_gradients(
    model: ModelConfig, sequences: int, length: int, act: DType = DType.F32, exponential_rows: int | None = None
) -> list[Field]:
    """Return the table of gradients with respect to activations: one block's worth, reused by every block.

    exponential_rows: of how many tokens OUTPUT_LAYER_TRAINING keeps exponentials at a time; None: it is not used.
    """
    N, E, F = sequences * length, model.embed_dim, model.mlp_dim
    widths = {"residual": E, "dropped": E, "norm": E, "hidden": F, "attention": E, "qkv": 3 * E}
    fields = [Field(name, (N, width), act) for name, width in widths.items()]
    parts = min(NORM_PARTS, -(-N // NORM_ROWS))
    if exponential_rows:
        whole = strips(model.vocab_size) * STRIP
        fields.append(Field("exponentials", (strips(exponential_rows), whole, EXPONENTIALS[act]), act))
    return [*fields, Field("norm_partials", (parts, 2, E)), Field("delta", (sequences, model.num_heads, length))]


def kv_cache(model: ModelConfig, sequences: int, act: DType = DType.F32) -> list[Field]:
    """Return the table of cached keys and values, (B, H, T, D) each."""
    shape = (sequences, model.num_heads, model.context_length, model.head_dim)
    return [Field(f"block{i}.{kind}", shape, act) for i in range(model.num_layers) for kind in ("keys", "values")]
