"""`hipgpt export`: a finished run in the file formats of other projects."""

import argparse
from pathlib import Path

from hipgpt.commands.arguments import Commands, add_command, add_run, finished_run

FORMATS = {
    "hf": "a directory for Hugging Face's transformers",
    "gguf": "model.gguf for llama.cpp",
    "llmc": "model.bin and tokenizer.bin for llm.c",
}


def add(commands: Commands) -> None:
    about = "write a finished run in another project's format"
    parser = add_command(commands, export, about)
    add_run(parser)
    formats = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    parser.add_argument("--to", required=True, choices=FORMATS, help=formats)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write into (default: exports/FORMAT in the run's)",
    )


def export(arguments: argparse.Namespace) -> None:
    """Write the files and print their names."""
    from hipgpt.export.gguf import export_gguf
    from hipgpt.export.huggingface import export_huggingface
    from hipgpt.export.llmc import export_llmc
    from hipgpt.tokenizer import Tokenizer

    run = finished_run(arguments)
    folder = arguments.output or run / "exports" / arguments.to
    write = {"hf": export_huggingface, "gguf": export_gguf, "llmc": export_llmc}[arguments.to]
    for path in write(run, Tokenizer.load(run / "model" / "tokenizer.json"), folder):
        print(f"{path}  {path.stat().st_size:,} bytes")
