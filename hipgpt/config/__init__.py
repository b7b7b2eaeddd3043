"""config.yaml as checked values. Read settings, reading, huggingface."""
