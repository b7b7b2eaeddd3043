"""Samples and evaluation of a finished model.

Read sampling, samples, evaluation, baselines, multiple_choice, inspection.
"""
