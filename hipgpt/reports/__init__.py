"""Tables, plots and pages about finished runs.

Read runs, provenance, plots, pages, summary, comparison, model_card.
"""
