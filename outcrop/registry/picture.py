"""A lineage as a picture: a page with one drawing, sources on the left, the model on the right."""

from dataclasses import dataclass, field
from html import escape

from outcrop.registry.lineage import Node

WIDTH, LINE, PAD, GAP_X, GAP_Y = 300, 17, 12, 70, 18
# Characters a line takes, in the small type and in the bold one.
CHARACTERS, TITLE_CHARACTERS = 42, 34
COLORS = {
    "model": "#0b6e4f", "base": "#344054", "settings": "#667085", "data": "#175cd3", "teacher": "#7a5af8", "logs": "#b54708", "documents": "#b54708",
}  # fmt: skip
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2430; margin: 2rem } h1 { font-size: 1.4rem; margin: 0 0 1rem; overflow-wrap: anywhere }
.wide { overflow-x: auto } svg text { font: 12px system-ui, sans-serif; fill: #1d2430 } svg .title { font-weight: 600; font-size: 13px } svg .soft { fill: #667085 }
@media print { body { margin: 0 } .wide { overflow: visible } svg { width: 100%; height: auto } }
"""


@dataclass
class _Box:
    node: Node
    lines: list[tuple[str, str]]
    column: int
    top: float = 0.0
    sources: list["_Box"] = field(default_factory=list)

    @property
    def height(self) -> float:
        return 2 * PAD + LINE * (len(self.lines) + 0.2)


def page(node: Node) -> str:
    """The page."""
    root = _box(node, 0)
    deepest = _deepest(root)
    height = _place(root, 10.0)
    width = (deepest + 1) * WIDTH + deepest * GAP_X + 20
    drawn = _draw(root, deepest)
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Lineage of {escape(node.title)}</title><style>{STYLE}</style></head><body>
<h1>What made {escape(node.title)}</h1>
<div class="wide"><svg viewBox="0 0 {width} {height + 10:.0f}" width="{width}" height="{height + 10:.0f}" role="img">{drawn}</svg></div>
</body></html>
"""


def _box(node: Node, column: int) -> _Box:
    lines = [("title", part) for part in _wrapped(node.title, TITLE_CHARACTERS)]
    for name, said in node.details:
        lines += [("soft", part) for part in _wrapped(f"{name}: {said}", CHARACTERS)]
    return _Box(node, lines, column, sources=[_box(source, column + 1) for source in node.sources])


def _wrapped(text: str, most: int) -> list[str]:
    """A text in lines, parted after spaces, slashes, commas and hyphens where there are any."""
    lines, rest = [], text
    while len(rest) > most:
        cut = max(rest.rfind(mark, most // 2, most) for mark in " /,-") + 1 or most
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:]
    return [*lines, rest]


def _deepest(box: _Box) -> int:
    return max([box.column, *map(_deepest, box.sources)])


def _place(box: _Box, top: float) -> float:
    """Put a box beside the middle of its sources; where the next one may begin."""
    below = top
    for source in box.sources:
        below = _place(source, below) + GAP_Y
    below = max(below - GAP_Y if box.sources else below, top + box.height)
    box.top = top + (below - top - box.height) / 2
    return below


def _draw(box: _Box, deepest: int) -> str:
    left = 10 + (deepest - box.column) * (WIDTH + GAP_X)
    color = COLORS[box.node.kind]
    drawn = (
        f'<rect x="{left}" y="{box.top:.0f}" width="{WIDTH}" height="{box.height:.0f}" rx="7" fill="#fff" stroke="{color}" stroke-width="1.5"/>'
        f'<rect x="{left}" y="{box.top:.0f}" width="5" height="{box.height:.0f}" rx="2.5" fill="{color}"/>'
    )
    for number, (name, text) in enumerate(box.lines):
        drawn += f'<text class="{name}" x="{left + 16}" y="{box.top + PAD + LINE * (number + 0.85):.0f}">{escape(text)}</text>'
    for source in box.sources:
        begin, end = left - GAP_X, left
        from_y, to_y = source.top + source.height / 2, box.top + box.height / 2
        bend = (begin + end) / 2
        drawn += (
            f'<path d="M{begin},{from_y:.0f} C{bend},{from_y:.0f} {bend},{to_y:.0f} {end},{to_y:.0f}" fill="none" stroke="{COLORS[source.node.kind]}" '
            f'stroke-width="1.5" opacity="0.6"/>' + _draw(source, deepest)
        )
    return drawn
