"""The devices.

Read cpu, gpu, cuda, hip, nccl, null, variants, self_check, launch_shapes, split_k, persistent_gemm, stacked_gemm,
compile_commands.
"""
