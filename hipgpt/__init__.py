"""HipGPT, a workflow from raw text to a trained GPT. Wings and floors: docs/design.md. __main__ runs cli/main."""
