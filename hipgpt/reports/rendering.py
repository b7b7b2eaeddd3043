"""Fill the templates of pages. A page is one HTML file: it fetches nothing, and its policy forbids browsers to."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from hipgpt.base.files import replacing
from hipgpt.base.paths import TEMPLATES
from hipgpt.base.tables import cell, cells


def write_page(page: Path, template: str, **values: Any) -> None:
    """Write a page from a template in hipgpt/reports/templates. Values are text: their markup is escaped."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["cell"], environment.filters["cells"] = cell, cells
    environment.globals["asset"] = _asset
    with replacing(page) as file:
        file.write(environment.get_template(template).render(**values).encode())


def _asset(name: str) -> Markup:
    """Return a style sheet or a script of the templates as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
