"""Our checks agree with what AWS's pages and validators say of each family: limits, forms, reserved strings, ranges.

The expectations are written from those pages again, not from the table that is tested.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from outcrop import datasets
from outcrop.datasets.formats import SUPERVISED
from outcrop.datasets.kinds import FAILS, KINDS
from outcrop.datasets.source import Source, local_file

Case = tuple[str, list, list, dict[str, str], bool]


def pair(prompt: str = "What is a fjord?", completion: str = "A deep inlet.", **more: object) -> dict:
    return {"prompt": prompt, "completion": completion, **more}


def chat(*turns: str, system: object = None, roles: tuple[str, ...] = (), **more: object) -> dict:
    said = [
        {"role": roles[n] if roles else ("user", "assistant")[n % 2], "content": text}
        for n, text in enumerate(turns or ("hi", "hello"))
    ]
    return {**({"system": system} if system is not None else {}), "messages": said, **more}


def bedrock(
    *turns: str,
    system: object = None,
    roles: tuple[str, ...] = (),
    schema: str | None = "bedrock-conversation-2024",
    **more: object,
) -> dict:
    row = chat(*turns, roles=roles)
    for turn in row["messages"]:
        turn["content"] = [{"text": turn["content"]}]
    head = {"schemaVersion": schema} if schema is not None else {}
    return {**head, **({"system": system} if system is not None else {}), **row, **more}


GOOD = {
    "claude-3-haiku": (chat(), 32), "llama-3-1": (pair(), 100), "llama-3-2": (bedrock(), 100), "llama-3-2-90b": (bedrock(), 100),
    "llama-3-3": (bedrock(), 100), "titan-text-premier": (pair(), 1), "titan-text": (pair(), 1), "cohere-command": (pair(), 1),
    "cohere-command-light": (pair(), 1), "nova": (bedrock(), 8),
}  # fmt: skip
# name -> (smallest, largest) of each family's hyperparameters, from "Custom model hyperparameters".
RANGES = {
    "claude-3-haiku": {"epochCount": ("1", "10"), "batchSize": ("4", "256"), "learningRateMultiplier": ("0.1", "2"),
                       "earlyStoppingThreshold": ("0", "0.1"), "earlyStoppingPatience": ("1", "10")},
    "llama-3-1": {"epochCount": ("1", "10"), "batchSize": ("1", "1"), "learningRate": ("5e-6", "0.1")},
    "llama-3-2": {"epochCount": ("1", "10"), "batchSize": ("1", "1"), "learningRate": ("0.000005", "0.1")},
    "llama-3-3": {"epochCount": ("1", "10"), "batchSize": ("1", "1"), "learningRate": ("5.00E-6", "0.1")},
    "titan-text-premier": {"epochCount": ("1", "5"), "batchSize": ("1", "1"), "learningRate": ("1e-7", "1e-5"), "learningRateWarmupSteps": ("0", "20")},
    "titan-text": {"epochCount": ("1", "10"), "batchSize": ("1", "64"), "learningRate": ("0", "1"), "learningRateWarmupSteps": ("0", "250")},
    "cohere-command": {"epochCount": ("1", "100"), "batchSize": ("8", "8"), "learningRate": ("5e-6", "0.1"),
                       "earlyStoppingThreshold": ("0", "0.1"), "earlyStoppingPatience": ("1", "10"), "evalPercentage": ("5", "50")},
    "cohere-command-light": {"batchSize": ("8", "32")},
    "nova": {"epochCount": ("1", "5"), "learningRate": ("1e-6", "1e-4"), "learningRateWarmupSteps": ("0", "100")},
}  # fmt: skip


def cases() -> Iterator[Case]:
    for family, ranges in RANGES.items():
        row, fewest = GOOD[family]
        yield family, [row] * fewest, [], {}, True
        for name, (low, high) in ranges.items():
            for value, is_right in (
                (low, True),
                (high, True),
                (f"{float(low) - 1e-7:.9f}", False),
                (f"{float(high) * 1.01:.9f}", False),
                ("many", False),
            ):
                yield family, [row] * fewest, [], {name: value}, is_right
        yield family, [row] * fewest, [], {"temperature": "1"}, False
    # numbers of rows: of the training file, of the validation file, of both
    for family, train, validation, is_right in (
        ("claude-3-haiku", 31, 0, False), ("claude-3-haiku", 32, 0, True), ("claude-3-haiku", 10_000, 0, True),
        ("claude-3-haiku", 10_001, 0, False), ("claude-3-haiku", 100, 31, False), ("claude-3-haiku", 100, 32, True),
        ("claude-3-haiku", 100, 1000, True), ("claude-3-haiku", 100, 1001, False), ("claude-3-haiku", 9_500, 500, True),
        ("claude-3-haiku", 9_501, 500, False),
        ("llama-3-1", 99, 0, False), ("llama-3-1", 100, 0, True), ("llama-3-1", 90, 10, True), ("llama-3-1", 89, 10, False),
        ("llama-3-1", 10_000, 0, True), ("llama-3-1", 9_999, 2, False), ("llama-3-2", 99, 0, False), ("llama-3-3", 60, 40, True),
        ("nova", 7, 0, False), ("nova", 8, 0, True), ("nova", 8, 1, True), ("nova", 20_000, 0, True), ("nova", 20_001, 0, False),
        ("cohere-command", 10_000, 0, True), ("cohere-command", 10_001, 0, False), ("cohere-command", 1, 1_000, True),
        ("cohere-command", 1, 1_001, False), ("titan-text", 1, 1, True),
    ):  # fmt: skip
        yield family, [GOOD[family][0]] * train, [GOOD[family][0]] * validation, {}, is_right
    # lengths, in characters by which AWS estimates tokens
    for family, row, is_right in (
        ("claude-3-haiku", chat("a" * 95_997, "bcd"), True), ("claude-3-haiku", chat("a" * 96_000, "bcd"), False),
        ("claude-3-haiku", chat("a" * 95_994, "bcd", system="efg"), True), ("claude-3-haiku", chat("a" * 95_997, "bcd", system="efg"), False),
        ("llama-3-1", pair("a" * 95_990, "b" * 10), True), ("llama-3-1", pair("a" * 95_990, "b" * 11), False),
        ("llama-3-2", bedrock("a" * 95_990, "b" * 10), True), ("llama-3-2", bedrock("a" * 95_990, "b" * 11), False),
        ("llama-3-2-90b", bedrock("a" * 59_990, "b" * 10), True), ("llama-3-2-90b", bedrock("a" * 59_990, "b" * 11), False),
        ("titan-text", pair("a" * 24_570, "b" * 6), True), ("titan-text", pair("a" * 24_570, "b" * 7), False),
        ("titan-text-premier", pair("a" * 24_576, "b"), False),
        ("cohere-command", pair("a" * 24_576, "b" * 12_288), True), ("cohere-command", pair("a" * 24_577, "b"), False),
        ("cohere-command", pair("a", "b" * 12_289), False),
    ):  # fmt: skip
        yield family, [row] * GOOD[family][1], [], {}, is_right
    # Nova's reserved strings, in the system prompt, the question and the answer
    for word in (
        "System:",
        "SYSTEM:",
        "User:",
        "USER:",
        "Bot:",
        "BOT:",
        "Assistant:",
        "ASSISTANT:",
        "Thought:",
        "[EOS]",
        "<image>",
        "<video>",
    ):
        for row in (
            bedrock(f"a {word} b", "c"),
            bedrock("a", f"b {word} c"),
            bedrock("a", "b", system=[{"text": f"x {word}"}]),
        ):
            yield "nova", [row] * 8, [], {}, False
    for word in ("system", "User", "the bot", "[eos]", "image", "video", "assistant", "thought"):
        yield "nova", [bedrock(f"a {word} b", f"c {word}")] * 8, [], {}, True
    # forms and rows
    for family, row, is_right in (
        ("claude-3-haiku", pair(), False), ("claude-3-haiku", bedrock(), False), ("llama-3-1", chat(), False), ("llama-3-1", bedrock(), False),
        ("llama-3-2", pair(), False), ("llama-3-2", chat(), False), ("llama-3-3", chat(), False), ("nova", pair(), False), ("nova", chat(), False),
        ("titan-text", chat(), False), ("cohere-command", bedrock(), False),
        ("claude-3-haiku", chat("a", "b", system="s"), True), ("claude-3-haiku", chat("a", "b", "c", "d"), True),
        ("claude-3-haiku", chat("a"), False), ("claude-3-haiku", chat("a", "b", "c"), False), ("claude-3-haiku", chat("a", "b", roles=("assistant", "user")), False),
        ("claude-3-haiku", chat("a", "b", roles=("user", "user")), False), ("claude-3-haiku", chat("a", "b", roles=("user", "bot")), False),
        ("claude-3-haiku", chat("s", "a", "b", roles=("system", "user", "assistant")), False), ("claude-3-haiku", chat("a", "b", extra=1), False),
        ("claude-3-haiku", chat("a\nHuman: b", "c"), False), ("claude-3-haiku", chat("a", "b\nAssistant: c"), False),
        ("claude-3-haiku", chat("a", "b", system="s\nHuman: t"), False), ("claude-3-haiku", chat("a\nHuman b", "c\nAssistant d"), True),
        ("claude-3-haiku", chat("a Human: b", "c"), True), ("claude-3-haiku", {"messages": "a"}, False), ("claude-3-haiku", {"system": "a"}, False),
        ("llama-3-1", pair(source="kept"), True), ("llama-3-1", {"prompt": "a"}, False), ("llama-3-1", pair(completion=3), False), ("llama-3-1", pair(prompt=None), False),
        ("llama-3-2", bedrock(schema=None), True), ("llama-3-2", bedrock(schema="mine-1"), False), ("llama-3-2", bedrock(schema="bedrock-conversion-2024"), False),
        ("llama-3-2", bedrock(system=[{"text": "s"}]), True), ("llama-3-2", bedrock(system=[{"text": "s"}, {"text": "t"}]), False), ("llama-3-2", bedrock(system=[]), False),
        ("llama-3-2", bedrock("a"), False), ("llama-3-2", bedrock("a", "b", roles=("user", "tool")), False),
        ("llama-3-2", {"messages": [{"role": "user", "content": []}, {"role": "assistant", "content": [{"text": "b"}]}]}, False),
        ("nova", bedrock(schema=None), True), ("nova", bedrock(schema="mine-1"), True), ("nova", bedrock("a", "b", system=[{"text": "s"}]), True),
        ("nova", bedrock("a", "b", "c", "d"), True), ("nova", bedrock("a", "b", "c"), False), ("nova", bedrock("a", "b", roles=("assistant", "user")), False),
        ("nova", bedrock("a"), False), ("nova", bedrock("a", ""), False), ("nova", bedrock("", "b"), False), ("titan-text", pair("a", ""), False),
    ):  # fmt: skip
        yield family, [row] * GOOD[family][1], [], {}, is_right


CASES = list(cases())


def written(folder: Path, name: str, rows: list) -> Source:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return local_file(folder / name)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_a_case_is_judged_as_aws_judges_it(tmp_path: Path, case: Case) -> None:
    family, train, validation, hyperparameters, is_right = case
    files = datasets.Files(
        written(tmp_path, "train.jsonl", train),
        (written(tmp_path, "validation.jsonl", validation),) if validation else (),
    )
    found = datasets.preflight(files, SUPERVISED, hyperparameters=hyperparameters, family=family, compares=False)
    failing = [str(problem) for problem in found.problems if KINDS[problem.kind].severity == FAILS]
    assert bool(failing) is not is_right, failing[:3]


def test_there_are_two_hundred_cases_at_least() -> None:
    assert len(CASES) >= 200
