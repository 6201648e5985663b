"""The same life for every data set: rows into S3, a job, both models asked the same held-out prompts."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from rich.console import Console
from rich.table import Table

from outcrop import evaluation
from outcrop.demo.run import ASKED_AT_ONCE, BASE, ROLE, private_server

out = Console()


@dataclass(frozen=True)
class Question:
    """A held-out row: what is asked, and what its answer is scored against."""

    system: str
    prompt: str
    wanted: Any


Scores = dict[str, float]
Scorer = Callable[[str, Any], Scores]


def compare(
    train: Sequence[str], validation: Sequence[str], held_out: Sequence[Question], score: Scorer,
    hyperparameters: dict[str, str], most_tokens: int,
) -> dict[str, Any]:  # fmt: skip
    """Tune the starter on the rows, ask it and its base, print the table; answers with the figures."""
    with private_server(keep=False) as client:
        s3, bedrock, runtime = client("s3"), client("bedrock"), client("bedrock-runtime")
        s3.create_bucket(Bucket="bench")
        for name, rows in (("train", train), ("validation", validation)):
            s3.put_object(Bucket="bench", Key=f"{name}.jsonl", Body="".join(row + "\n" for row in rows).encode())
        began = time.monotonic()
        arn = bedrock.create_model_customization_job(
            jobName="bench", customModelName="bench", roleArn=ROLE, baseModelIdentifier=BASE,
            trainingDataConfig={"s3Uri": "s3://bench/train.jsonl"},
            validationDataConfig={"validators": [{"s3Uri": "s3://bench/validation.jsonl"}]},
            outputDataConfig={"s3Uri": "s3://bench/out"}, hyperParameters=hyperparameters,
        )["jobArn"]  # fmt: skip
        while (job := bedrock.get_model_customization_job(jobIdentifier=arn))["status"] == "InProgress":
            time.sleep(1)
        if job["status"] != "Completed":
            raise SystemExit(f"the job is {job['status']}: {job.get('failureMessage')}")
        training_s = time.monotonic() - began
        arms = {
            name: _ask(runtime, model, held_out, score, most_tokens)
            for name, model in (("base", BASE), ("tuned", "bench"))
        }
    return _report(arms, len(train), training_s, job)


def _ask(
    runtime: Any, model: str, held_out: Sequence[Question], score: Scorer, most_tokens: int
) -> list[Scores | None]:
    def ask(question: Question) -> Scores | None:
        try:
            answer = runtime.converse(
                modelId=model, messages=[{"role": "user", "content": [{"text": question.prompt}]}],
                system=[{"text": question.system}], inferenceConfig={"maxTokens": most_tokens, "temperature": 0},
            )  # fmt: skip
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            return None  # longer than the model's context: counted as failed
        text = answer["output"]["message"]["content"][0]["text"]
        return {**score(text, question.wanted), "output tokens": float(answer["usage"]["outputTokens"])}

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return list(pool.map(ask, held_out))


def _report(arms: dict[str, list[Scores | None]], num_train: int, training_s: float, job: Any) -> dict[str, Any]:
    names = list(next(scores for scores in arms["tuned"] if scores is not None))
    table = Table("", "base", "tuned", "tuned - base", title=f"{len(arms['base'])} held-out rows, 95 % intervals")
    figures: dict[str, Any] = {
        "rows": num_train,
        "training_s": round(training_s, 1),
        "hyperparameters": job["hyperParameters"],
    }
    for name in names:
        base, tuned = ([None if one is None else one[name] for one in arms[arm]] for arm in ("base", "tuned"))
        measured = {
            "base": evaluation.measure(base),
            "tuned": evaluation.measure(tuned),
            "difference": evaluation.difference(base, tuned),
        }
        table.add_row(name, *(f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in measured.values()))
        figures[name] = {
            arm: [round(value, 4) for value in (one.mean, one.low, one.high)] for arm, one in measured.items()
        }
        figures["failed"] = measured["tuned"].failed
    out.print(table)
    out.print(
        f"{num_train} training rows, {training_s:.0f} s; {figures['failed']} held-out rows did not fit the context"
    )
    return figures
