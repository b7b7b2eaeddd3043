"""What Snakemake asks. Read recipes, code_hash, sweeps, seals, planned_jobs."""
