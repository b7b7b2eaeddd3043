"""`hipgpt init DIR`: write a project, the folder in which `hipgpt run` works, without a checkout of the source."""

import argparse
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.files import make_folder
from hipgpt.base.paths import SCHEMA
from hipgpt.cli.arguments import Commands, add_command

SNAKEFILE = """# The workflow of the installed package hipgpt, as it is. Rules of your own can follow.
# `hipgpt run` starts it, and takes all options of snakemake.
from hipgpt.base.paths import SNAKEFILE


configfile: "config.yaml"


include: str(SNAKEFILE)


workflow.default_target = "all"  # Snakemake never takes the default from an included file
"""
CONFIG = f"""# Values here replace the defaults. All keys are described in
# {SCHEMA}
corpus: shakespeare

# A text of your own: name it here, and above as `corpus: mine`.
# corpora:
#   mine: {{kind: file, path: "~/texts/*.txt"}}

training:
  steps: 1500

# More runs, each with the values in which it differs:
# runs:
#   wide: {{model: {{embed_dim: 256, mlp_dim: 512}}}}
"""


def add(commands: Commands) -> None:
    parser = add_command(commands, init, "write a new project: a config.yaml and a Snakefile")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the project; it is made if it is absent")


def init(arguments: argparse.Namespace) -> None:
    """Write the two files, and print the next commands."""
    files = {arguments.folder / "Snakefile": SNAKEFILE, arguments.folder / "config.yaml": CONFIG}
    for path in files:
        if path.exists():
            raise UserError(f"{path}: exists; name another folder, or edit this project and start it by hipgpt run")
    make_folder(arguments.folder)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
        print(path)
    print(f"next: cd {arguments.folder} && hipgpt run")
