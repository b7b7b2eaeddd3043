"""What finished runs tell, as tables, plots and pages.

Read runs, provenance, plots, pages, summary, comparison, model_card.
"""
