"""Plot the curves of a run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hipgpt.base.files import replacing

TRAIN, VALIDATION = "#9db8d2", "#c2410c"
SMOOTHED_SHARE = 0.02  # of all steps: the width of the moving average


def plot_loss(metrics: Path, validation: Path, picture: Path, title: str) -> None:
    """Draw the training loss of each step, its moving average, and the validation loss."""
    steps, held_out = pd.read_csv(metrics), pd.read_csv(validation)
    figure, axes = axes_of(title, "step", "loss, nats per token")
    axes.plot(steps.step, steps.loss_nats_per_token, color=TRAIN, linewidth=0.6, alpha=0.6)
    axes.plot(steps.step, _smooth(steps.loss_nats_per_token), color="#1d4e89", label="training, moving average")
    axes.plot(held_out.step, held_out.loss_nats_per_token, "o-", color=VALIDATION, markersize=4, label="validation")
    last = held_out.iloc[-1]
    label = f"{last.loss_nats_per_token:.3f} nats, {last.bits_per_byte:.3f} bits per byte"
    _annotate(axes, label, (last.step, last.loss_nats_per_token), (0, 18), VALIDATION)
    axes.legend(frameon=False)
    save(figure, picture)


def plot_learning_rate(metrics: Path, picture: Path, title: str) -> None:
    """Draw the learning rate and, below it, the gradient norm before clipping."""
    steps = pd.read_csv(metrics)
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    upper.plot(steps.step, steps.learning_rate, color="#1d4e89")
    upper.set(title=title, ylabel="learning rate", ylim=(0, None))
    lower.plot(steps.step, steps.gradient_norm, color=TRAIN, linewidth=0.6)
    lower.plot(steps.step, _smooth(steps.gradient_norm), color="#1d4e89")
    lower.set(xlabel="step", ylabel="gradient norm", yscale="log")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, picture)


def plot_throughput(throughput: Path, picture: Path, title: str) -> None:
    """Draw tokens per second over the steps, with the median."""
    rows = pd.read_csv(throughput)
    figure, axes = axes_of(title, "step", "tokens per second")
    axes.plot(rows.step, rows.tokens_per_second, color=TRAIN)
    median = rows.tokens_per_second.median()
    axes.axhline(median, color="#1d4e89", linestyle="--", label=f"median {median:,.0f}")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, loc="lower right")
    save(figure, picture)


def plot_tokenizer(merges: Path, compression: Path, picture: Path) -> None:
    """Draw bytes per token by vocabulary size and, if the merges were trained here, the count of each pair by rank."""
    ranks, sizes = pd.read_csv(merges), pd.read_csv(compression)
    trained = bool(ranks.pair_count.notna().any())
    figure, panels = plt.subplots(1, 1 + trained, figsize=(4 + 4 * trained, 4), layout="constrained", squeeze=False)
    left, right = panels[0, 0], panels[0, -1]
    left.plot(sizes.vocab_size, sizes.bytes_per_token, "o-", color="#1d4e89", markersize=4)
    left.set(xscale="log", xlabel="vocabulary size", ylabel="bytes per token", title="compression")
    left.xaxis.set_major_locator(matplotlib.ticker.LogLocator(base=2))
    left.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    left.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    left.tick_params(axis="x", rotation=45)
    last = sizes.iloc[-1]
    label = f"{last.bytes_per_token:.2f} at {int(last.vocab_size):,}"
    _annotate(left, label, (last.vocab_size, last.bytes_per_token), (-6, 6), "#1d4e89")
    if trained:
        right.plot(ranks["rank"] + 1, ranks.pair_count, color="#1d4e89")
        right.set(xscale="log", yscale="log", xlabel="merge", ylabel="occurrences of its pair", title="merges")
    for axes in {left, right}:
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, picture)


def _annotate(axes: Axes, label: str, point: tuple[float, float], offset: tuple[int, int], color: str) -> None:
    """Write a label that ends at an offset, in points, from a point of the curve."""
    axes.annotate(label, point, color=color, xytext=offset, textcoords="offset points", ha="right")


def _smooth(values: pd.Series) -> pd.Series:
    return values.rolling(max(1, round(len(values) * SMOOTHED_SHARE)), center=True, min_periods=1).mean()


def axes_of(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes in the project's style; x, y: their labels."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, picture: Path) -> None:
    """Write a figure as PNG, and as SVG next to it, and close it. Equal figures give equal bytes."""
    with replacing(picture) as file:
        figure.savefig(file, dpi=150, format="png")
    with replacing(picture.with_suffix(".svg")) as file, plt.rc_context({"svg.hashsalt": picture.stem}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
