"""Tables, plots and pages about finished runs.

Read runs, samples, trained, closing, provenance, plots, rendering, charts, pages, page_size, playground,
summary, overview, swept, sweep_plots, comparison, model_card.
"""
