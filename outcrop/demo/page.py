"""The demo's outcome as one HTML page that needs nothing else."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outcrop.demo.run import Outcome

STYLE = """
:root { --ink: #1d2430; --soft: #667085; --line: #e4e7ec; --base: #98a2b3; --tuned: #0b6e4f; }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem }
p { margin: .4rem 0 } .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .45rem .6rem; border-bottom: 1px solid var(--line) }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap } td .interval { color: var(--soft); font-size: .85em }
svg { width: 100%; height: auto; display: block } svg text { font: 13px system-ui, sans-serif; fill: var(--ink) }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .35em 0 .9em }
code, pre { font: 13px/1.5 ui-monospace, monospace } pre { background: #f7f8fa; border: 1px solid var(--line); padding: .9rem; overflow-x: auto }
.right { color: var(--tuned) } .wrong { color: #b42318 }
@media print { body { margin: 0 } h2 { break-after: avoid } tr, svg { break-inside: avoid } }
"""


def write_page(path: Path, outcome: "Outcome") -> None:
    """Write the page."""
    from outcrop.demo.run import SCRIPT, measured

    rows = ""
    for name, form, base, tuned, change in measured(outcome):
        cells = "".join(_cell(value, form, signed) for value, signed in ((base, False), (tuned, False), (change, True)))
        rows += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    job = outcome.job
    settings = ", ".join(f"{name} {value}" for name, value in job["hyperParameters"].items())
    parts = ", ".join(f"{what} {took:.0f} s" for what, took in outcome.seconds.items() if what != "all")
    path.write_text(
        f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Outcrop: base against tuned</title><style>{STYLE}</style></head><body>
<h1>Base against tuned</h1>
<p class="soft">Support tickets into a fixed JSON form. {escape(job["baseModelArn"].rpartition("/")[2])}, fine-tuned through
Bedrock's API on this machine: {escape(outcome.machine)}. {outcome.seconds["all"]:.0f} s in all ({parts}).</p>
<h2>{len(outcome.held_out)} held-out tickets, same prompts, greedy, 95 % intervals</h2>
<table><tr><th></th><th>base</th><th>tuned</th><th>tuned - base (paired)</th></tr>{rows}</table>
<p class="soft">"Contains the answer" counts an answer that holds every wanted value, whatever its form: what tuning adds
there is skill; what it adds to exact match alone is style. The held-out tickets are new draws of the generator that made
the training rows: new products, orders, names and combinations, but the same phrases.</p>
<h2>Output tokens</h2>{_histogram(outcome)}
<h2>Ten tickets</h2>{_examples(outcome)}
<h2>Training</h2><p>Validation loss {job["validationMetrics"][0]["validationLoss"]:.4f},
last training loss {job["trainingMetrics"]["trainingLoss"]:.4f}.</p><p class="soft">{escape(settings)}</p>
<h2>The ten lines that repeat it</h2><pre>{escape(SCRIPT)}</pre>
</body></html>""",
        encoding="utf-8",
    )


def _cell(value: object, form: str, signed: bool) -> str:
    from outcrop.demo.run import with_interval

    mean, _, interval = with_interval(value, form, signed).partition(" ")  # type: ignore[arg-type]
    return f'<td class="number">{escape(mean)} <span class="interval">{escape(interval)}</span></td>'


def _histogram(outcome: "Outcome") -> str:
    from outcrop.demo.run import BINS, counts

    base, tuned = counts(outcome.base.tokens), counts(outcome.tuned.tokens)
    most, height, step = max(*base, *tuned, 1), 180, 100
    bars = ""
    for number, ((low, high), first, second) in enumerate(zip(BINS, base, tuned, strict=True)):
        left = 30 + number * step
        for offset, count, color in ((0, first, "--base"), (36, second, "--tuned")):
            tall = height * count / most
            bars += (
                f'<rect x="{left + offset}" y="{200 - tall:.1f}" width="34" height="{tall:.1f}" rx="3" fill="var({color})"/>'
                f'<text x="{left + offset + 17}" y="{194 - tall:.1f}" text-anchor="middle">{count}</text>'
            )
        bars += f'<text x="{left + 35}" y="222" text-anchor="middle">{low} to {high - 1}</text>'
    key = '<span class="key" style="background:var(--base)"></span>base<span class="key" style="background:var(--tuned)"></span>tuned'
    width = 40 + len(BINS) * step
    return f'<p class="soft">answers by their length in tokens {key}</p><svg viewBox="0 0 {width} 235" role="img">{bars}</svg>'


def _examples(outcome: "Outcome") -> str:
    rows = ""
    for number, ticket in enumerate(outcome.held_out[:10]):
        cells = ""
        for arm in (outcome.base, outcome.tuned):
            mark = "right" if arm.exact[number] else "wrong"
            cells += f'<td><code class="{mark}">{escape(arm.answers[number])}</code></td>'
        rows += f"<tr><td>{escape(ticket.text)}</td>{cells}</tr>"
    return f"<table><tr><th>ticket</th><th>base</th><th>tuned</th></tr>{rows}</table>"
