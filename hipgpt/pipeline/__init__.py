"""The answers to Snakemake: recipes, code hashes, planned jobs.

Read recipes, code_hash, sweeps, seals, history, planned_jobs, reasons, stage_lines.
"""
