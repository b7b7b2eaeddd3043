"""HipGPT: a small-GPT trainer over hand-written kernels. DESIGN: docs/design.md."""
