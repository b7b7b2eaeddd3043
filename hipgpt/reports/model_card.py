"""The model card: README.md of the Hugging Face directory, filled in from the files of the run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from hipgpt.base.csv_file import read_csv
from hipgpt.base.nested import leaves
from hipgpt.base.tables import table
from hipgpt.config.stated import stated
from hipgpt.reports.runs import EVALUATION, RERUN, model_of, read_record, run_row

CARD = Template("""\
---
library_name: transformers
pipeline_tag: text-generation
${metadata}tags: [hipgpt, $architecture]
---

# $name

A $title of $parameters parameters. HipGPT trained it on the corpus `$corpus`, starting from $origin.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
inputs = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=$new_tokens, do_sample=True)[0]))
```

It reads at most $context_length tokens and continues texts like those of the corpus. It does not follow instructions,
and its texts are not filtered.

## Data

$data
## Model

$sizes
## Training

The weights have the lowest validation loss of the run, at step $best_step. Training saw $tokens_seen tokens in all.

$training
## Evaluation

Each token of the validation split is predicted once, from a sliding context. Bits per byte are comparable across
tokenizers.

$evaluation
## Provenance

$provenance
## Licence

$licence
""")
METADATA = ("license", "language", "datasets")  # in the words of the Hugging Face Hub
NO_LICENCE = (
    "The weights were trained on the corpus named above. Before you publish them, state here what its licence allows."
)
EVALUATED = ("predictor", "loss_nats_per_token", "bits_per_byte", "next_token_accuracy", "top5_accuracy")
SHARES = ("next_token_accuracy", "top5_accuracy")


def model_card(run: Path, facts: Mapping[str, str]) -> str:
    """Return the text of a run's model card.

    run: the folder of a trained and evaluated run; facts: `hipgpt.config.settings.Config.card` of it.
    """
    import yaml

    record, row = read_record(run), run_row(run)
    model = model_of(record)
    pretrained = record.get("pretrained_sha256")  # absent in older records
    evaluation = [
        {name: _rounded(line[name], name in SHARES) for name in EVALUATED}
        for line in read_csv(run / "evaluation.csv", EVALUATION, RERUN)
    ]
    words = f"byte-level BPE, {model.vocab_size:,} tokens"
    data = {**record["corpus"], "source": _public(record["corpus"]["source"]), "tokenizer": words}
    provenance = {key: value for key, value in leaves(record) if key.split(".")[0] not in ("config", "corpus")}
    return CARD.substitute(
        name=run.name,
        architecture=model.architecture,
        title=model.parts.title,
        parameters=f"{row['parameters']:,}",
        metadata="".join(yaml.safe_dump({key: facts[key]}) for key in METADATA if key in facts),
        origin=_origin(facts) if pretrained else "random weights",
        corpus=record["corpus"]["corpus"],
        context_length=model.context_length,
        new_tokens=min(20, model.context_length // 2),  # GPT-2 has no positions beyond its context
        data=_pairs(data, _counted),
        sizes=_pairs(stated(model)),
        best_step=row["best_step"],
        tokens_seen=f"{row['tokens_seen']:,}",
        training=_pairs(record["config"]["training"]),
        evaluation=table(evaluation, "md"),
        provenance=_pairs({key: value for key, value in provenance.items() if value is not None}, _counted),
        licence=f"The corpus named above has the licence `{facts['license']}`." if "license" in facts else NO_LICENCE,
    )


def _origin(facts: Mapping[str, str]) -> str:
    folder = f" of the folder `{facts['pretrained']}`" if "pretrained" in facts else ""
    return f"the weights{folder} whose hashes are given below"


def _public(source: str) -> str:
    """Return where a corpus is from, without the folders of this machine."""
    return ", ".join(Path(part).name if part.startswith(("/", "~")) else part for part in source.split(", "))


def _pairs(values: Mapping[str, Any], shown: Callable[[Any], str] = str) -> str:
    return table([{"": key, "value": shown(value)} for key, value in values.items()], "md")


def _counted(value: Any) -> str:
    """Return a fact; a number of bytes or operations has separators, which a setting to copy must not have."""
    return f"{value:,}" if type(value) is int else str(value)


def _rounded(value: Any, is_share: bool) -> str:
    """Return the cell of a table: numbers with four digits, shares in percent, an empty cell for None."""
    if isinstance(value, float):
        return f"{100 * value:.1f} %" if is_share else f"{value:#.4g}".rstrip(".")
    return "" if value is None else str(value)
