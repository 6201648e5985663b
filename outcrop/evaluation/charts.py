"""Figures as they are written and drawn: boxes sized in per cent, whose words stay as large as the text around them."""

from collections.abc import Sequence
from html import escape

from outcrop.evaluation.comparison import Comparison, Figure, Measure
from outcrop.evaluation.metrics import COUNT, MONEY, SHARE

# Okabe and Ito's colours, which most people can tell apart; the arm that the others are held against is grey.
COLOURS = ("#98a2b3", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def number(value: float | None, form: str, signed: bool = False) -> str:
    """A figure as it is written: shares in per cent, differences of shares in points, money in four digits, counts in one decimal."""
    if value is None:
        return "-"
    sign = "+" if signed else ""
    if form == SHARE:
        return f"{100 * value:{sign}.1f} {'pt' if signed else '%'}"
    return f"{value:{sign},.4f}" if form == MONEY else f"{value:{sign},.1f}"


def points(value: float | None, form: str) -> str:
    """A difference's size: of shares in points."""
    return number(value, form).replace("%", "pt")


def said(figure: Figure | None, form: str, signed: bool = False) -> str:
    """A mean with its interval."""
    if figure is None:
        return "-"
    return f"{number(figure.mean, form, signed)} {between(figure, form, signed)}"


def between(figure: Figure, form: str, signed: bool = False) -> str:
    """The interval alone."""
    low, high = (
        number(value, form, signed).removesuffix(" %").removesuffix(" pt") for value in (figure.low, figure.high)
    )
    return f"[{low}, {high}]"


def p_value(p: float) -> str:
    """A p value, no smaller than what can be believed."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def colour(arm: int) -> str:
    """An arm's."""
    return COLOURS[arm % len(COLOURS)]


def bars(arms: Sequence[str], measure: Measure) -> str:
    """A bar with its interval for each arm."""
    highs = [figure.high for figure in measure.arms if figure is not None]
    top = 1.0 if measure.form == SHARE else max([*highs, 1e-9]) * 1.05
    rows = ""
    for place, (name, figure) in enumerate(zip(arms, measure.arms, strict=True)):
        rows += f"<div class='name'><span class='key' style='background:{colour(place)}'></span>{escape(name)}</div>"
        bar = ""
        if figure is not None:
            low, mean, high = (100 * min(1.0, value / top) for value in (figure.low, figure.mean, figure.high))
            bar = (
                f"<div class='bar' style='width:{mean:.2f}%;background:{colour(place)}'></div>"
                f"<span class='whisker' style='left:{low:.2f}%;width:{max(high - low, 0.2):.2f}%'></span>"
            )
        value = number(figure.mean, measure.form) if figure is not None else "no row scored"
        rows += f"<div class='track' title='{escape(said(figure, measure.form))}'>{bar}</div><div class='said'>{value}</div>"
    ticks = "".join(
        f"<span>{number(share * top, measure.form).removesuffix('.0 %').removesuffix(' %')}</span>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    unit = " (%)" if measure.form == SHARE else ""
    return f"<div class='bars'>{rows}<div class='axis' aria-label='{escape(measure.metric)}{unit}'>{ticks}</div></div>"


def token_histograms(found: Comparison) -> str:
    """Answers by their output tokens, a histogram for each arm; "" where tokens are not known."""
    if found.tokens is None:
        return ""
    edges, measure = found.tokens.edges, next((one for one in found.measures if one.metric == "tokens-out"), None)
    if measure is None:
        return ""
    most = max(max(counts) for counts in found.tokens.counts) or 1
    step, rows = edges[1] - edges[0], ""
    for arm, (name, counts) in enumerate(zip(found.arms, found.tokens.counts, strict=True)):
        columns = "".join(
            f"<div style='height:{max(100 * count / most, 1.5 if count else 0):.1f}%;background:{colour(arm)}' title='{edges[bin_]} to {edges[bin_ + 1] - 1} tokens: {count:,} answers'></div>"
            for bin_, count in enumerate(counts)
        )
        figure = measure.arms[arm]
        if figure is None:
            continue
        place = min(figure.mean / (step * len(counts)), 1) * 100
        against = measure.against[arm - 1] if arm else None
        part = against.relative if against is not None else None
        change = (
            f"<br><span class='soft small'>{part.mean:+.0%} [{part.low:+.0%}, {part.high:+.0%}]</span>"
            if part is not None
            else ""
        )
        rows += (
            f"<div class='histogram'><div class='name'><span class='key' style='background:{colour(arm)}'></span>{escape(name)}"
            f"<br><span class='small'>mean {number(figure.mean, COUNT)} {between(figure, COUNT)}</span>{change}</div>"
            f"<div class='columns' role='img' aria-label='answers by output tokens'>{columns}<span class='mean' style='left:{place:.1f}%'></span></div></div>"
        )
    labels = "".join(
        f"<span>{edge if bin_ % 2 == 0 else ''}{'+' if bin_ == len(edges) - 2 and edges[-1] > step * (len(edges) - 1) else ''}</span>"
        for bin_, edge in enumerate(edges[:-1])
    )
    return f"<h2>Output tokens</h2><p class='soft small'>Answers by their length in tokens; the dashed line is the mean; changes against {escape(found.arms[0])}, paired.</p><div class='histograms'>{rows}<div class='histogram'><div></div><div class='edges'>{labels}</div></div></div>"
