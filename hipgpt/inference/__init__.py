"""Samples and evaluation of a finished model.

Read reference, sampling, samples, evaluation, baselines, multiple_choice, inspection.
"""
