"""An advice as one HTML page that needs nothing else."""

from html import escape

import msgspec

from outcrop.advice.curve import Curve
from outcrop.advice.recommendation import NOTHING, Advice, Option
from outcrop.evaluation.charts import COLOURS
from outcrop.evaluation.page import STYLE

MORE = """
.chosen { outline: 2px solid #0b6e4f; outline-offset: 3px; border-radius: 3px } .verdict { font-size: 1.25rem; font-weight: 600; margin: 1rem 0 }
.curve { display: grid; grid-template-columns: minmax(5rem, 9rem) 1fr auto; gap: .4rem 1rem; align-items: center } .guess { opacity: .55; background-image: repeating-linear-gradient(45deg, transparent 0 4px, #fff 4px 6px) }
@media (max-width: 40rem) { .curve { grid-template-columns: 1fr auto; grid-auto-flow: dense } .curve .track { grid-column: 1 / 3 } .curve .said { grid-column: 2 } }
"""


def page(found: Advice) -> str:
    """The whole page: the sentence, the ways as bars, reasons, the report's table, the learning curve, costs."""
    rows = found.rows
    warnings = (
        f"<div class='notes'><ul>{''.join(f'<li>{escape(one)}</li>' for one in found.warnings)}</ul></div>"
        if found.warnings
        else ""
    )
    told = msgspec.json.format(
        msgspec.json.encode({"manifest": found.manifest, "seconds": found.seconds}), indent=1
    ).decode()
    body = [
        f"<h1>{'No way helps' if found.choice == NOTHING else escape(found.choice.capitalize())}</h1>",
        f"<p class='soft'>{rows['test']:,} held-out rows, judged by {escape(found.judged_by)}; {rows['train']:,} rows to learn from; 95 % intervals; {found.seconds.get('all', 0):,.0f} s in all.</p>",
        f"<p class='verdict'>{escape(found.sentence)}</p>", warnings, "<h2>The ways</h2>", _bars(found), "<h2>Why</h2>",
        f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in found.reasons)}</ul>", "<h2>When to tune: the table, measured</h2>", _table(found),
        _curve(found.curve) if found.curve is not None else "", "<h2>What a request takes</h2>", _costs(found.options),
        f"<h2>How it was found</h2><details><summary>settings and times</summary><pre>{escape(told)}</pre></details>",
    ]  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Advice: {escape(found.choice)}</title><style>{STYLE}{MORE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _track(mean: float, low: float, high: float, colour: str, kind: str = "") -> str:
    return (
        f"<div class='track'><div class='bar {kind}' style='width:{100 * mean:.2f}%;background-color:{colour}'></div>"
        f"<span class='whisker' style='left:{100 * low:.2f}%;width:{max(100 * (high - low), 0.2):.2f}%'></span></div><div class='said'>{100 * mean:.1f} %</div>"
    )


def _bars(found: Advice) -> str:
    rows = ""
    for place, option in enumerate(found.options):
        colour = COLOURS[place % len(COLOURS)]
        chosen = " chosen" if option.name == found.choice else ""
        detail = f"<br><span class='soft small'>{escape(option.detail)}</span>" if option.detail else ""
        rows += f"<div class='name{chosen}'>{escape(option.name)}{detail}</div>{_track(option.figure.mean, option.figure.low, option.figure.high, colour)}"
    ticks = "".join(f"<span>{share}</span>" for share in (0, 25, 50, 75, 100))
    return f"<div class='bars'>{rows}<div class='axis'>{ticks}</div></div>"


def _table(found: Advice) -> str:
    rows = "".join(
        f"<tr><td data-name='problem'>{escape(row.problem)}</td><td data-name='rule of thumb'>{escape(row.report)}</td><td data-name='measured here'>{escape(row.measured)}</td></tr>"
        for row in found.table
    )
    return f"<table class='rows'><thead><tr><th>problem</th><th>rule of thumb</th><th>measured here</th></tr></thead><tbody>{rows}</tbody></table>"


def _curve(curve: Curve) -> str:
    rows = "".join(
        f"<div class='name'>{point.rows:,} rows{' (guess)' if point.is_guess else ''}</div>{_track(point.mean, point.low, point.high, COLOURS[3], 'guess' if point.is_guess else '')}"
        for point in curve.points
    )
    return f"<h2>Learning curve</h2><p>{escape(curve.says[:1].upper() + curve.says[1:])}.</p><div class='curve'>{rows}</div>"


def _costs(options: list[Option]) -> str:
    priced = any(option.cost_a_thousand is not None for option in options)
    rows = ""
    for option in options:
        cost = (
            f"<td class='number'>{option.cost_a_thousand:,.4f}</td>"
            if option.cost_a_thousand is not None
            else "<td>-</td>"
            if priced
            else ""
        )
        rows += (
            f"<tr><th>{escape(option.name)}</th><td class='number'>{option.input_tokens:,.0f}</td><td class='number'>{option.output_tokens:,.1f}</td>"
            f"<td class='number'>{1000 * option.seconds_a_request:,.1f} ms</td>{cost}<td class='number'>{option.training_s:,.0f} s</td></tr>"
        )
    head = "<th>price of 1,000</th>" if priced else ""
    return (
        "<div class='scroll'><table><thead><tr><th></th><th>tokens in</th><th>tokens out</th><th>of this machine</th>"
        f"{head}<th>training</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
