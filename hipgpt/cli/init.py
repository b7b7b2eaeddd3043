"""`hipgpt init DIR`: write a project, the folder in which `hipgpt run` works, without a checkout of the source."""

import argparse
from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.base.files import make_folder
from hipgpt.base.paths import DEFAULTS, ROOT
from hipgpt.cli.arguments import Commands, add_command

SNAKEFILE = """# The workflow of the installed package hipgpt, as it is. Rules of your own can follow.
# `hipgpt run` starts it, and takes all options of snakemake. `snakemake --cores 1 all` does too.
from hipgpt.base.paths import SNAKEFILE


configfile: "config.yaml"


include: str(SNAKEFILE)


workflow.default_target = "all"  # Snakemake never takes the default from an included file
"""
CONFIG = """# All settings of this project. Change a value here, add a run or a text, or override on the command line:
#   hipgpt run --config 'training={steps: 1000, learning_rate_peak: 1e-3}'
# The file that this command prints describes every key:
#   python -c "from hipgpt.base.paths import SCHEMA; print(SCHEMA)"
"""
PROFILE = Path("profiles", "default", "profile.yaml")


def add(commands: Commands) -> None:
    parser = add_command(commands, init, "write a new project: a config.yaml, a Snakefile and a profile")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the project; it is made if it is absent")


def init(arguments: argparse.Namespace) -> None:
    """Write the files, and print the next commands."""
    settings = DEFAULTS.read_text(encoding="utf-8").partition("\n\n")[2]  # without the comment about the checkout
    texts = {
        Path("Snakefile"): SNAKEFILE,
        Path("config.yaml"): f"{CONFIG}\n{settings}",
        PROFILE: (ROOT / PROFILE).read_text(encoding="utf-8"),
    }
    files = {arguments.folder / name: text for name, text in texts.items()}
    for path in files:
        if path.exists():
            raise UserError(f"{path}: exists; name another folder, or edit this project and start it by hipgpt run")
    for path, text in files.items():
        make_folder(path.parent)
        path.write_text(text, encoding="utf-8")
        print(path)
    enter = "" if arguments.folder.resolve() == Path.cwd() else f"cd {arguments.folder} && "
    print(f"next: {enter}hipgpt run")
