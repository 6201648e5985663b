"""What training leaves so that serving can prove itself: rows of tokens drawn at random, and what they cost the tuned model
and its base.

A model that is served with other weights, without its adapter, or on another base gives them another loss.
"""

from pathlib import Path

import msgspec

FILE = "outcrop_probes.json"
# Sums of float32 logits in another order differ by some 1e-6 relative; another model differs by more than this.
TOLERANCE = 1e-3
# Rounded to int8 the starter model's losses move by 0.4 % (`make bench-serve`), small models' by a few percent.
ROUNDED_TOLERANCE = 5e-2


class Probe(msgspec.Struct, frozen=True):
    """A row as outcrop/training/plan.py writes it: its tokens, places (from 1), and what the tokens there cost, summed (nats)."""

    tokens: list[int]
    learned: list[int]
    loss: float
    base_loss: float


class Certificate(msgspec.Struct, frozen=True):
    """What was proven when a model was brought up. `worst` is the largest relative difference of a probe's loss."""

    verdict: str
    """"proven", or "unproven" for weights that bring no probes, or whose rounding hides what the probes show."""
    renderer: str = ""
    probes: int = 0
    worst: float = 0.0
    from_base: float = 0.0
    """How far the tuned model's losses are from the base's, relative, at the probe where they differ most."""


def read_probes(folder: Path) -> list[Probe]:
    """Those of a folder of weights; none when it brings none."""
    path = folder / FILE
    return msgspec.json.decode(path.read_bytes(), type=list[Probe]) if path.is_file() else []


def judge(
    probes: list[Probe], tuned: list[float], base: list[float] | None, renderer: str, is_rounded: bool = False
) -> Certificate | str:
    """A certificate, or in words why there is none. `tuned` and `base` are what is served now; a whole model has no base.

    Weights that are served rounded may be farther off; where that is not well below what tells tuned model and base
    apart, the verdict is "unproven".
    """
    tolerance = ROUNDED_TOLERANCE if is_rounded else TOLERANCE
    worst = max(_off(now, probe.loss) for now, probe in zip(tuned, probes, strict=True))
    from_base = max(_off(probe.base_loss, probe.loss) for probe in probes)
    if base is not None and from_base > TOLERANCE:
        same = max(_off(now, below) for now, below in zip(tuned, base, strict=True))
        if same <= TOLERANCE:
            return "the base answers under the tuned model's name: the adapter is loaded and changes nothing"
    if worst > tolerance:
        place = max(range(len(probes)), key=lambda one: _off(tuned[one], probes[one].loss))
        return (
            f"probe {place + 1} of {len(probes)} costs the served model {tuned[place]:.4f} nats, it cost the trained one "
            f"{probes[place].loss:.4f}: the weights are not those that were trained, or not on their base"
        )
    is_told_apart = not is_rounded or worst < from_base / 2
    return Certificate("proven" if is_told_apart else "unproven", renderer, len(probes), worst, from_base)


def _off(one: float, other: float) -> float:
    return abs(one - other) / max(abs(other), 1e-2)
