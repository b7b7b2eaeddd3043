"""Text to tokens to batches; never sees a device.

Read download, archives, plain_text, json_lines, parquet, formats, cleaning, split, hub, corpus, tokenizer/, tokens,
shards, batches, bits_per_byte.
"""
