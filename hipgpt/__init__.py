"""HipGPT, a workflow from raw text to a trained GPT. Wings and floors: docs/design.md. __main__ runs cli/main.

`hipgpt.load(folder)` returns the model of a finished run, a trained_model.TrainedModel:

    model = hipgpt.load("results/runs/default")
    print(model.generate("To be, or not to be:", num_tokens=40))
    logits = model.logits("To be")  # (tokens, vocabulary)
    ids = model.tokenizer.encode("To be")
"""

import importlib
from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Return `load`. It is imported by name, because the code hash of every stage covers what this file imports."""
    if name not in __all__:
        raise AttributeError(f"module 'hipgpt' has no attribute {name!r}")
    return getattr(importlib.import_module("hipgpt.trained_model"), name)
