"""The answers to Snakemake: recipes, code hashes, planned jobs.

Read recipes, code_hash, sweeps, seals, planned_jobs.
"""
