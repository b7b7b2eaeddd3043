"""Draw a run's curves: loss.png, learning_rate.png and throughput.png."""

import argparse
from pathlib import Path

import _package  # noqa: F401 (first: it decides which hipgpt is imported)
from _arguments import parsed

from hipgpt.base.errors import exit_on_user_error
from hipgpt.reports.plots import plot_learning_rate, plot_loss, plot_throughput


@exit_on_user_error
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, type=Path, help="the run's folder, with its CSV files")
    parser.add_argument("--output", required=True, type=Path, help="folder for the pictures")
    arguments = parsed(parser)

    run, output, name = arguments.run, arguments.output, arguments.run.name
    plot_loss(run / "metrics.csv", run / "validation.csv", output / "loss.png", f"{name}: loss")
    plot_learning_rate(run / "metrics.csv", output / "learning_rate.png", f"{name}: learning rate and gradient norm")
    plot_throughput(run / "throughput.csv", output / "throughput.png", f"{name}: throughput")


if __name__ == "__main__":
    main()
