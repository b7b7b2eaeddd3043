"""Ops that take several layers in one launch, on the devices whose traits have them.

They are not in the catalogue. Tests compare those of whole layers with the ops that they replace, because the bounds of
so many ops in a row would be too wide to show a mistake. Dimensions as in the catalogue; F counts the channels of the
MLP, K partial sums, P the parts of a layer qkv: 3, or 0 if there is none. Of decode_blocks, K counts slots, L blocks of
the model, M and W the weights and the vectors of one block.
"""

from hipgpt.compute.contract import op

ACTIVATIONS = ("gelu", "relu", "relu2")  # by the number that these ops take

# all blocks of a GPT-2, for one new token of each sequence
DECODE_BLOCKS = op("decode_blocks", "decode_blocks", """
    out    y          act (N, C)
    inout  cache      act (L, 2, N, H, T, D)
    inout  exchange   i32 (K, 2)
    in     x          act (N, C)
    in     matrices   act (L, M)
    in     vectors    act (L, W)
    in     gamma      act (C)
    in     beta       act (C)
    in     positions  i32 (N)
    """, scalars="epsilon f32, activation i32", operations=lambda N, L, M, **_: 2 * N * L * M)  # fmt: skip

# `steps` tokens of each sequence: draw_token, the embeddings, decode_blocks and the output layer. Operations: of a step
DECODE_TOKENS = op("decode_tokens", "decode_tokens", """
    out    tokens              i32 (N)
    inout  positions           i32 (N)
    inout  windows             i32 (N, T)
    inout  drawn               i32 (N)
    inout  logits              act (N, V)
    inout  cache               act (L, 2, N, H, T, D)
    in     settings            f32 (N, 4)
    in     keys                i32 (N, 4)
    in     token_embedding     act (V, C)
    in     position_embedding  act (T, C)
    in     matrices            act (L, M)
    in     vectors             act (L, W)
    in     gamma               act (C)
    in     beta                act (C)
    in     output_weight       act (V, C)
    in?    output_bias         act (V)
    """, scalars="epsilon f32, activation i32, steps i32",
    operations=lambda N, V, L, C, M, **_: 2 * N * (L * M + V * C))  # fmt: skip

# attention_delta and attention_backward of short sequences
ATTENTION_SHORT_BACKWARD = op("attention_short_backward", "attention_short_backward", """
    out    dqkv       act (B, S, 3, H, D)
    in     dy         act (B, S, H, D)
    in     y          act (B, S, H, D)
    in     logsumexp  f32 (B, H, S)
    in     qkv        act (B, S, 3, H, D)
    """, operations=lambda B, S, H, D: (5 * (S + 1) + 2) * B * H * S * D)  # fmt: skip

# The layers of a GPT-2 from one attention to the next. The last block has no next one: then qkv, dqkv and dy_after are
# left out, and dnorm is given.
TOKEN_LAYERS_FORWARD = op("token_layers_forward", "token_layers", """
    out    middle           act (N, C)
    out    mlp_norm         act (N, C)
    out    mlp_mean         f32 (N)
    out    mlp_rstd         f32 (N)
    out    active           act (N, F)
    out    slope            act (N, F)
    out    y                act (N, C)
    out    norm             act (N, C)
    out    mean             f32 (N)
    out    rstd             f32 (N)
    out?   qkv              act (N, P, C)
    in     attention        act (N, C)
    in     x                act (N, C)
    in     projection       act (C, C)
    in     projection_bias  act (C)
    in     mlp_gamma        act (C)
    in     mlp_beta         act (C)
    in     mlp_in           act (F, C)
    in     mlp_in_bias      act (F)
    in     mlp_out          act (C, F)
    in     mlp_out_bias     act (C)
    in     gamma            act (C)
    in     beta             act (C)
    in?    qkv_weight       act (P, C, C)
    in?    qkv_bias         act (P, C)
    """, scalars="epsilon f32, activation i32",
    operations=lambda N, C, F, P: 2 * N * C * (C + 2 * F + P * C))  # fmt: skip

TOKEN_LAYERS_BACKWARD = op("token_layers_backward", "token_layers", """
    out    dy            act (N, C)
    out    dhidden       act (N, F)
    out    dmiddle       act (N, C)
    out    dattention    act (N, C)
    out    partials      f32 (K, 2, C)
    out    mlp_partials  f32 (K, 2, C)
    in?    dqkv          act (N, P, C)
    in?    dnorm         act (N, C)
    in?    dy_after      act (N, C)
    in     y             act (N, C)
    in     mean          f32 (N)
    in     rstd          f32 (N)
    in     gamma         act (C)
    in     slope         act (N, F)
    in     middle        act (N, C)
    in     mlp_mean      f32 (N)
    in     mlp_rstd      f32 (N)
    in     mlp_gamma     act (C)
    in?    qkv_weight    act (P, C, C)
    in     mlp_out       act (C, F)
    in     mlp_in        act (F, C)
    in     projection    act (C, C)
    """, operations=lambda N, C, F, P, **_: 2 * N * C * (C + 2 * F + P * C))  # fmt: skip

# matmul_backward_weight of a block's linear layers. Of the MLP, F counts the active channels, and G those of the first
# layer's output; A counts the channels of attention, Q the outputs of the layer qkv.
BLOCK_WEIGHTS = op("block_weights", "block_weights", """
    add    dmlp_out          f32 (C, F)
    add?   dmlp_out_bias     f32 (C)
    add    dmlp_in           f32 (G, C)
    add?   dmlp_in_bias      f32 (G)
    add    dprojection       f32 (C, A)
    add?   dprojection_bias  f32 (C)
    add?   dqkv_weight       f32 (Q, C)
    add?   dqkv_bias         f32 (Q)
    in     dy                act (N, C)
    in     active            act (N, F)
    in     dhidden           act (N, G)
    in     mlp_norm          act (N, C)
    in     dmiddle           act (N, C)
    in     attention         act (N, A)
    in?    dqkv              act (N, Q)
    in?    norm              act (N, C)
    """, operations=lambda C, F, G, A, Q, N: 2 * N * C * (F + G + A + Q))  # fmt: skip

# The output layer, the cross-entropy of its logits and their backward passes, without storing logits. The second op
# takes the statistics of each token that the first one returns.
OUTPUT_LAYER_LOSS = op("output_layer_loss", "output_layer_loss", """
    out    losses     f32 (N)
    out    logsumexp  f32 (N)
    out    not_target f32 (N)
    out    dx         act (N, C)
    in     x          act (N, C)
    in     weight     act (V, C)
    in?    bias       act (V)
    in     targets    i32 (N)
    """, scalars="scale f32", operations=lambda N, C, V: 4 * N * C * V)  # fmt: skip

OUTPUT_LAYER_WEIGHT = op("output_layer_weight", "output_layer_weight", """
    add    dweight    f32 (V, C)
    add?   dbias      f32 (V)
    in     logsumexp  f32 (N)
    in     not_target f32 (N)
    in     x          act (N, C)
    in     weight     act (V, C)
    in?    bias       act (V)
    in     targets    i32 (N)
    """, scalars="scale f32", operations=lambda V, C, N: 4 * N * C * V)  # fmt: skip
