"""config.yaml as checked values.

Read architectures, settings, reading, yaml_file, values, huggingface, huggingface_llama.
"""
