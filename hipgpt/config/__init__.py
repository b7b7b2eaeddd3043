"""config.yaml as checked values.

Read architectures, settings, stated, sampling, reading, yaml_file, values, huggingface, huggingface_llama.
"""
