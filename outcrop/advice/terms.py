"""Whether a base model knows what the answers speak of: it is given each answer as it is, and with a term exchanged for another one.

A model that knows prefers the true answer; one that does not picks it half of the time. The report's question "is the concept known?"
as a count.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import msgspec

from outcrop.evaluation import Case, measure
from outcrop.evaluation.judge import said
from outcrop.rendering import Conversation, Message

MOST_PROBES, FEWEST = 60, 10
TERM = re.compile(r"(?<!\w)[^\W\d_][\w-]{3,}(?!\w)|(?<![\w.,])\d[\d.,]*\d(?!\w)")


@dataclass(frozen=True)
class Probe:
    """A row's conversation with the true answer, and with another row's term in the place of one of its own."""

    term: str
    true: Conversation
    false: Conversation


class Terms(msgspec.Struct, frozen=True):
    """How often the true answer is the likelier one (0.5 is chance)."""

    asked: int
    share: float
    low: float
    high: float
    verdict: str


def probes(cases: Sequence[Case], seed: int = 0) -> list[Probe]:
    """Up to MOST_PROBES, of terms that stand in few answers and not in their prompts; none when there are no such terms."""
    rng = Random(seed)
    counts = Counter(term for case in cases for term in set(TERM.findall(case.reference or "")))
    rare = {term for term, count in counts.items() if count <= max(2, len(cases) // 10)}
    found: list[Probe] = []
    for case in rng.sample(list(cases), len(cases)):
        reference = case.reference or ""
        asked = said(case.prompt)
        mine = [term for term in TERM.findall(reference) if term in rare and term not in asked]
        if not mine or len(found) >= MOST_PROBES:
            continue
        term = rng.choice(mine)
        others = sorted(other for other in rare if other not in reference and other[0].isdigit() == term[0].isdigit())
        if others:
            exchanged = rng.choice(others).join(re.split(rf"(?<!\w){re.escape(term)}(?!\w)", reference))
            if exchanged != reference:
                found.append(Probe(term, _with(case, reference), _with(case, exchanged)))
    return found


def _with(case: Case, answer: str) -> Conversation:
    return Conversation((*case.prompt.messages, Message("assistant", answer)), case.prompt.system)


def known(true_losses: Sequence[float], false_losses: Sequence[float]) -> Terms | None:
    """What the losses of the probes (nats, whole answers) say; None when there are fewer than FEWEST."""
    if len(true_losses) < FEWEST:
        return None
    share = measure([float(true < false) for true, false in zip(true_losses, false_losses, strict=True)])
    verdict = "not known to the base"
    if share.low > 0.5:
        verdict = "known" if share.mean >= 0.8 else "partly known"

    return Terms(share.counted, share.mean, share.low, share.high, verdict)
