"""config.yaml as checked values.

Read architectures, settings, sampling, reading, yaml_file, values, huggingface, huggingface_llama.
"""
