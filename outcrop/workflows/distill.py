"""From prompts, or logged calls, to the training file of a distillation."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outcrop import datasets, synthesis
from outcrop.clock import now
from outcrop.datasets.conversion import written
from outcrop.datasets.formats import SCHEMA
from outcrop.datasets.likeness import Seen
from outcrop.datasets.source import split_uri
from outcrop.errors import Invalid
from outcrop.jobs import Job, Tell
from outcrop.logs import read_filter, read_logs
from outcrop.registry import DataSet, Origin, Registry
from outcrop.rendering import Conversation, Message
from outcrop.settings import Settings
from outcrop.storage import Storage, sha256_of
from outcrop.synthesis import Prompt, Rejected
from outcrop.workflows.answering import Answers, key_of, own_engine
from outcrop.workflows.outputs import prefix_of, put

# AWS's default of maxResponseLengthForInference is not published; its notebooks say 1,000.
RESPONSE_TOKENS = 1000
# AWS user guide, "Prepare your training datasets for distillation": at most so many prompts or pairs.
MOST_PAIRS = 15_000
SAMPLE = 100
# Of made-up prompts so many are tried for each that is missing, so many at once; they are numbered from here.
TRIES_A_PROMPT, EXPANDED_AT_ONCE, FIRST_MADE = 4, 64, 10_000_000
# A made-up prompt is at least so much, and at most so many times, as long as the others are on average.
SHORTEST, LONGEST = 0.25, 4
# Characters a token, to keep the examples shown to a teacher within a quarter of what it reads.
CHARACTERS_A_TOKEN = 3
TRAINING, SAMPLE_FILE, PROVENANCE = (
    "synthetic_data/training_data.jsonl",
    "synthetic_data/sample.jsonl",
    "synthetic_data/provenance.jsonl",
)
INSIGHTS, SUMMARY = "prompt_insights/prompt_insights.jsonl", "prompt_insights/summary.json"
EXPAND = (
    "Here are two tasks. Write a third one of the same kind, about another matter, in the same form. Write the task alone.\n\n"
    "Task 1:\n{first}\n\nTask 2:\n{second}\n\nTask 3:\n"
)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the teacher said to a prompt, and why that is not used, if it is not."""

    number: int
    text: str = ""
    key: str = ""
    reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Taken:
    """What was read of a job's source."""

    prompts: list[Prompt]
    rejected: list[Rejected]
    sha256: str


@dataclass(frozen=True)
class Distill:
    """The stations of a distillation before its training."""

    storage: Storage
    registry: Registry
    settings: Settings

    def read(self, job: Job, tell: Tell) -> Taken:
        """Accept or reject every prompt. Raises Invalid when too few are left; what was rejected is then written, too."""
        asked = job.request["distillation"]
        source, digest = self._source(job)
        prompts: list[Prompt] = []
        rejected: list[Rejected] = []
        for one in source:
            if isinstance(one, Prompt):
                prompts.append(one)
            else:
                rejected.append(one)
            if len(prompts) > MOST_PAIRS:
                raise Invalid(f"there are more than {MOST_PAIRS:,} prompts; distillation takes no more")
        tell.event(kind="prompts", accepted=len(prompts), rejected=len(rejected), reasons=dict(_reasons(rejected)))
        fewest = self.settings.min_distillation_prompts
        if len(prompts) < fewest:
            self._write_insights(job, [], rejected)
            why = "; ".join(f"{count:,} times: {reason}" for reason, count in _reasons(rejected).most_common(5))
            what = "prompts whose answers can be used" if asked["uses_answers"] else "prompts"
            raise Invalid(f"{len(prompts):,} valid {what} are left; at least {fewest:,} are needed. {why}".strip())
        return Taken(prompts, rejected, digest)

    def _source(self, job: Job) -> tuple[Iterable[Prompt | Rejected], str]:
        asked = job.request["distillation"]
        if asked["logs_uri"]:
            bucket, prefix = split_uri(asked["logs_uri"])
            teacher = asked["teacher"] if asked["uses_answers"] else ""
            logged = read_logs(self.storage.objects, bucket, prefix)
            return synthesis.read_exchanges(logged, read_filter(asked["filters"]), teacher), ""
        source = datasets.find(self.storage.objects, job.request["training_uri"])
        if source.size > self.settings.max_validation_bytes:
            raise Invalid(
                f"{source.uri}: the file has {source.size:,} bytes; at most {self.settings.max_validation_bytes:,} are allowed"
            )
        return synthesis.read_prompts(source), sha256_of(source.path)

    def make(
        self, job: Job, taken: Taken, fits: Callable[[Conversation], str], run: Path, tell: Tell
    ) -> tuple[str, dict[str, Any]]:
        """Have the teacher answer what has no answer, and write the training file; its URI, and what lineage says of it.

        `fits` says why a row cannot be learned by the student, or nothing.

        When the worker dies, the next one asks only what has no answer yet. Raises Invalid, and what the engine raises.
        """
        asked = job.request["distillation"]
        counts: Counter[str] = Counter()
        answers: dict[int, Answer] = {}
        examples: list[Prompt] = []
        if all(prompt.logged is not None for prompt in taken.prompts):
            answers = {
                prompt.number: Answer(number=prompt.number, text=prompt.logged or "") for prompt in taken.prompts
            }
        else:
            with own_engine(self.storage, self.registry, self.settings, "distill", asked["teacher"]) as asking:
                teacher = synthesis.CatalogueTeacher(asking, asked["teacher"])
                context = asking.registry.context_of(asking.serving.target(asked["teacher"]).weights) or 0
                examples = synthesis.examples_of(taken.prompts, context * CHARACTERS_A_TOKEN // 4)
                wanted = asked["pairs"] or 0
                if wanted > len(taken.prompts):
                    missing = wanted - len(taken.prompts)
                    taken.prompts.extend(self._expand(taken.prompts, missing, teacher, run, tell, counts))
                answers = self._ask(job, taken.prompts, examples, teacher, run, tell, counts)
        return self._write(job, taken, answers, fits, examples, counts)

    def _expand(
        self,
        prompts: list[Prompt],
        missing: int,
        teacher: synthesis.CatalogueTeacher,
        run: Path,
        tell: Tell,
        counts: Counter[str],
    ) -> list[Prompt]:
        """Prompts that the teacher makes up after pairs of those that there are; as many as are missing, if it can.

        Taken are those that end by themselves, are of a like length, and neither the same nor nearly the same as another. Each is
        drawn by the seed of its number, so that a second try makes the same ones.
        """
        kept = Answers(run / "expanded.answers", Answer)
        done = {answer.number: answer for answer in kept.kept()}
        tries = range(1, TRIES_A_PROMPT * missing + 1)

        def act(number: int) -> Answer:
            first, second = _pair(prompts, number)
            text = EXPAND.format(first=first.asked.messages[-1].text, second=second.asked.messages[-1].text)
            most = 64 + max(len(one.asked.messages[-1].text) for one in (first, second)) // 2
            try:
                said = teacher.answer(
                    Conversation.of(text, system=first.asked.system), most, temperature=0.8, seed=number
                )
            except Invalid as error:
                return Answer(number=number, reason=error.message)
            reason = "" if said.is_whole and said.text.strip() else "did not end, or is empty"
            return Answer(
                number=number, text=said.text.strip(), reason=reason, input_tokens=said.input_tokens,
                output_tokens=said.output_tokens,
            )  # fmt: skip

        made: list[Prompt] = []
        seen = Seen()
        for one in prompts:
            seen.add(one.asked.messages[-1].text)
        for begin in range(0, len(tries), EXPANDED_AT_ONCE):  # in steps, so that no more is asked than is needed
            block = tries[begin : begin + EXPANDED_AT_ONCE]
            kept.ask(
                [number for number in block if number not in done],
                act,
                self.settings.engine_slots,
                tell,
                lambda one: done.update({one.number: one}),
            )
            for number in block:
                answer = done[number]
                counts["expansion_input_tokens"] += answer.input_tokens
                counts["expansion_output_tokens"] += answer.output_tokens
                is_fit = not answer.reason and _is_like(answer.text, prompts)
                if is_fit and len(made) < missing and seen.add(answer.text):
                    system = _pair(prompts, number)[0].asked.system
                    made.append(
                        Prompt(FIRST_MADE + number, Conversation.of(answer.text, system=system), synthesis.MADE)
                    )
            tell.event(kind="expansion", made=len(made), of=missing)
            if len(made) == missing:
                break
        counts["expanded"] = len(made)
        return made

    def _ask(
        self, job: Job, prompts: list[Prompt], examples: list[Prompt], teacher: synthesis.CatalogueTeacher, run: Path, tell: Tell,
        counts: Counter[str],
    ) -> dict[int, Answer]:  # fmt: skip
        most_tokens = job.request["distillation"]["max_tokens"] or RESPONSE_TOKENS
        kept = Answers(run / "teacher.answers", Answer)
        # Logs may grow between two tries: an answer belongs to what was asked, not to a number.
        keys = {
            prompt.number: key_of(synthesis.with_examples(prompt, examples), str(most_tokens)) for prompt in prompts
        }
        said_to = {answer.key: answer for answer in kept.kept()}
        answers = {number: said_to[key] for number, key in keys.items() if key in said_to}

        def act(prompt: Prompt) -> Answer:
            try:
                said = teacher.answer(synthesis.with_examples(prompt, examples), most_tokens)
            except Invalid as error:
                return Answer(
                    number=prompt.number, key=keys[prompt.number], reason=f"the teacher refuses it: {error.message}"
                )
            reason = ""
            if not said.is_whole:
                reason = (
                    f"the teacher's answer did not end within {most_tokens:,} tokens (maxResponseLengthForInference)"
                )
            elif not said.text.strip():
                reason = "the teacher's answer is empty"
            return Answer(
                number=prompt.number, text=said.text, key=keys[prompt.number], reason=reason, input_tokens=said.input_tokens,
                output_tokens=said.output_tokens,
            )  # fmt: skip

        def told(answer: Answer) -> None:
            answers[answer.number] = answer
            if len(answers) % 50 == 0 or len(answers) == len(prompts):
                tell.event(kind="teacher", answered=len(answers), of=len(prompts))

        missing = [prompt for prompt in prompts if prompt.number not in answers]
        kept.ask(missing, act, self.settings.engine_slots, tell, told)
        counts["teacher_input_tokens"] = sum(answer.input_tokens for answer in answers.values())
        counts["teacher_output_tokens"] = sum(answer.output_tokens for answer in answers.values())
        return answers

    def _write(
        self,
        job: Job,
        taken: Taken,
        answers: dict[int, Answer],
        fits: Callable[[Conversation], str],
        examples: list[Prompt],
        counts: Counter[str],
    ) -> tuple[str, dict[str, Any]]:
        asked = job.request["distillation"]
        accepted: list[Prompt] = []
        rejected = list(taken.rejected)
        for prompt in taken.prompts:
            answer = answers[prompt.number]
            reason = answer.reason or fits(_row(prompt, answer.text))
            if reason:
                rejected.append(Rejected(prompt.place, reason, prompt.request_id))
            else:
                accepted.append(prompt)
        self._write_insights(job, accepted, rejected)
        if not accepted:
            why = "; ".join(f"{count:,} times: {reason}" for reason, count in _reasons(rejected).most_common(5))
            raise Invalid(f"no prompt has an answer that can be learned. {why}")
        rows = [_row(prompt, answers[prompt.number].text) for prompt in accepted]
        sources = [
            {
                "place": prompt.place,
                "requestId": prompt.request_id or None,
                "teacher": asked["teacher"],
                "from": "log" if prompt.logged is not None else "teacher",
            }
            for prompt in accepted
        ]
        bucket, prefix = prefix_of(job.request["output_uri"], f"model-customization-job-{job.id}")
        lines = [written(SCHEMA, row, "") for row in rows]
        self._put(bucket, prefix + TRAINING, lines)
        self._put(bucket, prefix + SAMPLE_FILE, lines[:: -(-len(lines) // SAMPLE)])
        training, digest = f"s3://{bucket}/{prefix}{TRAINING}", hashlib.sha256(b"".join(lines)).hexdigest()
        self._put(bucket, prefix + PROVENANCE, (msgspec.json.encode(source) + b"\n" for source in sources))
        lineage = {
            "teacher": asked["teacher"], "source": asked["logs_uri"] or job.request["training_uri"], "source_sha256": taken.sha256,
            "filters": asked["filters"], "answers": "logged" if asked["uses_answers"] else "greedy, by the teacher",
            "max_tokens": asked["max_tokens"] or RESPONSE_TOKENS, "examples": [one.place for one in examples], "accepted": len(accepted),
            "rejected": len(rejected), **counts,
        }  # fmt: skip
        what = "logs" if asked["logs_uri"] else "file"
        origin = Origin(asked["logs_uri"] or job.request["training_uri"], taken.sha256, what)
        details = {
            name: lineage[name]
            for name in ("teacher", "answers", "max_tokens", "filters", "accepted", "rejected")
            if lineage[name]
        }
        self.registry.keep_data_set(
            DataSet(
                id=digest, uri=training, rows=len(rows), made_by="distillation", made_at=now(), origins=[origin], details=details,
                provenance=f"s3://{bucket}/{prefix}{PROVENANCE}",
            )
        )  # fmt: skip
        return training, lineage

    def _write_insights(self, job: Job, accepted: list[Prompt], rejected: list[Rejected]) -> None:
        """The report of accepted and rejected prompts, and its summary."""
        bucket, prefix = prefix_of(job.request["output_uri"], f"model-customization-job-{job.id}")
        lines: list[dict[str, Any]] = [
            {"place": one.place, "requestId": one.request_id or None, "status": "accepted"} for one in accepted
        ]
        lines += [
            {"place": one.place, "requestId": one.request_id or None, "status": "rejected", "reason": one.reason}
            for one in rejected
        ]
        self._put(bucket, prefix + INSIGHTS, (msgspec.json.encode(line) + b"\n" for line in lines))
        summary = {
            "accepted": len(accepted),
            "rejected": len(rejected),
            "reasons": dict(_reasons(rejected).most_common()),
        }
        self._put(bucket, prefix + SUMMARY, [msgspec.json.format(msgspec.json.encode(summary))])

    def _put(self, bucket: str, key: str, lines: Iterable[bytes]) -> None:
        put(
            self.storage.objects,
            bucket,
            key,
            lines,
            "application/x-ndjson" if key.endswith("l") else "application/json",
        )


def _row(prompt: Prompt, answer: str) -> Conversation:
    return Conversation((*prompt.asked.messages, Message("assistant", answer)), prompt.asked.system)


def _pair(prompts: list[Prompt], number: int) -> tuple[Prompt, Prompt]:
    """The two prompts after which a made one is asked for, by its number; twice the same where there is but one."""
    draw = random.Random(number)
    return draw.choice(prompts), draw.choice(prompts)


def _is_like(text: str, prompts: list[Prompt]) -> bool:
    mean = sum(len(one.asked.messages[-1].text) for one in prompts) / len(prompts)
    return SHORTEST * mean <= len(text) <= LONGEST * mean


def _reasons(rejected: Iterable[Rejected]) -> Counter[str]:
    return Counter(one.reason for one in rejected)
