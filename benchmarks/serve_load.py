"""Load on a running server, from one process with boto3: `python -m benchmarks.serve_load MODEL crowd|reserved`; prints one
JSON line."""

import json
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MODEL = sys.argv[1] if len(sys.argv) > 1 else ""
CLIENTS, ANSWER, LONG_ANSWER, EACH = (1, 4, 16, 64), 64, 400, 4
# A server with 16 places lets as many wait as there are places twice over; this is three times what it takes in.
OVERLOAD = 3 * (16 + 32)
FLOOD, RESERVED_ANSWERS, RESERVED_TOKENS = 40, 4, 100

runtime: Any = boto3.client(
    "bedrock-runtime", config=Config(max_pool_connections=256, retries={"total_max_attempts": 1}, read_timeout=120)
)


def ask(model: str = MODEL, number: int = 0, tokens: int = ANSWER) -> tuple[float, float, int]:
    """(seconds to the first token, seconds in all, tokens) of one streamed answer; throttled calls come again."""
    began = time.perf_counter()
    while True:
        try:
            answer = runtime.converse_stream(
                modelId=model,
                messages=[{"role": "user", "content": [{"text": f"Write a long story about the number {number}."}]}],
                inferenceConfig={"maxTokens": tokens, "temperature": 0.9},
            )
            break
        except ClientError as error:
            if error.response["Error"]["Code"] != "ThrottlingException":
                raise
            time.sleep(0.2)
    first = count = 0.0
    for event in answer["stream"]:
        if "contentBlockDelta" in event and not first:
            first = time.perf_counter() - began
        if "metadata" in event:
            count = event["metadata"]["usage"]["outputTokens"]
    return first, time.perf_counter() - began, int(count)


def at_once(clients: int) -> dict[str, float]:
    """Each client asks one question after the other."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda number: ask(number=number), range(clients * EACH)))
    took = time.perf_counter() - began
    firsts = sorted(first for first, _, _ in answers)
    return {
        "tokens_per_s": sum(tokens for _, _, tokens in answers) / took, "first_p50_ms": 1000 * statistics.median(firsts),
        "first_p99_ms": 1000 * firsts[min(len(firsts) - 1, int(0.99 * len(firsts)))],
    }  # fmt: skip


def overload() -> dict[str, Any]:
    """Everybody at once, nobody tries again."""
    counts = {"asked": OVERLOAD, "answered": 0, "throttled": 0, "lost": 0, "longest_s": 0.0}
    lock = threading.Lock()

    def one(number: int) -> None:
        began = time.perf_counter()
        try:
            answer = runtime.converse(
                modelId=MODEL, messages=[{"role": "user", "content": [{"text": f"Write a long story about the number {number}."}]}],
                inferenceConfig={"maxTokens": LONG_ANSWER, "temperature": 0.9},
            )  # fmt: skip
            outcome = "answered" if answer["usage"]["outputTokens"] else "lost"
        except ClientError as error:
            code = error.response["Error"]["Code"]
            outcome = "throttled" if code in ("ThrottlingException", "ModelNotReadyException") else "lost"
        except (BotoCoreError, OSError):
            outcome = "lost"
        with lock:
            counts[outcome] += 1
            counts["longest_s"] = max(counts["longest_s"], time.perf_counter() - began)

    with ThreadPoolExecutor(OVERLOAD) as pool:
        list(pool.map(one, range(OVERLOAD)))
    return counts


def provisioned() -> dict[str, float]:
    """Tokens a second of a reserved model's answers, alone and while a flood asks the same base on demand."""
    bedrock: Any = boto3.client("bedrock")
    arn = bedrock.create_provisioned_model_throughput(modelUnits=1, provisionedModelName="kept", modelId=MODEL)[
        "provisionedModelArn"
    ]
    while bedrock.get_provisioned_model_throughput(provisionedModelId=arn)["status"] != "InService":
        time.sleep(0.2)

    def rate() -> float:
        rates = []
        for number in range(RESERVED_ANSWERS):
            first, whole, tokens = ask(arn, number, RESERVED_TOKENS)
            rates.append((tokens - 1) / (whole - first))
        return statistics.median(rates)

    alone = rate()
    stop, made = threading.Event(), []

    def flood(number: int) -> None:
        while not stop.is_set():
            made.append(ask(number=number)[2])

    with ThreadPoolExecutor(FLOOD) as pool:
        for number in range(FLOOD):
            pool.submit(flood, number)
        time.sleep(2)
        made.clear()
        began = time.perf_counter()
        under = rate()
        others = sum(made) / (time.perf_counter() - began)
        stop.set()
    return {"alone": alone, "under_flood": under, "others": others}


def main() -> None:
    """Everything, once the engine is up."""
    ask(tokens=2)
    if sys.argv[2] == "reserved":
        print(json.dumps(provisioned()))
    else:
        print(json.dumps({"clients": {str(count): at_once(count) for count in CLIENTS}, "overload": overload()}))


if __name__ == "__main__":
    main()
