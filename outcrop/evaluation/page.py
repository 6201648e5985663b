"""A comparison as one HTML page that needs nothing else, for a wide screen, a narrow one, and paper.

Charts are boxes sized in per cent, not pictures: their words stay as large as the text around them on every screen.
"""

from collections.abc import Sequence
from html import escape

import msgspec

from outcrop.evaluation.charts import bars, between, colour, number, p_value, points, said, token_histograms
from outcrop.evaluation.comparison import Against, Changed, Comparison
from outcrop.evaluation.metrics import COUNT, SHARE

MOST_ROWS, MOST_CONFUSED = 12, 12
STYLE = """
:root { --ink: #1d2430; --soft: #5d6778; --line: #e4e7ec; --good: #0b6e4f; --bad: #b42318; --note: #fff8e6 }
* { box-sizing: border-box; print-color-adjust: exact; -webkit-print-color-adjust: exact }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 64rem; margin: 2.5rem auto; padding: 0 1.25rem; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.4rem 0 .7rem } p { margin: .4rem 0 }
.soft { color: var(--soft) } .small { font-size: .875rem } .lead { font-size: 1.1rem; margin: .9rem 0 }
.notes { background: var(--note); border-left: 4px solid #e69f00; padding: .6rem 1rem; margin: 1rem 0 } .notes ul { margin: 0; padding-left: 1.1rem }
.scroll { overflow-x: auto; background: linear-gradient(to right, #fff 40%, transparent) 0 0 / 40px 100% no-repeat local, linear-gradient(to left, #fff 40%, transparent) 100% 0 / 40px 100% no-repeat local, linear-gradient(to right, #0002, transparent) 0 0 / 12px 100% no-repeat scroll, linear-gradient(to left, #0002, transparent) 100% 0 / 12px 100% no-repeat scroll } table { border-collapse: collapse; width: 100% }
.scroll { overflow-wrap: normal } .scroll tbody th { white-space: nowrap; padding-right: 1rem } .scroll th, .scroll td { min-width: 5.5rem }
th, td { text-align: left; padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; font-weight: 400 }
thead th { color: var(--soft); font-size: .875rem } tbody th { font-weight: 600 }
.number { font-variant-numeric: tabular-nums; white-space: nowrap } .interval { color: var(--soft); font-size: .82em; display: block }
.better { color: var(--good); font-weight: 600 } .worse { color: var(--bad); font-weight: 600 }
.bars { display: grid; grid-template-columns: minmax(6rem, 14rem) 1fr auto; gap: .55rem 1rem; align-items: center }
.track { position: relative; height: 1.7rem; background: #f5f6f8; border-radius: 3px } .bar { height: 100%; border-radius: 3px }
.whisker { position: absolute; top: 50%; height: 2px; margin-top: -1px; background: var(--ink) }
.whisker::before, .whisker::after { content: ""; position: absolute; top: -5px; width: 2px; height: 12px; background: var(--ink) }
.whisker::before { left: 0 } .whisker::after { right: 0 }
.said { white-space: nowrap; font-variant-numeric: tabular-nums }
.axis { display: flex; justify-content: space-between; margin-top: -.3rem; color: var(--soft); font-size: .8rem; grid-column: 2 }
.histograms { display: grid; gap: 1rem } .histogram { display: grid; grid-template-columns: minmax(6rem, 14rem) 1fr; gap: .2rem 1rem; align-items: end }
.columns { display: flex; height: 4.6rem; align-items: flex-end; border-bottom: 1px solid var(--soft); position: relative }
.columns div { flex: 1; margin: 0 1px; min-width: 0; border-radius: 2px 2px 0 0 }
.mean { position: absolute; top: 0; bottom: 0; flex: none !important; width: 0; margin: 0 !important; border-left: 2px dashed var(--ink) }
.edges { display: flex; grid-column: 2; color: var(--soft); font-size: .8rem } .edges span { flex: 1; min-width: 0; white-space: nowrap }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .45em }
.rows td { font-size: .9rem } .rows code { font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap }
details { margin: .6rem 0 } summary { cursor: pointer; font-weight: 600 } pre { font: 12px/1.45 ui-monospace, monospace; white-space: pre-wrap; background: #f7f8fa; padding: .8rem }
@media (max-width: 40rem) {
  body { margin: 1.2rem auto; padding: 0 .9rem } .bars { grid-template-columns: 1fr auto; gap: .2rem 1rem; grid-auto-flow: dense } .said { grid-column: 2 } .track { grid-column: 1 / 3; grid-row: auto; margin-bottom: .5rem } .axis { grid-column: 1 / 3 }
  .histogram { grid-template-columns: 1fr } .edges { grid-column: 1 } .scroll tbody th { white-space: normal }
  .rows thead { display: none } .rows tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line) } .rows td { display: block; border: 0; padding: .15rem 0 }
  .rows td::before { content: attr(data-name); color: var(--soft); font-size: .78rem; display: block }
}
@media print {
  @page { margin: 14mm } .rows-changed details::details-content { content-visibility: visible; block-size: auto } body { font-size: 10.5pt; max-width: none; margin: 0; padding: 0 } h2 { break-after: avoid }
  .track, .histogram, tr, .notes li { break-inside: avoid } .scroll { overflow: visible } .track { height: 1.4rem }
}
"""


def page(found: Comparison) -> str:
    """The whole page."""
    judged = found.measure(found.judged_by)
    groups = f" in {found.groups:,} groups, which are drawn together" if found.groups is not None else ""
    parts = [
        f"<h1>{escape(found.title)}</h1><p class='soft'>{found.rows:,} row{'s' if found.rows > 1 else ''}{groups}; the same prompts for every arm; 95 % intervals.</p>",
        f"<p class='lead'>{escape(headline(found))}</p>", _warnings(found.warnings),
        f"<h2>{escape(judged.metric)}: {escape(judged.what)}</h2>", bars(found.arms, judged), token_histograms(found),
        "<h2>All metrics</h2>", _table(found), _against(found), _turned(found), _slices(found), _labels(found), _changed(found), _manifest(found),
    ]  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(found.title)}: {escape(' against '.join(found.arms[:2]))}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def headline(found: Comparison) -> str:
    """The comparison in a sentence or two: what the best arm is, and whether that can be said."""
    judged = found.measure(found.judged_by)
    if len(found.arms) == 1:
        return f"{found.arms[0]}: {judged.metric} {said(judged.arms[0], judged.form)}."
    scored = [(figure.mean, number) for number, figure in enumerate(judged.arms) if figure is not None]
    sign = 1 if judged.more_is_better else -1
    best = max(scored, key=lambda one: (sign * one[0], -one[1]))[1]
    if best == 0:
        seen = [
            name
            for name, one in zip(found.arms[1:], judged.against, strict=True)
            if one is not None and one.verdict == "worse"
        ]
        rest = f"; worse than it are {', '.join(seen)}" if seen else "; no other arm can be told from it on these rows"
        return f"No arm is better than {found.arms[0]} ({judged.metric} {said(judged.arms[0], judged.form)}){rest}."
    against = judged.against[best - 1]
    if against is None:
        return f"{found.arms[best]} has the best figure ({judged.metric} {said(judged.arms[best], judged.form)}), but no row in common with {found.arms[0]} to hold it against."
    change = said(against.difference, judged.form, signed=True)
    if against.verdict == "better":
        sentence = f"{found.arms[best]} is better than {found.arms[0]}: {judged.metric} {said(judged.arms[best], judged.form)} against {said(judged.arms[0], judged.form)}, difference {change}, p {p_value(against.p_corrected)}."
    elif against.verdict.startswith("too few"):
        few = (
            f"{found.groups} groups of rows"
            if against.verdict == "too few groups"
            else f"{against.difference.counted} row{'s' if against.difference.counted > 1 else ''}"
        )
        sentence = f"{found.arms[best]} has the best figure ({said(judged.arms[best], judged.form)}), but {few} are too few for a verdict."
    else:
        sentence = (
            f"{found.arms[best]} has the best figure, but no difference from {found.arms[0]} is shown: {change}, p {p_value(against.p_corrected)}. These rows "
            f"show a difference of {points(against.detectable, judged.form)} four times in five."
        )
    return sentence + _shorter(found, best)


def _shorter(found: Comparison, arm: int) -> str:
    measure = next((one for one in found.measures if one.metric == "tokens-out"), None)
    against = measure.against[arm - 1] if measure is not None else None
    if measure is None or against is None or against.relative is None or against.verdict not in ("better", "worse"):
        return ""
    part = against.relative
    return f" Output tokens {number(measure.arms[0].mean, COUNT)} -> {number(measure.arms[arm].mean, COUNT)} ({part.mean:+.0%} [{part.low:+.0%}, {part.high:+.0%}])."  # type: ignore[union-attr]


def _warnings(warnings: Sequence[str]) -> str:
    return (
        f"<div class='notes'><ul>{''.join(f'<li>{escape(one)}</li>' for one in warnings)}</ul></div>"
        if warnings
        else ""
    )


def _table(found: Comparison) -> str:
    head = "".join(
        f"<th><span class='key' style='background:{colour(arm)}'></span>{escape(name)}</th>"
        for arm, name in enumerate(found.arms)
    )
    rows = ""
    for measure in found.measures:
        cells = "".join(
            f"<td class='number'>{number(figure.mean, measure.form)}<span class='interval'>{between(figure, measure.form)}</span></td>"
            if figure is not None
            else "<td>-</td>"
            for figure in measure.arms
        )
        rows += f"<tr><th title='{escape(measure.what)}'>{escape(measure.metric)}</th>{cells}</tr>"
    rows += f"<tr><th>rows without an answer</th>{''.join(f'<td class=number>{count:,}</td>' for count in found.unanswered)}</tr>"
    return f"<div class='scroll'><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _against(found: Comparison) -> str:
    if len(found.arms) < 2:
        return ""
    rows = ""
    for measure in found.measures:
        for name, one in zip(found.arms[1:], measure.against, strict=True):
            if one is not None:
                rows += (
                    f"<tr><th>{escape(measure.metric)}</th><td>{escape(name)}</td><td class='number'>{number(one.difference.mean, measure.form, True)}"
                    f"<span class='interval'>{between(one.difference, measure.form, True)}</span></td><td class='number'>{p_value(one.p_corrected)}"
                    f"<span class='interval'>{escape(one.test)}</span></td><td class='number'>{points(one.detectable, measure.form)}</td><td>{_verdict(one)}</td></tr>"
                )
    return (
        f"<h2>Against {escape(found.arms[0])}</h2><p class='soft small'>Paired differences. p is corrected for the number of arms (Holm). Detectable is the smallest true "
        "difference that so many rows show four times in five.</p><div class='scroll'><table><thead><tr><th></th><th>arm</th><th>difference</th><th>p</th><th>detectable</th>"
        f"<th></th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _verdict(one: Against) -> str:
    return f"<span class='{one.verdict if one.verdict in ('better', 'worse') else 'soft'}'>{one.verdict}</span>"


def _turned(found: Comparison) -> str:
    if not found.turned:
        return ""
    rows = "".join(
        f"<tr><th>{escape(one.arm)}</th><td class='number better'>{one.better:,}</td><td class='number worse'>{one.worse:,}</td><td class='number'>{one.same:,}</td></tr>"
        for one in found.turned
    )
    return f"<h2>Rows won and lost by {escape(found.judged_by)}</h2><div class='scroll'><table><thead><tr><th>against {escape(found.arms[0])}</th><th>won</th><th>lost</th><th>the same</th></tr></thead><tbody>{rows}</tbody></table></div>"


def _slices(found: Comparison) -> str:
    if not found.slices:
        return ""
    form = found.measure(found.judged_by).form
    head = "".join(f"<th>{escape(name)}</th>" for name in found.arms)
    rows = ""
    for one in found.slices:
        cells = ""
        for arm, figure in enumerate(one.arms):
            change = one.differences[arm - 1] if arm else None
            than = (
                f"<span class='interval'>{number(change.mean, form, True)} {between(change, form, True)}</span>"
                if change is not None
                else ""
            )
            cells += (
                f"<td class='number'>{number(figure.mean, form)}<span class='interval'>{between(figure, form)}</span>{than}</td>"
                if figure is not None
                else "<td>-</td>"
            )
        rows += f"<tr><th>{escape(one.key)} {escape(one.value)}</th><td class='number'>{one.rows:,}</td>{cells}</tr>"
    return f"<h2>{escape(found.judged_by)} by slice</h2><p class='soft small'>Below each figure its interval, and the paired difference from {escape(found.arms[0])}: hints, not verdicts.</p><div class='scroll'><table><thead><tr><th></th><th>rows</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _labels(found: Comparison) -> str:
    parts = ""
    for one in found.labels:
        wrong = [pair for pair in one.confusion if pair[0] != pair[1]][:MOST_CONFUSED]
        rows = "".join(
            f"<tr><td>{escape(wanted)}</td><td>{escape(given)}</td><td class='number'>{count:,}</td></tr>"
            for wanted, given, count in wrong
        )
        confused = (
            f"<div class='scroll'><table><thead><tr><th>wanted</th><th>given</th><th>rows</th></tr></thead><tbody>{rows}</tbody></table></div>"
            if rows
            else "<p>No label is mistaken.</p>"
        )
        parts += f"<details><summary>{escape(one.arm)}: macro-F1 {said(one.macro_f1, SHARE)}</summary>{_matrix(one.confusion)}{confused}</details>"
    return f"<h2>Labels</h2>{parts}" if parts else ""


def _matrix(confusion: Sequence[tuple[str, str, int]]) -> str:
    """The whole matrix where it is small enough to be read."""
    labels = list(
        dict.fromkeys([wanted for wanted, _, _ in sorted(confusion)] + [given for _, given, _ in sorted(confusion)])
    )
    if len(labels) > 12:
        return ""
    counts = {(wanted, given): count for wanted, given, count in confusion}
    most = max(counts.values())
    head = "".join(f"<th>{escape(label)}</th>" for label in labels)
    rows = ""
    for wanted in labels:
        cells = ""
        for given in labels:
            count = counts.get((wanted, given), 0)
            colour = "0,114,178" if wanted == given else "213,94,0"
            cells += f"<td class='number' style='background:rgba({colour},{0.6 * count / most:.2f})'>{count or ''}</td>"
        if any((wanted, given) in counts for given in labels):
            rows += f"<tr><th>{escape(wanted)}</th>{cells}</tr>"
    return f"<div class='scroll'><table><thead><tr><th>wanted / given</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _changed(found: Comparison) -> str:
    parts = ""
    for arm in found.arms[1:]:
        mine = [row for row in found.changed if row.arm == arm]
        won, lost = (
            [row for row in mine if row.change > 0][-MOST_ROWS:],
            [row for row in mine if row.change < 0][:MOST_ROWS],
        )
        for what, rows in (("won", won), ("lost", lost)):
            if rows:
                parts += f"<details{' open' if what == 'lost' and arm == found.arms[-1] else ''}><summary>{escape(arm)}: {what} ({len(rows)} shown)</summary>{_rows(rows, found.arms[0], arm)}</details>"
    return f"<h2>Rows that changed</h2><div class='rows-changed'>{parts}</div>" if parts else ""


def _rows(rows: Sequence[Changed], first: str, arm: str) -> str:
    names = ("line", "question", "wanted", first, arm)
    body = ""
    for row in rows:
        cells = (
            str(row.line),
            _cut(row.question, 220),
            _cut(row.reference or "", 160),
            _cut(row.first, 160),
            _cut(row.other, 160),
        )
        body += "<tr>" + "".join(
            f"<td data-name='{escape(name)}'>{f'<code>{escape(cell)}</code>' if place > 1 else escape(cell)}</td>"
            for place, (name, cell) in enumerate(zip(names, cells, strict=True))
        ) + "</tr>"  # fmt: skip
    return f"<table class='rows'><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr></thead><tbody>{body}</tbody></table>"


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"... {text[-size:]}"


def _manifest(found: Comparison) -> str:
    told = msgspec.json.format(
        msgspec.json.encode({"manifest": found.manifest, "seconds": found.seconds}), indent=1
    ).decode()
    return f"<h2>How it was made</h2><details><summary>prompts, sampling, seeds, weights: what it takes to make it again</summary><pre>{escape(told)}</pre></details>"
