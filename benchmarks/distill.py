"""A teacher's words against its distribution: two distillations from the same prompts. `make bench-distill`.

banking77 (Casanueva et al., 2020, CC BY 4.0): a teacher is tuned on most of the rows; students see the prompts of others, without
their labels, and what the teacher says to them. Everything else is the same; the comparison is paired over held-out rows.
"""

import argparse
import csv
import gzip
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.banking77 import SYSTEM
from outcrop import evaluation
from outcrop.demo.run import ASKED_AT_ONCE, BASE, ROLE, private_server

LOSSES = ("answers", "distribution")


def main() -> None:
    """Run it and write benchmarks/results/distill.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    with gzip.open(chosen.data / "tickets/banking77_train.csv.gz", "rt", encoding="utf-8") as file:
        rows = [(row["text"], row["category"].replace("_", " ")) for row in csv.DictReader(file)]
    random.Random(77).shuffle(rows)
    held_out, prompts, train = rows[: chosen.held_out], rows[-chosen.prompts :], rows[chosen.held_out : -chosen.prompts]
    with private_server(keep=False) as client:
        s3, bedrock, runtime = client("s3"), client("bedrock"), client("bedrock-runtime")
        s3.create_bucket(Bucket="bench")

        def put(name: str, lines: list[Any]) -> str:
            s3.put_object(Bucket="bench", Key=name, Body="".join(json.dumps(line) + "\n" for line in lines).encode())
            return f"s3://bench/{name}"

        def tune(name: str, uri: str, **more: Any) -> Any:
            arn = bedrock.create_model_customization_job(
                jobName=name, customModelName=name, roleArn=ROLE, baseModelIdentifier=BASE, trainingDataConfig={"s3Uri": uri},
                outputDataConfig={"s3Uri": "s3://bench/out"}, **more,
            )["jobArn"]  # fmt: skip
            while (job := bedrock.get_model_customization_job(jobIdentifier=arn))["status"] == "InProgress":
                time.sleep(1)
            if job["status"] != "Completed":
                raise SystemExit(f"the job is {job['status']}: {job.get('failureMessage')}")
            print(f"{name}: {(job['endTime'] - job['creationTime']).total_seconds():.0f} s", flush=True)
            return job

        def ask(model: str) -> list[str]:
            def one(row: tuple[str, str]) -> str:
                answer = runtime.converse(
                    modelId=model, messages=[{"role": "user", "content": [{"text": row[0]}]}], system=[{"text": SYSTEM}],
                    inferenceConfig={"maxTokens": 24, "temperature": 0},
                )  # fmt: skip
                return str(answer["output"]["message"]["content"][0]["text"]).strip()

            with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
                return list(pool.map(one, held_out))

        labelled = [
            {"system": SYSTEM, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}
            for text, label in train
        ]
        tune(
            "teacher",
            put("train.jsonl", labelled),
            hyperParameters={"method": "full", "epochCount": "4", "batchSize": "32"},
        )
        teacher = ask("teacher")
        uri = put(
            "prompts.jsonl",
            [
                {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": SYSTEM}], "messages": [{"role": "user", "content": [{"text": text}]}]}
                for text, _ in prompts
            ],
        )  # fmt: skip
        right: dict[str, list[float]] = {
            "teacher": [float(said == label) for said, (_, label) in zip(teacher, held_out, strict=True)]
        }
        agrees: dict[str, list[float]] = {}
        config = {
            "distillationConfig": {
                "teacherModelConfig": {"teacherModelIdentifier": "teacher", "maxResponseLengthForInference": 24}
            }
        }
        for loss in LOSSES:
            by_seed = []
            for seed in range(chosen.seeds):
                name = f"{loss}-{seed}"
                given = {
                    "method": "full",
                    "epochCount": "6",
                    "batchSize": "16",
                    "distillationLoss": loss,
                    "seed": str(seed),
                }
                tune(name, uri, customizationType="DISTILLATION", customizationConfig=config, hyperParameters=given)
                by_seed.append(ask(name))
            right[loss] = [
                sum(said[n] == label for said in by_seed) / len(by_seed) for n, (_, label) in enumerate(held_out)
            ]
            agrees[loss] = [sum(said[n] == teacher[n] for said in by_seed) / len(by_seed) for n in range(len(held_out))]
    figures: dict[str, Any] = {"prompts": chosen.prompts, "held_out": len(held_out), "seeds": chosen.seeds}
    table = Table(
        "",
        "accuracy",
        "agrees with the teacher",
        title=f"{len(held_out)} held-out rows, {chosen.seeds} seeds, 95 % intervals",
    )
    for name, scores in right.items():
        measured = evaluation.measure(scores)
        same = evaluation.measure(agrees[name]) if name in agrees else None
        table.add_row(name, said(measured), said(same) if same else "")
        figures[name] = {"accuracy": plain(measured), **({"agreement": plain(same)} if same else {})}
    for what, scores_of in (("accuracy", right), ("agreement", agrees)):
        change = evaluation.difference(scores_of["answers"], scores_of["distribution"])
        figures[f"{what}_difference"] = plain(change)
        table.add_row(
            f"distribution - answers, {what}",
            said(change) if what == "accuracy" else "",
            said(change) if what == "agreement" else "",
        )
    Console().print(table)
    print(record.write("distill", figures))


def said(measured: evaluation.Measured) -> str:
    """A mean with its interval, in per cent."""
    return f"{measured.mean:.1%} [{measured.low:.1%}, {measured.high:.1%}]"


def plain(measured: evaluation.Measured) -> list[float]:
    """The same for JSON."""
    return [round(value, 4) for value in (measured.mean, measured.low, measured.high)]


if __name__ == "__main__":
    main()
