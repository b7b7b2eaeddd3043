"""The subcommands of `hipgpt`, a module each with `add(commands)`, which puts its parser among argparse's others."""
