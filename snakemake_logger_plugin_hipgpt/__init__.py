"""The logger plugin `hipgpt` of Snakemake, which profiles/default selects. Snakemake finds plugins by their names."""

from hipgpt.pipeline.stage_lines import StageLines as LogHandler

__all__ = ["LogHandler"]
