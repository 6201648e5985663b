"""Training files with faults planted in them, for tests and for `make bench-check`."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SYLLABLES = (
    "ba be bi bo bu da de di do du fa fe fi fo fu ga ge gi go gu ka ke ki ko ku la le li lo lu ma me mi mo mu".split()
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True)
class Planted:
    """What stands where: line -> (the fault, the kind of finding that it must lead to)."""

    faults: dict[int, tuple[str, str]]
    rows: int


def words(seed: int, count: int = 4000) -> list[str]:
    """Made-up words, so that no language is called and no row is like another by chance."""
    rng = random.Random(seed)
    return sorted({"".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(count)})


class _Maker:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.words = words(seed)

    def text(self, fewest: int, most: int) -> str:
        return " ".join(self.rng.choices(self.words, k=self.rng.randint(fewest, most))).capitalize() + "."

    def row(self, prompt: str, completion: str) -> bytes:
        return json.dumps({"prompt": prompt, "completion": completion}).encode()

    def key(self, count: int) -> str:
        return "".join(self.rng.choices(LETTERS, k=count))


Fault = Callable[[_Maker, str, str, tuple[str, str]], bytes]


def _swapped(maker: _Maker, text: str) -> str:
    parts = text.split()
    parts[len(parts) // 2] = maker.rng.choice(maker.words)
    return " ".join(parts)


# name -> (kind, how a row gets it; prompt, completion and an earlier row are given)
FAULTS: dict[str, tuple[str, Fault]] = {
    "a comma too many": ("json", lambda m, p, c, e: m.row(p, c)[:-1] + b",}"),
    "a cut line": ("json", lambda m, p, c, e: m.row(p, c)[: len(p)]),
    "bytes that are no UTF-8": ("json", lambda m, p, c, e: m.row(p, c).replace(b'"completion"', b'"\xff\xfe"', 1)),
    "no completion": ("missing-key", lambda m, p, c, e: json.dumps({"prompt": p}).encode()),
    "an empty completion": ("empty", lambda m, p, c, e: m.row(p, " \n")),
    "a number for a completion": ("type", lambda m, p, c, e: json.dumps({"prompt": p, "completion": 3}).encode()),
    "a list": ("form", lambda m, p, c, e: json.dumps([p, c]).encode()),
    "another form": ("form", lambda m, p, c, e: json.dumps({"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": c}]}).encode()),
    "too many tokens": ("overlong", lambda m, p, c, e: m.row(" ".join(m.rng.choices(m.words, k=6000)), c)),
    "the same again": ("duplicate", lambda m, p, c, e: m.row(*e)),
    "the same but for its case": ("duplicate", lambda m, p, c, e: m.row(e[0].upper(), e[1])),
    "nearly the same": ("near-duplicate", lambda m, p, c, e: m.row(_swapped(m, e[0]), e[1])),
    "another answer": ("conflict", lambda m, p, c, e: m.row(e[0], c)),
    "an e-mail address": ("contact", lambda m, p, c, e: m.row(f"{p} Write to maria.gonzalez{len(p)}@acme-corp.com today.", c)),
    "a telephone number": ("contact", lambda m, p, c, e: m.row(p, f"{c} Call (415) 555-2671 or +49 30 901820.")),
    "a payment card": ("personal-data", lambda m, p, c, e: m.row(f"{p} My card is 4111 1111 1111 1111.", c)),
    "an IBAN": ("personal-data", lambda m, p, c, e: m.row(p, f"{c} It is DE89 3704 0044 0532 0130 00.")),
    "a social security number": ("personal-data", lambda m, p, c, e: m.row(f"{p} SSN 536-22-1234.", c)),
    "a CPF": ("personal-data", lambda m, p, c, e: m.row(f"{p} CPF 529.982.247-25.", c)),
    "an AWS key": ("secret", lambda m, p, c, e: m.row(f"{p} AKIA{m.key(16)}", c)),
    "a GitHub token": ("secret", lambda m, p, c, e: m.row(f"{p} ghp_{m.key(36).lower()}", c)),
    "a password": ("secret", lambda m, p, c, e: m.row(f"{p} password: hunter2xyz{len(p)}", c)),
    "a private key": ("secret", lambda m, p, c, e: m.row(f"{p}\n-----BEGIN RSA PRIVATE KEY-----\nMIIE", c)),
}  # fmt: skip


def plant(path: Path, num_bytes: int, every: int, seed: int = 7) -> Planted:
    """Write about so many bytes of rows, one in `every` of them with a fault; each kind of fault comes in turn."""
    maker = _Maker(seed)
    names = list(FAULTS)
    faults: dict[int, tuple[str, str]] = {}
    earlier: list[tuple[str, str]] = []

    def lines() -> Iterator[bytes]:
        number = size = 0
        while size < num_bytes:
            number += 1
            prompt, completion = maker.text(20, 120), maker.text(5, 40)
            line = maker.row(prompt, completion)
            if number % every == 0:
                name = names[len(faults) % len(names)]
                kind, fault = FAULTS[name]
                line = fault(maker, prompt, completion, earlier.pop(maker.rng.randrange(len(earlier))))
                faults[number] = (name, kind)
            elif len(earlier) < 200:
                earlier.append((prompt, completion))
            size += len(line) + 1
            yield line + b"\n"
        faults[0] = ("", str(number))

    with path.open("wb") as file:
        for line in lines():
            file.write(line)
    rows = int(faults.pop(0)[1])
    return Planted(faults, rows)
