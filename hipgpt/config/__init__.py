"""config.yaml as checked values.

Read architectures, settings, stated, sampling, reading, schema, yaml_file, values, huggingface, huggingface_llama.
"""
