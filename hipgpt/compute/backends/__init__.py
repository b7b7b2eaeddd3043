"""The devices.

Read cpu, gpu, driver, cuda, hip, nccl, null, variants, hopper_variants, variant, code_objects, self_check,
launch_shapes, split_k, persistent_gemm, stacked_gemm, sorted_embedding, decode_blocks, decode_tokens, token_layers,
output_layer, attention_short, compile_commands.
"""
