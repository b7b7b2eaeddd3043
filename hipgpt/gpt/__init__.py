"""The model as lists of ops, and its weights.

Read reference, model, parts, token_layers, weight_gradients, parameters, activations, blocking, precision, checkpoint,
prefill, fused_decoding, decoder, scoring.
"""
