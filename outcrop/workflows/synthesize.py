"""From documents to a training file: passages, a teacher's questions and answers, what holds of them, parted by document."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from outcrop import synthesis
from outcrop.clock import now
from outcrop.datasets.conversion import check_form, written
from outcrop.datasets.likeness import Seen
from outcrop.datasets.mixing import PARTS, part
from outcrop.datasets.source import Source, local_file, open_file, split_uri
from outcrop.errors import Invalid, ModelFailed, OutcropError
from outcrop.registry import DataSet, Origin, Registry
from outcrop.rendering import Conversation
from outcrop.storage import Storage, sha256_of
from outcrop.synthesis import Pair, Passage, Teacher, Templates
from outcrop.workflows.answering import Answers, key_of

# Tokens are told before the start from characters, four of them a token, as English text has it on average.
CHARACTERS_A_TOKEN = 4
TOKENS_A_PAIR = 90
AT_ONCE = 8
ALL, PROVENANCE, REJECTED, ANSWERS = "pairs.jsonl", "pairs.provenance.jsonl", "rejected.jsonl", "answers.jsonl"


@dataclass(frozen=True)
class Options:
    """How pairs are made. `with_passage` writes the passage before each question; `judges` asks the teacher again about each pair.

    `shares` are parts by document (%). `price` is what a million tokens in and out cost, for the estimate alone.
    """

    count: int = 3
    max_passages: int | None = None
    size: int = 1200
    judges: bool = False
    with_passage: bool = False
    system: str = ""
    form: str = "messages"
    shares: dict[str, float] = field(default_factory=lambda: {"train": 80.0, "validation": 10.0, "test": 10.0})
    seed: int = 0
    price: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Plan:
    """What making the pairs will take, told before the start."""

    documents: int
    passages: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float


class Reply(msgspec.Struct, frozen=True):
    """What the teacher said of a passage, and its verdicts where it was asked for them."""

    number: int
    key: str
    said: str
    verdicts: list[bool] = []
    reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Made:
    """What came of it: pairs taken, by part; pairs not taken, by reason; tokens."""

    pairs: int
    parts: dict[str, int]
    reasons: Counter[str]
    input_tokens: int
    output_tokens: int


def sources_of(places: list[str], storage: Storage) -> list[Source]:
    """Files, folders and prefixes in S3 as files whose ending is known. Raises Invalid when there are none."""
    found: list[Source] = []
    for place in places:
        if place.startswith("s3://"):
            bucket, key = split_uri(place)
            if storage.objects.bucket(bucket) is None:
                raise Invalid(f"{place}: there is no bucket {bucket!r}")
            stored = (
                [storage.objects.get(bucket, key)]
                if key and storage.objects.get(bucket, key)
                else storage.objects.keys(bucket, key)
            )
            found += [Source(f"s3://{bucket}/{one.key}", one.path, one.size) for one in stored if one is not None]
        elif Path(place).is_dir():
            found += [local_file(path) for path in sorted(Path(place).rglob("*")) if path.is_file()]
        else:
            found.append(open_file(storage.objects, place))
    known = [source for source in found if source.uri.lower().endswith(synthesis.ENDINGS)]
    if not known:
        raise Invalid(f"{', '.join(places)}: there are no documents; known endings are {', '.join(synthesis.ENDINGS)}")
    return known


def passages_of(sources: list[Source], options: Options) -> list[Passage]:
    """All passages, or an even choice of so many. Raises Invalid when there is none."""
    found = [
        one for document in synthesis.read_documents(sources) for one in synthesis.passages_of(document, options.size)
    ]
    if not found:
        raise Invalid("the documents hold no text")
    if options.max_passages is not None and len(found) > options.max_passages:
        step = len(found) / options.max_passages
        found = [found[int(index * step)] for index in range(options.max_passages)]
    return found


def plan(passages: list[Passage], templates: Templates, options: Options) -> Plan:
    """Counts, tokens and cost before anything is asked; tokens are estimated from characters."""
    asked = sum(len(templates.ask_for_pairs(one, options.count).messages[0].text) for one in passages)
    out = len(passages) * options.count * TOKENS_A_PAIR
    requests = len(passages)
    if options.judges:
        requests += len(passages) * options.count
        asked += (
            sum(len(templates.ask_to_judge(one, Pair("", "")).messages[0].text) for one in passages) * options.count
        )
    tokens = asked // CHARACTERS_A_TOKEN
    cost = (tokens * options.price[0] + out * options.price[1]) / 1e6
    return Plan(len({one.document for one in passages}), len(passages), requests, tokens, out, cost)


def synthesize(
    passages: list[Passage], folder: Path, teacher: Teacher, templates: Templates, options: Options, registry: Registry,
    origins: list[Origin], tell: Callable[[int, int], None] = lambda done, of: None,
) -> Made:  # fmt: skip
    """Ask about every passage, keep what holds, and write the parts with a line of provenance for each row.

    What the teacher has said is kept in `answers.jsonl`: a second start asks only what is missing, and filters anew. `tell` hears how
    many passages are done. Raises Invalid when nothing holds, ModelFailed when the teacher is gone.
    """
    check_form(options.form)
    written(
        options.form, Conversation.of("a", "b", system=options.system or None), "a row"
    )  # now, not when all has been asked
    wanted = sum(1 for share in options.shares.values() if share)
    documents = len({one.document for one in passages})
    if documents < wanted:
        raise Invalid(
            f"{documents} document cannot be parted into {wanted} parts; leave parts out (--validation 0 --test 0)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    replies = _ask(passages, folder, teacher, templates, options, tell)
    taken, rejected = _take(passages, replies, options)
    (folder / REJECTED).write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in rejected))
    reasons = Counter(one["reason"] for one in rejected)
    if not taken:
        why = "; ".join(f"{count:,} times: {reason}" for reason, count in reasons.most_common(5))
        raise Invalid(f"no pair holds. {why}".strip())
    lines, sources = [], []
    for passage, pair in taken:
        asked = f"{passage.text}\n\n{pair.question}" if options.with_passage else pair.question
        lines.append(
            written(options.form, Conversation.of(asked, pair.answer, system=options.system or None), passage.document)
        )
        sources.append(_provenance(passage, teacher, pair))
    (folder / ALL).write_bytes(b"".join(lines))
    (folder / PROVENANCE).write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in sources))
    parts = part(
        local_file(folder / ALL),
        folder,
        options.shares,
        by="document",
        seed=options.seed,
        keys=local_file(folder / PROVENANCE),
    )
    details = {"teacher": teacher.name, "pairs": len(taken), "rejected": len(rejected), "passages": len(passages)}
    for name in PARTS:
        if name in parts.rows:
            _keep(folder, name, parts.rows[name], lines, sources, registry, origins, details)
    return Made(
        len(taken), parts.rows, reasons, sum(one.input_tokens for one in replies.values()), sum(one.output_tokens for one in replies.values())
    )  # fmt: skip


def _ask(
    passages: list[Passage],
    folder: Path,
    teacher: Teacher,
    templates: Templates,
    options: Options,
    tell: Callable[[int, int], None],
) -> dict[int, Reply]:
    kept = Answers(folder / ANSWERS, Reply)
    keys = [_key(passage, templates, options, teacher) for passage in passages]
    replies = {one.number: one for one in kept.kept() if one.number < len(keys) and one.key == keys[one.number]}

    def act(number: int) -> Reply:
        passage, key = passages[number], keys[number]
        try:
            said = teacher.answer(
                templates.ask_for_pairs(passage, options.count), options.count * 3 * TOKENS_A_PAIR, seed=options.seed
            )
            tokens = [said.input_tokens, said.output_tokens]
            verdicts = []
            for pair in synthesis.read_pairs(said.text) if options.judges else ():
                verdict = teacher.answer(templates.ask_to_judge(passage, pair), 8)
                verdicts.append(verdict.text.strip().lower().startswith("yes"))
                tokens = [tokens[0] + verdict.input_tokens, tokens[1] + verdict.output_tokens]
        except ModelFailed:
            raise  # nobody answers; what was said until now stays
        except OutcropError as error:
            return Reply(number, key, "", reason=f"the teacher refuses it: {error.message}")
        return Reply(number, key, said.text, verdicts, input_tokens=tokens[0], output_tokens=tokens[1])

    def told(reply: Reply) -> None:
        replies[reply.number] = reply
        tell(len(replies), len(passages))

    kept.ask([number for number in range(len(passages)) if number not in replies], act, AT_ONCE, None, told)
    return replies


def _key(passage: Passage, templates: Templates, options: Options, teacher: Teacher) -> str:
    """What a reply depends on: when it changes, the passage is asked about again."""
    judge = templates.judge if options.judges else ""
    return key_of(templates.ask_for_pairs(passage, options.count), teacher.name, judge, str(options.seed))


def _take(
    passages: list[Passage], replies: dict[int, Reply], options: Options
) -> tuple[list[tuple[Passage, Pair]], list[dict[str, Any]]]:
    taken: list[tuple[Passage, Pair]] = []
    rejected: list[dict[str, Any]] = []
    seen = Seen()
    for number, passage in enumerate(passages):
        reply = replies[number]
        pairs = synthesis.read_pairs(reply.said)
        if not pairs:
            rejected.append(
                {
                    "document": passage.document,
                    "begin": passage.begin,
                    "reason": reply.reason or "the teacher wrote no pair",
                    "said": reply.said[:300],
                }
            )
        for index, pair in enumerate(pairs):
            fault = synthesis.fault_of(pair, passage)
            if not fault and options.judges and not (index < len(reply.verdicts) and reply.verdicts[index]):
                fault = "the judge says no"
            if not fault and not seen.add(pair.question):
                fault = "the same question, or nearly, came before"
            if fault:
                rejected.append(
                    {
                        "document": passage.document,
                        "begin": passage.begin,
                        "reason": fault,
                        "question": pair.question,
                        "answer": pair.answer,
                    }
                )
            else:
                taken.append((passage, pair))
    return taken, rejected


def _provenance(passage: Passage, teacher: Teacher, pair: Pair) -> dict[str, Any]:
    return {
        "document": passage.document, "heading": passage.heading or passage.title, "begin": passage.begin,
        "end": passage.begin + len(passage.text), "teacher": teacher.name, "question": pair.question,
    }  # fmt: skip


def _keep(
    folder: Path,
    name: str,
    rows: int,
    lines: list[bytes],
    sources: list[dict[str, Any]],
    registry: Registry,
    origins: list[Origin],
    details: dict[str, Any],
) -> None:
    """Provenance beside a part, row by row, and the part in the lineage of what will be made from it."""
    path = folder / f"{name}.jsonl"
    places = {
        msgspec.json.encode(msgspec.json.decode(line)): source for line, source in zip(lines, sources, strict=True)
    }
    of_rows = [places[msgspec.json.encode(msgspec.json.decode(line))] for line in path.read_bytes().splitlines()]
    provenance = folder / f"{name}.provenance.jsonl"
    provenance.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in of_rows))
    registry.keep_data_set(
        DataSet(
            id=sha256_of(path), uri=str(path.absolute()), rows=rows, made_by="synthesis", made_at=now(), origins=origins, details=details,
            provenance=str(provenance.absolute()),
        )
    )  # fmt: skip
