"""Text to tokens to batches; never sees a device.

Read download, archives, corpus, tokenizer/, tokens, shards, batches.
"""
