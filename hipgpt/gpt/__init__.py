"""The model as lists of ops, and its weights.

Read reference, model, parts, token_layers, parameters, activations, blocking, precision, checkpoint,
prefill, fused_decoding, decoder, scoring.
"""
