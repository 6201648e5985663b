"""A description as one HTML page that needs nothing else: histograms, figures, and the masks of some rows."""

from html import escape

from outcrop.datasets.description import BINS, Description, Lengths, Token
from outcrop.datasets.kinds import KINDS
from outcrop.datasets.preflight import Preflight

STYLE = """
:root { --ink: #1d2430; --soft: #667085; --line: #e4e7ec; --prompt: #98a2b3; --answer: #0b6e4f; --special: #7a5af8; }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem }
p { margin: .4rem 0 } .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; width: 1% } .kind { white-space: nowrap; width: 1% } td { overflow-wrap: anywhere }
figure { margin: 0; min-width: 0 } figcaption { font-weight: 600 } .charts { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem }
@media (max-width: 44rem) { .charts { grid-template-columns: 1fr } }
svg { width: 100%; height: auto; display: block } svg text { font: 12px system-ui, sans-serif; fill: var(--soft) }
.mask { font: 13px/1.9 ui-monospace, monospace; border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-wrap: anywhere }
.mask span { border-radius: 3px; padding: .1em .08em; margin-right: 1px; white-space: pre-wrap }
.p { background: #f2f4f7; color: #475467 } .a { background: #d3f3e4; color: #054f38; font-weight: 600 } .s { outline: 1px solid var(--special); outline-offset: -1px }
.key { display: inline-block; padding: 0 .5em; border-radius: 3px; margin-right: .6em; font-size: .9em }
.fails { color: #b42318 } .hurts { color: #b54708 } .look { color: #175cd3 } .good { color: var(--answer) }
@media print { body { margin: 0 } h2 { break-after: avoid } figure, .mask { break-inside: avoid } }
"""
KEY = '<p><span class="key p">context</span><span class="key a">learned</span><span class="key s">special token</span></p>'
WORDS = {"fails": "would fail", "hurts": "would hurt", "look": "to look at", "good": "good"}


def page(name: str, base: str, found: Description, check: Preflight, masks: dict[int, list[Token]]) -> str:
    """The page of one file. `masks` are rows by their line."""
    figures = [
        ("rows", f"{found.rows:,}" + (f", of which {found.looked_at:,} were looked at" if found.looked_at < found.rows else "")),
        ("form", found.form),
        ("tokens", f"{found.whole.total:,}, of which {found.answers.total:,} are learned ({_share(found.answers.total, found.whole.total)})"),
        ("different prompts; answers", f"{found.distinct_prompts:.1%}; {found.distinct_answers:.1%}"),
        ("different pairs of words in answers", f"{found.distinct_pairs:.1%}"),
        ("shared beginnings", f"{found.shared:.1%} of all tokens lie in beginnings that rows share"),
        ("system prompts", _systems(found)),
        ("messages a row", ", ".join(f"{turns}: {count:,} rows" for turns, count in sorted(found.turns.items())) or "plain text"),
    ]  # fmt: skip
    rows = "".join(f"<tr><th>{escape(what)}</th><td>{escape(said)}</td></tr>" for what, said in figures)
    shown = "".join(f"<h2>Row on line {line}</h2>{KEY}{mask(tokens)}" for line, tokens in masks.items())
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(name)}</title><style>{STYLE}</style></head><body>
<h1>{escape(name)}</h1><p class="soft">as {escape(base)} sees it</p>
<table>{rows}</table>
<h2>Lengths</h2><div class="charts">{histogram("prompt", found.prompts, "--prompt")}{histogram("answer", found.answers, "--answer")}</div>
<h2>What a check finds: <span class="{check.verdict}">{WORDS[check.verdict]}</span></h2>{_findings(check)}
<h2>Commonest</h2>{_commonest(found)}
{shown}
</body></html>
"""


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}"


def _systems(found: Description) -> str:
    filled = {text: count for text, count in found.systems.items() if text}
    return f"{sum(filled.values()):,} rows, {len(filled):,} different" if filled else "none"


def histogram(name: str, lengths: Lengths, color: str) -> str:
    """Rows by their number of tokens, as SVG."""
    width, height, left, bottom = 420, 170, 44, 30
    most = max(*lengths.counts, 1)
    step = (width - left - 8) / BINS
    bars = "".join(
        f'<rect x="{left + number * step + 1:.1f}" y="{height - bottom - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}" '
        f'fill="var({color})"><title>{number * lengths.top // BINS:,} to {(number + 1) * lengths.top // BINS - 1:,} tokens: {count:,} rows</title></rect>'
        for number, count in enumerate(lengths.counts)
        if (tall := max(1.0 if count else 0.0, (height - bottom - 16) * count / most))
    )
    ticks = "".join(
        f'<text x="{left + share * (width - left - 8):.0f}" y="{height - 12}" text-anchor="{anchor}">{share * lengths.top:,.0f}</text>'
        for share, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    )
    said = ", ".join(
        f"{'max' if share == 100 else f'p{share}'} {value:,}" for share, value in lengths.percentiles.items()
    )
    return (
        f'<figure><figcaption>{escape(name)}: {lengths.mean:,.0f} tokens on average</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="rows by tokens of their {escape(name)}">'
        f'<line x1="{left}" y1="{height - bottom}" x2="{width - 8}" y2="{height - bottom}" stroke="var(--line)"/>'
        f'<text x="{left - 6}" y="24" text-anchor="end">{most:,}</text><text x="{left - 6}" y="{height - bottom}" text-anchor="end">0</text>'
        f"{bars}{ticks}</svg><p class=\"soft\">{said}; rows by tokens</p></figure>"
    )  # fmt: skip


def mask(tokens: list[Token]) -> str:
    """A row's tokens, those that are learned in colour."""
    spans = ""
    for token in tokens:
        name = ("a" if token.is_learned else "p") + (" s" if token.is_special else "")
        text = token.text.replace(" ", "\u00b7").replace("\n", "\u21b5\n") or "\u2205"
        spans += f'<span class="{name}" title="{token.id}">{escape(text)}</span>'
    return f'<div class="mask">{spans}</div>'


def _findings(check: Preflight) -> str:
    if not check.counts:
        return "<p>Nothing.</p>"
    rows = ""
    for kind, count in sorted(check.counts.items(), key=lambda pair: list(KINDS).index(pair[0])):
        first = next((str(problem) for problem in check.problems if problem.kind == kind), "")
        severity = KINDS[kind].severity
        rows += (
            f'<tr><td class="{severity} kind">{WORDS[severity]}</td><td class="kind">{escape(kind)}</td><td class="number">{count:,}</td>'
            f'<td>{escape(first)}<br><span class="soft">{escape(KINDS[kind].remedy)}</span></td></tr>'
        )
    return f"<table><tr><th></th><th>kind</th><th></th><th>the first one, and what to do</th></tr>{rows}</table>"


def _commonest(found: Description) -> str:
    rows = "".join(
        f'<tr><td class="kind">{escape(what)}</td><td class="number">{count:,}</td><td>{escape(text[:160])}</td></tr>'
        for what, listed in (("answer", found.commonest_answers), ("opening", found.commonest_openings))
        for text, count in listed
        if count > 1
    )
    return (
        f"<table><tr><th></th><th>rows</th><th></th></tr>{rows}</table>"
        if rows
        else "<p>Nothing comes more than once.</p>"
    )
