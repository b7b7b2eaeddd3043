"""Files of other projects, in and out. Read huggingface, pretrained, llmc, gguf, hub."""
