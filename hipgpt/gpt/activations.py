"""Tables of the tensors that the passes write: activations, their gradients, cached keys and values."""

from hipgpt.compute.tensor import DType, Field
from hipgpt.config.settings import ModelConfig

# LayerNorm's backward pass: the least number of rows of a partial sum, and the largest number of partial sums
NORM_ROWS, NORM_PARTIALS = 16, 512


def activations(
    model: ModelConfig, sequences: int, length: int, act: DType = DType.F32, logit_rows: int | None = None
) -> list[Field]:
    """Return the table of activations that the forward pass of (B, S) tokens writes and the backward pass reads.

    sequences: B; length: S. logit_rows: the number of tokens whose logits are stored at once; default: all.
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
    model: ModelConfig,
    sequences: int,
    length: int,
    act: DType = DType.F32,
    logit_rows: int | None = None,
    output_layer_workspace: int | None = None,
) -> list[Field]:
    """Return the table of gradients with respect to activations. It holds those of one block; all blocks reuse it.

    logit_rows, output_layer_workspace: see Blocking. Without a workspace, the output layer takes several ops.
    """
    N, E, F = sequences * length, model.embed_dim, model.mlp_dim
    widths = {"residual": E, "dropped": E, "norm": E, "hidden": F, "attention": E, "qkv": 3 * E}
    fields = [Field(name, (N, width), act) for name, width in widths.items()]
    if output_layer_workspace:
        fields.append(Field("output_layer.exponentials", (output_layer_workspace,), act))
        fields.append(Field("output_layer.scaled", (logit_rows or N, E), act))
    partials = min(NORM_PARTIALS, -(-N // NORM_ROWS))
    return [*fields, Field("norm_partials", (partials, 2, E)), Field("delta", (sequences, model.num_heads, length))]


def kv_cache(model: ModelConfig, sequences: int, act: DType = DType.F32) -> list[Field]:
    """Return the table of cached keys and values, (B, H, T, D) each."""
    shape = (sequences, model.num_heads, model.context_length, model.head_dim)
    return [Field(f"block{i}.{kind}", shape, act) for i in range(model.num_layers) for kind in ("keys", "values")]
