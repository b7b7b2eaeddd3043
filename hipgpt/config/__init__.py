"""config.yaml as checked values.

Read architectures, settings, stated, sampling, reading, schema, yaml_file, tokenizer_size, values, huggingface,
huggingface_llama.
"""
