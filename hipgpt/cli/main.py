"""The command `hipgpt`, which inspects, compares and uses the runs of the workflow."""

import sys
from importlib.metadata import version

import shtab

from hipgpt.base.errors import exit_on_user_error
from hipgpt.cli import diff, export, generate, info, init, prune, restore, run, runs, tokenize, watch, why
from hipgpt.cli.arguments import Parser


@exit_on_user_error
def main() -> None:
    parser = Parser(prog="hipgpt", description="Inspect, compare and use the runs of the workflow.")
    parser.add_argument("--version", action="version", version=f"hipgpt {version('hipgpt')}")
    shtab.add_argument_to(parser, "--print-completion", help="print the completion script of a shell")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (init, run, generate, tokenize, runs, watch, diff, why, info, export, restore, prune):
        command.add(commands)
    if not sys.argv[1:]:
        parser.print_help()
        return
    arguments, rest = parser.parse_known_args()
    if rest and arguments.command not in (run.run, why.why):
        arguments.parser.refuse(rest)
    arguments.rest = rest
    arguments.command(arguments)
