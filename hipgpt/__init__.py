"""HipGPT: a small-GPT trainer over hand-written kernels. Its design: docs/design.md."""
