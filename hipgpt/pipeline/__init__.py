"""What Snakemake asks. Read recipes, code_hash, sweeps, seals, history, planned_jobs."""
