"""Tables, plots and pages about finished runs.

Read runs, samples, provenance, plots, pages, summary, comparison, model_card.
"""
