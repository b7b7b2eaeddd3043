"""`hipgpt export`: write a finished run in the file format of another project, and push it to a hub."""

import argparse
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.cli.arguments import Commands, add_command, add_json, add_run, finished_run, print_json

FORMATS = {
    "hf": "a directory for Hugging Face's transformers",
    "gguf": "model.gguf for llama.cpp",
    "llmc": "model.bin and tokenizer.bin for llm.c",
}
WEIGHTS = ("f32", "f16", "q8_0")  # types of weights in a GGUF file


def add(commands: Commands) -> None:
    about = "write a finished run in another project's format"
    parser = add_command(commands, export, about)
    add_run(parser)
    formats = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    parser.add_argument("--to", default="hf", choices=FORMATS, help=f"{formats} (default: %(default)s)")
    parser.add_argument("--type", choices=WEIGHTS, help="with gguf, type of the weights (default: f32)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write into (default: exports/FORMAT in the run's folder)",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="repository of the Hugging Face hub that gets the files too; made, public, if absent (default: none)",
    )
    parser.add_argument("--private", action="store_true", help="make the repository of --push private if it is absent")
    add_json(parser)


def export(arguments: argparse.Namespace) -> None:
    """Write the files, push them if a repository is given, and print their names and sizes."""
    from hipgpt.data.tokenizer.tokenizer import Tokenizer
    from hipgpt.interchange.gguf import export_gguf
    from hipgpt.interchange.hub import check_push, push
    from hipgpt.interchange.huggingface import export_huggingface
    from hipgpt.interchange.llmc import export_llmc

    if arguments.type and arguments.to != "gguf":
        raise UserError(f"--type: got {arguments.type} with --to {arguments.to}, expected it with --to gguf only")
    if arguments.private and not arguments.push:
        raise UserError("--private: got no --push, expected both")
    if arguments.push:
        check_push(arguments.push)
    run = finished_run(arguments, "model/README.md")
    folder = arguments.output or run / "exports" / arguments.to
    tokenizer = Tokenizer.load(run / "model" / "tokenizer.json")
    if arguments.to == "hf":
        files = export_huggingface(run, tokenizer, folder, (run / "model" / "README.md").read_text(encoding="utf-8"))
    elif arguments.to == "gguf":
        files = export_gguf(run, tokenizer, folder, arguments.type or "f32")
    else:
        files = export_llmc(run, tokenizer, folder)
    sizes = [{"path": str(path), "bytes": path.stat().st_size} for path in files]
    if not arguments.json:
        print(*(f"{file['path']}  {file['bytes']:,} bytes" for file in sizes), sep="\n")
    message = f"Export run {run.name} by HipGPT"
    address = push(files, arguments.push, message, arguments.private) if arguments.push else None
    if arguments.json:
        print_json({"files": sizes, "repository": address})
    elif address:
        print(address)
