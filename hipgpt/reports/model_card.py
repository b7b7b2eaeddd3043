"""The model card: README.md of the Hugging Face directory, filled from what the run's folder tells."""

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from hipgpt.base.csv_file import read_csv
from hipgpt.base.nested import leaves
from hipgpt.base.tables import table
from hipgpt.reports.runs import EVALUATION, RERUN, model_of, read_record, run_row

CARD = Template("""\
---
library_name: transformers
pipeline_tag: text-generation
license: other
license_name: see-below
tags: [hipgpt, gpt2]
---

# $name

A GPT-2 of $parameters parameters, $origin with HipGPT on the corpus `$corpus`.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
inputs = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20, do_sample=True)[0]))
```

It reads at most $context_length tokens and continues texts of the corpus's kind; it follows no instructions, and
nothing was done about what such texts may say.

## Data

$data
## Model

$sizes
## Training

The best checkpoint by validation loss, of step $best_step; $tokens_seen tokens were seen in all.

$training
## Evaluation

The whole validation split, each token predicted once from a sliding context; bits per byte compare across tokenizers.

$evaluation
## Provenance

$provenance
## Licence

The weights are made from the corpus named above: fill in what its licence allows before you publish them.
""")
EVALUATED = ("predictor", "loss_nats_per_token", "bits_per_byte", "next_token_accuracy", "top5_accuracy")


def model_card(run: Path) -> str:
    """Return the text of a run's model card; run: the folder of a trained and evaluated run."""
    record, row = read_record(run), run_row(run)
    model = model_of(record)
    pretrained = record.get("pretrained_sha256")  # an older record has none
    evaluation = [
        {name: _rounded(line[name]) for name in EVALUATED}
        for line in read_csv(run / "evaluation.csv", EVALUATION, RERUN)
    ]
    data = {**record["corpus"], "tokenizer": f"byte-level BPE, {model.vocab_size:,} tokens"}
    provenance = {key: value for key, value in leaves(record) if key.split(".")[0] not in ("config", "corpus")}
    return CARD.substitute(
        name=run.name,
        parameters=f"{row['parameters']:,}",
        origin="fine-tuned, from the weights whose hashes stand below,"
        if pretrained
        else "trained from random weights",
        corpus=record["corpus"]["corpus"],
        context_length=model.context_length,
        data=_pairs(data),
        sizes=_pairs(vars(model)),
        best_step=row["best_step"],
        tokens_seen=f"{row['tokens_seen']:,}",
        training=_pairs(record["config"]["training"]),
        evaluation=table(evaluation, "md"),
        provenance=_pairs({key: value for key, value in provenance.items() if value is not None}),
    )


def _pairs(values: Mapping[str, Any]) -> str:
    return table([{"": key, "value": str(value)} for key, value in values.items()], "md")


def _rounded(value: Any) -> str:
    """Return a table's cell: numbers with four digits, nothing for None."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
