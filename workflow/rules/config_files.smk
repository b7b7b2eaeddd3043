# The config files, read by the package before Snakemake reads them: Snakemake names neither line nor column of a
# mistake, shows a traceback for a byte that is not UTF-8, and lets a key that is given twice through.

import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))
from hipgpt.base.errors import exit_on_user_error
from hipgpt.config.reading import read_config

given = [Path(path) for path in workflow.configfiles]
exit_on_user_error(read_config)(
    Path(workflow.basedir) / "config.yaml", *(path for path in given if path.suffix != ".json")
)
