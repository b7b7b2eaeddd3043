"""The catalogue of all ops. Each is described where it is computed: the headers of kernels/cpu/<family>.cpp.

Dimensions: B sequences, S positions, N = B*S rows, C and O channels in and out, H heads of D channels, V vocabulary,
T context length, P parameters, K parts.
"""

from hipgpt.op import op

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

LAYERNORM_FORWARD = op("layernorm_forward", "layernorm", """
    out    y      act (N, C)
    out    mean   f32 (N)
    out    rstd   f32 (N)
    in     x      act (N, C)
    in     gamma  act (C)
    in     beta   act (C)
    """, scalars="epsilon f32", operations=lambda N, C: 8 * N * C)  # fmt: skip

LAYERNORM_BACKWARD = op("layernorm_backward", "layernorm", """
    add    dx      act (N, C)
    add    dgamma  f32 (C)
    add    dbeta   f32 (C)
    in     dy      act (N, C)
    in     x       act (N, C)
    in     mean    f32 (N)
    in     rstd    f32 (N)
    in     gamma   act (C)
    """, operations=lambda N, C: 15 * N * C)  # fmt: skip

MATMUL_FORWARD = op("matmul_forward", "matmul", """
    out    y       act (N, O)
    in     x       act (N, C)
    in     weight  act (O, C)
    in?    bias    act (O)
    """, operations=lambda N, C, O: 2 * N * C * O)  # fmt: skip

MATMUL_BACKWARD_INPUT = op("matmul_backward_input", "matmul", """
    out    dx      act (N, C)
    in     dy      act (N, O)
    in     weight  act (O, C)
    """, operations=lambda N, C, O: 2 * N * C * O)  # fmt: skip

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

ATTENTION_BACKWARD = op("attention_backward", "attention", """
    out    dqkv       act (B, S, 3, H, D)
    in     dy         act (B, S, H, D)
    in     y          act (B, S, H, D)
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

GELU_FORWARD = op("gelu_forward", "activation", """
    out    y  act (N)
    in     x  act (N)
    """, operations=lambda N: 12 * N)  # fmt: skip

GELU_BACKWARD = op("gelu_backward", "activation", """
    inout  gradient  act (N)
    in     x         act (N)
    """, operations=lambda N: 20 * N)  # fmt: skip

RELU_FORWARD = op("relu_forward", "activation", """
    out    y  act (N)
    in     x  act (N)
    """, operations=lambda N: N)  # fmt: skip

RELU_BACKWARD = op("relu_backward", "activation", """
    inout  gradient  act (N)
    in     x         act (N)
    """, operations=lambda N: N)  # fmt: skip

RESIDUAL_ADD = op("residual_add", "elementwise", """
    out    y       act (N)
    in     x       act (N)
    in     branch  act (N)
    """, operations=lambda N: N)  # fmt: skip

DROPOUT = op("dropout", "elementwise", """
    out    y         act (N)
    in     x         act (N)
    in     counters  i32 (4)
    """, scalars="drop_probability f32, stream i32", operations=lambda N: N)  # fmt: skip

ZERO = op("zero", "elementwise", """
    out    x  f32 (N)
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
    in     gradients      f32 (P)
    in     norm           f32 (1)
    in     schedule       f32 (3)
    """, scalars="beta1 f32, beta2 f32, epsilon f32, weight_decay f32, clip_norm f32",
    operations=lambda P: 14 * P)  # fmt: skip

RECORD_STEP = op("record_step", "optimizer", """
    inout  history   f32 (K, 2)
    in     loss      f32 (1)
    in     norm      f32 (1)
    in     counters  i32 (4)
    """)  # fmt: skip

CATALOGUE = {value.name: value for name, value in dict(globals()).items() if name.isupper()}
