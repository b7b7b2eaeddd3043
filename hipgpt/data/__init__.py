"""Text to tokens to batches; never sees a device.

Read download, archives, plain_text, corpus, tokenizer/, tokens, shards, batches.
"""
