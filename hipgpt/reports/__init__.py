"""Tables, plots and pages about finished runs.

Read runs, samples, closing, provenance, plots, pages, summary, comparison, model_card.
"""
