"""The byte-level BPE tokenizer.

Read reference, pretokenize, tokenizer, native, chunks, stage, write_formats, read_huggingface, read_tiktoken,
renumber.
"""
