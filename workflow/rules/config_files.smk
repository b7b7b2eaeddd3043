# The config: the defaults in config.yaml, and over them what a project, the command line or an importing workflow gives.
# The package reads the files before Snakemake's values are used: Snakemake names neither line nor column of a mistake,
# shows a traceback for a byte that is not UTF-8, and lets a key that is given twice through.

import atexit
import gc
import sys
from pathlib import Path

# Snakemake's imports stay for as long as the process: without this, garbage collections look through all of them again.
gc.freeze()
atexit.register(gc.unfreeze)  # or modules would be cleared before generators that wait in a `with`, which need them

ROOT = Path(workflow.current_basedir).parents[1]
if (ROOT / "hipgpt").is_dir():  # a checkout
    sys.path.insert(0, str(ROOT))
from hipgpt.base.errors import exit_on_user_error
from hipgpt.config.reading import merge, read_config, with_defaults
from hipgpt.config.tokenizer_size import states_no_size

on_the_command_line = workflow.config_settings.configfiles
given = [Path(path) for path in workflow.configfiles if Path(path) not in on_the_command_line]
read_yaml_files = exit_on_user_error(lambda paths: read_config(*(path for path in paths if path.suffix != ".json")))
files = read_yaml_files([*given, *on_the_command_line])
# Snakemake merges files without the rule that another tokenizer does not inherit the size of the vocabulary
if states_no_size(merge(files, workflow.config_settings.config or {}).get("tokenizer")):
    config.get("tokenizer", {}).pop("vocab_size", None)
config.update(exit_on_user_error(with_defaults)(config))
