"""Tables, plots and pages about finished runs.

Read runs, samples, closing, provenance, plots, rendering, pages, playground, summary, comparison, model_card.
"""
