"""The contracts of all ops. The formula of each op is at the head of its kernels, in kernels/cpu/<family>.cpp.

Dimensions: B sequences, S positions, N = B*S rows, C and O channels in and out, H heads of D channels, V vocabulary,
T context length or number of tokens, P parameters, W elements of a workspace. K counts partial sums, or rows of a
table that are indexed by step, or sequences that go to a cache of B sequences. M matrices of O rows and C columns; R
and L are the smaller and the larger of O and C.
G counts the heads of a position: H queries, then keys, then as many values.
"""

from hipgpt.compute.contract import op

ADVANCE = op("advance", "batch", """
    inout  counters  i32 (4)
    """)  # fmt: skip

BUILD_BATCH = op("build_batch", "batch", """
    out    tokens         i32 (B, S)
    out    targets        i32 (B, S)
    in     corpus         i32 (T)
    in     window_starts  i32 (K, B)
    in     counters       i32 (4)
    """, scalars="accumulation_steps i32")  # fmt: skip

EMBEDDING_FORWARD = op("embedding_forward", "embedding", """
    out    x               act (B, S, C)
    in     tokens          i32 (B, S)
    in     starts          i32 (B)
    in     token_table     act (V, C)
    in     position_table  act (T, C)
    """, operations=lambda B, S, C, **_: B * S * C)  # fmt: skip

EMBEDDING_BACKWARD = op("embedding_backward", "embedding", """
    add    dtoken_table     f32 (V, C)
    add    dposition_table  f32 (T, C)
    in     dx               act (B, S, C)
    in     tokens           i32 (B, S)
    """, operations=lambda B, S, C, **_: 2 * B * S * C)  # fmt: skip

TOKEN_EMBEDDING_FORWARD = op("token_embedding_forward", "embedding", """
    out    x            act (N, C)
    in     tokens       i32 (N)
    in     token_table  act (V, C)
    """)  # fmt: skip

TOKEN_EMBEDDING_BACKWARD = op("token_embedding_backward", "embedding", """
    add    dtoken_table  f32 (V, C)
    in     dx            act (N, C)
    in     tokens        i32 (N)
    """, operations=lambda N, C, **_: N * C)  # fmt: skip

LAYERNORM_FORWARD = op("layernorm_forward", "layernorm", """
    out    y       act (N, C)
    out    mean    f32 (N)
    out    rstd    f32 (N)
    out?   sum     act (N, C)
    in     x       act (N, C)
    in?    branch  act (N, C)
    in     gamma   act (C)
    in     beta    act (C)
    """, scalars="epsilon f32", operations=lambda N, C: 9 * N * C)  # fmt: skip

LAYERNORM_BACKWARD = op("layernorm_backward", "layernorm", """
    out    dx         act (N, C)
    out    partials   f32 (K, 2, C)
    in?    dresidual  act (N, C)
    in     dy         act (N, C)
    in     x          act (N, C)
    in     mean       f32 (N)
    in     rstd       f32 (N)
    in     gamma      act (C)
    """, operations=lambda N, C, K: 15 * N * C)  # fmt: skip

ADD_PARTIALS = op("add_partials", "layernorm", """
    add    dgamma    f32 (C)
    add    dbeta     f32 (C)
    in     partials  f32 (K, 2, C)
    """, operations=lambda C, K: 2 * K * C)  # fmt: skip

RMSNORM_FORWARD = op("rmsnorm_forward", "rmsnorm", """
    out    y       act (N, C)
    out    rstd    f32 (N)
    out?   sum     act (N, C)
    in     x       act (N, C)
    in?    branch  act (N, C)
    in     gamma   act (C)
    """, scalars="epsilon f32", operations=lambda N, C: 5 * N * C)  # fmt: skip

RMSNORM_BACKWARD = op("rmsnorm_backward", "rmsnorm", """
    out    dx         act (N, C)
    out    partials   f32 (K, C)
    in?    dresidual  act (N, C)
    in     dy         act (N, C)
    in     x          act (N, C)
    in     rstd       f32 (N)
    in     gamma      act (C)
    """, operations=lambda N, C, K: 10 * N * C)  # fmt: skip

ADD_ROWS = op("add_rows", "rmsnorm", """
    add    total  f32 (C)
    in     rows   f32 (K, C)
    """, operations=lambda C, K: K * C)  # fmt: skip

HEAD_NORM_FORWARD = op("head_norm_forward", "rmsnorm", """
    out    y            act (N, G, D)
    out    rstd         f32 (N, G)
    in     x            act (N, G, D)
    in     query_gamma  act (D)
    in     key_gamma    act (D)
    """, scalars="epsilon f32, queries i32", operations=lambda N, G, D: 4 * N * G * D)  # fmt: skip

HEAD_NORM_BACKWARD = op("head_norm_backward", "rmsnorm", """
    out    dx           act (N, G, D)
    out    partials     f32 (K, 2, D)
    in     dy           act (N, G, D)
    in     x            act (N, G, D)
    in     rstd         f32 (N, G)
    in     query_gamma  act (D)
    in     key_gamma    act (D)
    """, scalars="queries i32", operations=lambda N, G, D, K: 10 * N * G * D)  # fmt: skip

ROTATION_TABLE = op("rotation_table", "rotary", """
    out    rotations  f32 (B, S, D)
    in     starts     i32 (B)
    """, scalars="base f32", operations=lambda B, S, D: 2 * B * S * D)  # fmt: skip

ROTARY_FORWARD = op("rotary_forward", "rotary", """
    out    qkv        act (B, S, 3, H, D)
    in     packed     act (B, S, G, D)
    in     rotations  f32 (B, S, D)
    """, operations=lambda B, S, D, G, **_: 3 * B * S * G * D)  # fmt: skip

ROTARY_BACKWARD = op("rotary_backward", "rotary", """
    out    dpacked    act (B, S, G, D)
    in     dqkv       act (B, S, 3, H, D)
    in     rotations  f32 (B, S, D)
    """, operations=lambda B, S, H, D, G: B * S * (3 * H + 3 * G) * D)  # fmt: skip

SWIGLU_FORWARD = op("swiglu_forward", "swiglu", """
    out    y       act (N, C)
    in     hidden  act (N, 2, C)
    """, operations=lambda N, C: 10 * N * C)  # fmt: skip

SWIGLU_BACKWARD = op("swiglu_backward", "swiglu", """
    out    dhidden  act (N, 2, C)
    in     dy       act (N, C)
    in     hidden   act (N, 2, C)
    """, operations=lambda N, C: 20 * N * C)  # fmt: skip

MATMUL_FORWARD = op("matmul_forward", "matmul", """
    out    y       act (N, O)
    in     x       act (N, C)
    in     weight  act (O, C)
    in?    bias    act (O)
    """, operations=lambda N, C, O: 2 * N * C * O)  # fmt: skip

MATMUL_GELU_FORWARD = op("matmul_gelu_forward", "matmul", """
    out    y       act (N, O)
    out    slope   act (N, O)
    in     x       act (N, C)
    in     weight  act (O, C)
    in?    bias    act (O)
    """, operations=lambda N, C, O: 2 * N * C * O + 20 * N * O)  # fmt: skip

MATMUL_RELU_FORWARD = op("matmul_relu_forward", "matmul", """
    out    y       act (N, O)
    out    slope   act (N, O)
    in     x       act (N, C)
    in     weight  act (O, C)
    in?    bias    act (O)
    """, operations=lambda N, C, O: 2 * N * C * O + N * O)  # fmt: skip

MATMUL_RELU2_FORWARD = op("matmul_relu2_forward", "matmul", """
    out    y       act (N, O)
    out    slope   act (N, O)
    in     x       act (N, C)
    in     weight  act (O, C)
    in?    bias    act (O)
    """, operations=lambda N, C, O: 2 * N * C * O + 2 * N * O)  # fmt: skip

MATMUL_BACKWARD_INPUT = op("matmul_backward_input", "matmul", """
    out    dx      act (N, C)
    in     dy      act (N, O)
    in     weight  act (O, C)
    """, operations=lambda N, C, O: 2 * N * C * O)  # fmt: skip

MATMUL_ACTIVATION_BACKWARD_INPUT = op("matmul_activation_backward_input", "matmul", """
    out    dhidden  act (N, C)
    in     dy       act (N, O)
    in     weight   act (O, C)
    in     slope    act (N, C)
    """, operations=lambda N, C, O: 2 * N * C * O + N * C)  # fmt: skip

MATMUL_BACKWARD_WEIGHT = op("matmul_backward_weight", "matmul", """
    add    dweight  f32 (O, C)
    add?   dbias    f32 (O)
    in     dy       act (N, O)
    in     x        act (N, C)
    """, operations=lambda N, C, O: 2 * N * C * O)  # fmt: skip

ATTENTION_FORWARD = op("attention_forward", "attention", """
    out    y          act (B, S, H, D)
    out    logsumexp  f32 (B, H, S)
    in     qkv        act (B, S, 3, H, D)
    """, operations=lambda B, S, H, D: 2 * B * H * S * (S + 1) * D)  # fmt: skip

ATTENTION_DELTA = op("attention_delta", "attention", """
    out    delta  f32 (B, H, S)
    in     dy     act (B, S, H, D)
    in     y      act (B, S, H, D)
    """, operations=lambda B, S, H, D: 2 * B * H * S * D)  # fmt: skip

ATTENTION_BACKWARD = op("attention_backward", "attention", """
    out    dqkv       act (B, S, 3, H, D)
    in     dy         act (B, S, H, D)
    in     delta      f32 (B, H, S)
    in     logsumexp  f32 (B, H, S)
    in     qkv        act (B, S, 3, H, D)
    """, operations=lambda B, S, H, D: 5 * B * H * S * (S + 1) * D)  # fmt: skip

ATTENTION_DECODE = op("attention_decode", "attention", """
    out    y          act (B, H, D)
    inout  keys       act (B, H, T, D)
    inout  values     act (B, H, T, D)
    in     qkv        act (B, 3, H, D)
    in     positions  i32 (B)
    """, operations=lambda B, H, D, T: 4 * B * H * T * D)  # fmt: skip

FILL_CACHE = op("fill_cache", "attention", """
    inout  keys    act (B, H, T, D)
    inout  values  act (B, H, T, D)
    in     qkv     act (K, S, 3, H, D)
    in     slots   i32 (K)
    """)  # fmt: skip

DROPOUT = op("dropout", "elementwise", """
    out    y         act (N)
    in     x         act (N)
    in     counters  i32 (4)
    """, scalars="drop_probability f32, stream i32, first_quad i32", operations=lambda N: N)  # fmt: skip

ZERO = op("zero", "elementwise", """
    out    x  act (N)
    """)  # fmt: skip

CROSS_ENTROPY_FORWARD = op("cross_entropy_forward", "cross_entropy", """
    out    losses   f32 (N)
    out    ranks    i32 (N)
    in     logits   act (N, V)
    in     targets  i32 (N)
    """, operations=lambda N, V: 4 * N * V)  # fmt: skip

CROSS_ENTROPY_TRAINING = op("cross_entropy_training", "cross_entropy", """
    out    losses   f32 (N)
    inout  logits   act (N, V)
    in     targets  i32 (N)
    """, scalars="scale f32", operations=lambda N, V: 6 * N * V)  # fmt: skip

OUTPUT_LAYER_TRAINING = op("output_layer_training", "output_layer", """
    out      losses        f32 (N)
    out      dx            act (N, C)
    add      dweight       f32 (V, C)
    add?     dbias         f32 (V)
    scratch  exponentials  act (W)
    scratch  scaled        act (N, C)
    in       x             act (N, C)
    in       weight        act (V, C)
    in?      bias          act (V)
    in       targets       i32 (N)
    """, scalars="scale f32", operations=lambda N, C, V, **_: 6 * N * C * V)  # fmt: skip

# settings: temperature, top_k, top_p and repetition penalty of each sequence; keys: its two keys of Philox
DRAW_TOKEN = op("draw_token", "sampling", """
    out      tokens     i32 (B)
    inout    positions  i32 (B)
    inout    windows    i32 (B, T)
    inout    drawn      i32 (B)
    scratch  scores     f32 (B, V)
    in       logits     act (B, V)
    in       settings   f32 (B, 4)
    in       keys       i32 (B, 4)
    """, operations=lambda B, V, **_: 2 * B * V)  # fmt: skip

ADD_SUM = op("add_sum", "reduction", """
    add    total   f32 (1)
    in     values  f32 (N)
    """, scalars="scale f32", operations=lambda N: N)  # fmt: skip

SUM_OF_SQUARES = op("sum_of_squares", "reduction", """
    out    partials   f32 (K)
    in     gradients  f32 (P)
    """, operations=lambda K, P: 2 * P)  # fmt: skip

GRADIENT_NORM = op("gradient_norm", "reduction", """
    out    norm      f32 (1)
    in     partials  f32 (K)
    """, operations=lambda K: K)  # fmt: skip

ADAMW = op("adamw", "optimizer", """
    inout  weights        f32 (P)
    inout  first_moment   f32 (P)
    inout  second_moment  f32 (P)
    inout  gradients      f32 (P)
    out?   copy           act (P)
    in     norm           f32 (1)
    in     schedule       f32 (K, 3)
    in     counters       i32 (4)
    """, scalars="beta1 f32, beta2 f32, epsilon f32, weight_decay f32, clip_norm f32, decayed i32",
    operations=lambda P, K: 14 * P)  # fmt: skip

MUON_DIRECTION = op("muon_direction", "muon", """
    out    direction  act (M, R, L)
    inout  momentum   f32 (M, O, C)
    inout  gradients  f32 (M, O, C)
    in     norm       f32 (1)
    """, scalars="clip_norm f32", operations=lambda M, O, C, **_: 7 * M * O * C)  # fmt: skip

NEWTON_SCHULZ_GRAM = op("newton_schulz_gram", "muon", """
    out    gram  act (M, R, R)
    in     x     act (M, R, L)
    """, operations=lambda M, R, L: 2 * M * R * R * L)  # fmt: skip

NEWTON_SCHULZ_POLYNOMIAL = op("newton_schulz_polynomial", "muon", """
    out    polynomial  act (M, R, R)
    in     gram        act (M, R, R)
    """, operations=lambda M, R: 2 * M * R * R * R)  # fmt: skip

NEWTON_SCHULZ_FIRST_POLYNOMIAL = op("newton_schulz_first_polynomial", "muon", """
    out    polynomial  act (M, R, R)
    in     gram        act (M, R, R)
    """, operations=lambda M, R: 2 * M * R * R * R)  # fmt: skip

NEWTON_SCHULZ_STEP = op("newton_schulz_step", "muon", """
    out    y           act (M, R, L)
    in     polynomial  act (M, R, R)
    in     x           act (M, R, L)
    """, operations=lambda M, R, L: 2 * M * R * R * L)  # fmt: skip

MUON_UPDATE = op("muon_update", "muon", """
    inout  weights    f32 (M, O, C)
    out?   copy       act (M, O, C)
    in     direction  act (M, R, L)
    in     schedule   f32 (K, 3)
    in     counters   i32 (4)
    """, scalars="scale f32, weight_decay f32", operations=lambda M, O, C, **_: 4 * M * O * C)  # fmt: skip

ROUND_WEIGHTS = op("round_weights", "optimizer", """
    out    copy     act (P)
    in     weights  f32 (P)
    """)  # fmt: skip

WIDEN_GRADIENTS = op("widen_gradients", "optimizer", """
    out    gradients  f32 (P)
    in     rounded    act (P)
    """)  # fmt: skip

RECORD_STEP = op("record_step", "optimizer", """
    inout  history   f32 (K, 2)
    inout  loss      f32 (1)
    inout  counters  i32 (4)
    in     norm      f32 (1)
    """)  # fmt: skip

CATALOGUE = {value.name: value for name, value in dict(globals()).items() if name.isupper()}

# GPUs lack OUTPUT_LAYER_TRAINING, because they are fastest with the logits of all rows at once: four ops replace it, or
# two of fused_ops.
ON_GPUS = {name: value for name, value in CATALOGUE.items() if value is not OUTPUT_LAYER_TRAINING}
