"""What the invocation log costs at full load, and whether it is whole. `make bench-logs`.

One server, its log switched on and off in turns through Bedrock's API; each round the same calls from one process with boto3. The
figure is the mean of the rounds' paired differences, with its interval.
"""

import argparse
import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console

from benchmarks import record
from outcrop import evaluation
from outcrop.demo.run import BASE, private_server

# Short answers, so that there are many calls a second: the worst case for what a call costs.
CLIENTS, ANSWER = 16, 16


def main() -> None:
    """Run it and write benchmarks/results/logs.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=400)
    chosen = parser.parse_args()
    acknowledged: list[str] = []
    rates: dict[bool, list[float]] = {True: [], False: []}
    with private_server(keep=False) as client:
        s3, bedrock, runtime = client("s3"), client("bedrock"), client("bedrock-runtime")
        s3.create_bucket(Bucket="audit")

        def ask(number: int) -> tuple[str, int]:
            answer = runtime.converse(
                modelId=BASE, messages=[{"role": "user", "content": [{"text": f"Write a long story about the number {number}."}]}],
                inferenceConfig={"maxTokens": ANSWER, "temperature": 0.9}, requestMetadata={"round": str(number // chosen.calls)},
            )  # fmt: skip
            return answer["ResponseMetadata"]["RequestId"], answer["usage"]["outputTokens"]

        def round_of(number: int, logs: bool) -> float:
            """Tokens a second of one round."""
            if logs:
                bedrock.put_model_invocation_logging_configuration(loggingConfig={"s3Config": {"bucketName": "audit"}})
            else:
                bedrock.delete_model_invocation_logging_configuration()
            began = time.perf_counter()
            with ThreadPoolExecutor(CLIENTS) as pool:
                done = list(pool.map(ask, range(number * chosen.calls, (number + 1) * chosen.calls)))
            seconds = time.perf_counter() - began
            acknowledged.extend(identifier for identifier, _ in done if logs)
            return sum(tokens for _, tokens in done) / seconds

        round_of(0, False)  # warm
        for number in range(chosen.rounds):
            order = (True, False) if number % 2 else (False, True)
            for logs in order:
                rates[logs].append(round_of(number, logs))
        deadline = time.monotonic() + 60
        while (kept := _records(s3)) is not None and len(kept) < len(acknowledged) and time.monotonic() < deadline:
            time.sleep(2)
    cost = evaluation.measure([1 - on / off for on, off in zip(rates[True], rates[False], strict=True)])
    is_whole = sorted(kept) == sorted(acknowledged)
    rate = sum(rates[False]) / len(rates[False]) / ANSWER
    Console().print(
        f"{rate:,.0f} calls a second; logging costs {cost.mean:.1%} [{cost.low:.1%}, {cost.high:.1%}] of the throughput; {len(kept):,} records "
        f"of {len(acknowledged):,} acknowledged calls{'' if is_whole else ': NOT WHOLE'}"
    )
    figures: dict[str, Any] = {
        "clients": CLIENTS, "answer": ANSWER, "rounds": chosen.rounds, "calls_per_s": round(rate, 1), "calls": len(acknowledged),
        "records": len(set(kept) & set(acknowledged)), "is_whole": is_whole, "cost": [round(value, 4) for value in (cost.mean, cost.low, cost.high)],
    }  # fmt: skip
    print(record.write("logs", figures))
    raise SystemExit(0 if is_whole else 1)


def _records(s3: Any) -> list[str]:
    """The requests of all records, each as often as it is there."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="audit")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return [
        json.loads(line)["requestId"]
        for key in keys
        for line in gzip.decompress(s3.get_object(Bucket="audit", Key=key)["Body"].read()).splitlines()
    ]


if __name__ == "__main__":
    main()
