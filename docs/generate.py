"""mkdocs hook: generate pages from the code that they describe, so that nothing is written twice.

index.md from README.md, kernels.md from the headers of kernels/cpu, reference/config.md from the schema,
reference/ops.md from the catalogue, reference/commands.md from --help. Formulas in LaTeX become MathML.

The site does not have the files of the repository: a link to one becomes a link to the page that is made from it, or
plain text.
"""

import contextlib
import html
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import latex2mathml.converter
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from hipgpt.base.paths import SCHEMA  # noqa: E402
from hipgpt.cli import main as cli  # noqa: E402
from hipgpt.compute import catalogue as ops  # noqa: E402

KERNELS = """# Kernels and their formulas

Each family of ops has a source in C++ for CPUs, in `kernels/cpu`, and one in HIP C++ for GPUs, in `kernels/gpu`. The
header of the CPU's source says what its kernels compute. This page repeats these headers. The readable definition of
each op, in float64, is in `tests/support/reference.py`. The letters are those of [the catalogue](reference/ops.md).
"""


GENERATED = {
    "README.md": "index.md",
    "kernels/cpu": "kernels.md",
    "workflow/schemas/config.schema.yaml": "reference/config.md",
}
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#]+)(?P<anchor>#[^)]+)?\)")
FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links to files of the repository into links that the site has."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def on_site(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / link["path"]))
        if target.is_relative_to(ROOT / "docs"):
            return link[0]
        generated = GENERATED.get(target.relative_to(ROOT).as_posix())
        if generated is None:
            return link["text"]
        return f"[{link['text']}]({os.path.relpath(ROOT / 'docs' / generated, folder)}{link['anchor'] or ''})"

    return LINK.sub(on_site, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers show without a script and without a request."""
    return FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    display = "block" if formula["tag"] == "div" else "inline"
    return str(latex2mathml.converter.convert(html.unescape(formula["latex"]), display=display))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {
        "index.md": home(),
        "kernels.md": kernels(),
        "reference/config.md": settings(),
        "reference/ops.md": catalogue(),
        "reference/commands.md": commands(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def home() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")


def kernels() -> str:
    return KERNELS + "".join(f"\n## {path.stem}\n\n```text\n{_header(path)}```\n" for path in kernel_sources())


def kernel_sources() -> list[Path]:
    """Return the sources whose kernels are ops."""
    families = {op.family for op in ops.CATALOGUE.values()}
    return [path for path in sorted((ROOT / "kernels" / "cpu").glob("*.cpp")) if path.stem in families]


def _header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    comment = lines[: next(at for at, line in enumerate(lines) if not line.startswith("//"))]
    return "".join(line.removeprefix("//").removeprefix(" ") for line in comment)


def settings() -> str:
    schema, shipped = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (SCHEMA, ROOT / "config.yaml"))
    text = f"# Config\n\n{schema['description']} `config.yaml` has the default run; an unknown key is refused.\n"
    for key, one in schema["properties"].items():
        text += f"\n## {key}\n\n{one['description']}\n"
        if rows := list(_rows(one, shipped[key])):
            text += "\n| key | type | accepted | default | meaning |\n|---|---|---|---|---|\n" + "".join(rows)
        else:
            text += f"\nDefault: `{json.dumps(shipped[key])}`.\n"
    return text


def _rows(schema: Mapping[str, Any], shipped: Any, prefix: str = "") -> Iterator[str]:
    """Yield a row for each key; shipped: what config.yaml has here."""
    for key, one in schema.get("properties", {}).items():
        kind = one.get("type", "string" if "enum" in one else "")
        kind = kind if isinstance(kind, str) else " or ".join(kind)
        default = f"`{json.dumps(shipped[key])}`" if key in shipped else ""
        yield f"| `{prefix}{key}` | {kind} | {_accepted(one)} | {default} | {_cell(one.get('description', ''))} |\n"
    inner = schema.get("additionalProperties")
    if isinstance(inner, Mapping):
        yield from _rows(inner, {}, "&lt;name&gt;.")


def _accepted(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    allowed = schema.get("enum") or schema.get("items", {}).get("enum", [])
    found += [", ".join(f"`{value}`" for value in allowed)] if allowed else []
    found += [f"`{_cell(schema['pattern'].replace(chr(92) + 'Z', '$'))}`"] if "pattern" in schema else []
    return ", ".join(found)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<|endoftext\\|>", "`<\\|endoftext\\|>`")


def catalogue() -> str:
    about = html.escape(ops.__doc__.strip(), quote=False)
    text = f"# Ops\n\n{about}\n\n"
    text += "`act`: the plan's activation type, float32 or bfloat16; `?`: may be left out.\n"
    for op in ops.CATALOGUE.values():
        scalars = ", ".join(f"`{name}` {kind}" for name, kind in op.scalars) or "none"
        text += f"\n## {op.name}\n\nFamily [{op.family}](../kernels.md#{op.family}); scalars: {scalars}.\n\n"
        text += "| access | argument | type | shape |\n|---|---|---|---|\n"
        for one in op.arguments:
            mark, shape = "?" if one.optional else "", ", ".join(one.shape)
            text += f"| {one.access}{mark} | `{one.name}` | {one.dtype} | ({shape}) |\n"
    return text


def commands() -> str:
    text = "# Commands\n\n"
    for name in ("", *command_names()):
        text += f"## hipgpt {name}".rstrip() + f"\n\n```text\n{help_of(name)}```\n\n"
    return text


def command_names() -> list[str]:
    return re.findall(r"^    (\w+) ", help_of(""), re.MULTILINE)


def help_of(command: str) -> str:
    """Return what `hipgpt COMMAND --help` prints."""
    printed = io.StringIO()
    arguments = mock.patch.object(sys, "argv", ["hipgpt", *filter(None, [command]), "--help"])
    width = mock.patch.dict(os.environ, {"COLUMNS": "96", "NO_COLOR": "1"})
    with arguments, width, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main()
    return printed.getvalue()
