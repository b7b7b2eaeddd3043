"""Ops that take several layers in one launch, on the devices whose traits have them.

They are not in the catalogue. Tests compare them with the ops that they replace, because the bounds of so many ops in a
row would be too wide to show a mistake. Dimensions as in the catalogue; F counts the channels of the MLP, and K partial
sums. Of decode_blocks, K counts slots, L blocks of the model, M and W the weights and the vectors of one block.
"""

from hipgpt.compute.contract import op

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

# the layers of a GPT-2 from one attention to the next
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
    out?   qkv              act (N, 3, C)
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
    in?    qkv_weight       act (3, C, C)
    in?    qkv_bias         act (3, C)
    """, scalars="epsilon f32, activation i32",
    operations=lambda N, C, F: 2 * N * (4 * C * C + 2 * C * F))  # fmt: skip

TOKEN_LAYERS_BACKWARD = op("token_layers_backward", "token_layers", """
    out    dy            act (N, C)
    out    dhidden       act (N, F)
    out    dmiddle       act (N, C)
    out    dattention    act (N, C)
    out    partials      f32 (K, 2, C)
    out    mlp_partials  f32 (K, 2, C)
    in?    dqkv          act (N, 3, C)
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
    in?    qkv_weight    act (3, C, C)
    in     mlp_out       act (C, F)
    in     mlp_in        act (F, C)
    in     projection    act (C, C)
    """, operations=lambda N, C, F, **_: 2 * N * (4 * C * C + 2 * C * F))  # fmt: skip
