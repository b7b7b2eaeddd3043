"""config.yaml as checked values. Read settings, reading, yaml_file, values, huggingface."""
