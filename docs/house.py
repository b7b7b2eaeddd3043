"""The figure of the house: the wings of the package on their floors, as docs/images/house.svg.

`python docs/house.py` draws it again. Each wing's sentence is the first one of its __init__.py.
"""

import ast
import html
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "house.svg"
# From the ground up. A wing imports from lower floors only; wings of one floor do not know each other.
FLOORS = (
    ("base",),
    ("config", "data", "compute"),
    ("gpt",),
    ("training", "inference", "interchange", "reports", "pipeline"),
    ("cli",),
)

# Sizes in the SVG's units. The width is that of a phone, so that the text keeps its size there.
WIDTH, ROOF, GAP, MARGIN, NUMBER = 400, 64, 6, 10, 24
NAME_LINE, LINE, PADDING = 19, 16, 9
CHARACTER = 7.2  # the mean width, in a wide font
ROOMS_IN_A_ROW = 2
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
font-family="system-ui, sans-serif" font-size="13">
<title>{title}</title>
<path d="M2 {eaves}H{right}L{ridge_right} 4H{ridge_left}Z" fill="#cbd5e1" stroke="#64748b" stroke-linejoin="round"/>
<g text-anchor="middle" fill="#1e293b">
<text x="{middle}" y="28" font-size="16" font-weight="bold">hipgpt</text>
<text x="{middle}" y="49">A wing imports from lower floors only.</text>
</g>
"""


def sentence(wing: str) -> str:
    """Return the first sentence of a wing's introduction, without its full stop."""
    introduction = (
        ast.get_docstring(ast.parse((ROOT / "hipgpt" / wing / "__init__.py").read_text(encoding="utf-8"))) or ""
    )
    return re.split(r"\.(?:\s|$)", introduction, maxsplit=1)[0].replace("`", "")


def house() -> str:
    """Return the figure: light boxes with dark text, which light and dark pages show alike."""
    top, floors = ROOF, []
    for number in range(len(FLOORS), 0, -1):
        drawn, height = _floor(number, top)
        floors.append(drawn)
        top += height
    title = "; ".join(f"floor {number}: {', '.join(wings)}" for number, wings in enumerate(FLOORS, start=1))
    middle, right = WIDTH // 2, WIDTH - 2
    ridge = {"ridge_left": middle - 120, "ridge_right": middle + 120}
    head = HEAD.format(width=WIDTH, height=top + 2, title=title, eaves=ROOF, middle=middle, right=right, **ridge)
    return head + "".join(floors) + "</svg>\n"


def _floor(number: int, top: int) -> tuple[str, int]:
    """Return a floor, whose upper edge is at `top`, and its height."""
    drawn, height = "", GAP
    for row in _rows(FLOORS[number - 1]):
        width = (WIDTH - NUMBER - MARGIN - GAP * (len(row) - 1)) / len(row)
        texts = [textwrap.wrap(sentence(wing), int((width - 2 * PADDING) / CHARACTER)) for wing in row]
        room_height = 2 * PADDING + NAME_LINE + LINE * max(map(len, texts)) - 4
        for place, (wing, lines) in enumerate(zip(row, texts, strict=True)):
            drawn += _room(NUMBER + place * (width + GAP), top + height, width, room_height, wing, lines)
        height += room_height + GAP
    back = f'<rect x="2" y="{top}" width="{WIDTH - 4}" height="{height}" fill="#f1f5f9" stroke="#64748b"/>\n'
    label = f'<text x="9" y="{top + height / 2 + 5:g}" fill="#475569" font-weight="bold">{number}</text>\n'
    return back + label + drawn, height


def _rows(wings: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the wings of a floor in rows, the fewest, of lengths that differ by one at most."""
    count = -(-len(wings) // ROOMS_IN_A_ROW)
    cuts = [len(wings) * row // count for row in range(count + 1)]
    return [wings[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)]


def _room(left: float, top: float, width: float, height: float, wing: str, lines: list[str]) -> str:
    fill = "#bfdbfe" if wing == "gpt" else "#e2e8f0"
    room = f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}"/>\n'
    x, y = f"{left + PADDING:g}", top + PADDING + 11
    name = f'<text x="{x}" y="{y:g}" font-size="14" font-weight="bold" fill="#1e293b">{wing}</text>\n'
    text = "".join(
        f'<text x="{x}" y="{y + NAME_LINE + LINE * line:g}" fill="#1e293b">{html.escape(words, quote=False)}</text>\n'
        for line, words in enumerate(lines)
    )
    return room + name + text


if __name__ == "__main__":
    PICTURE.write_text(house(), encoding="utf-8")
