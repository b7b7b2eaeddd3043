"""What a trained run has for programs that use its model."""

from pathlib import Path

from hipgpt.base.errors import UserError
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.reports.runs import read_record

BEST = Path("checkpoints", "best.safetensors")  # which a run has once it is trained


def run_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a trained run: that of its exported model, or of its corpus if it is not exported.

    Raises UserError if neither is there.
    """
    exported = folder / "model" / "tokenizer.json"
    if exported.exists():
        return Tokenizer.load(exported)
    record = read_record(folder)
    corpus = folder.resolve().parents[1] / "corpora" / record["corpus"]["corpus"]
    tokenizers = map(Tokenizer.load, sorted(corpus.glob("*/tokenizer.json")))
    found = next((each for each in tokenizers if each.sha256 == record["tokenizer_sha256"]), None)
    if found is None:
        raise UserError(f"{folder}: its tokenizer is neither {exported} nor in {corpus}; run snakemake first")
    return found
