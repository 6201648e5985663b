"""The one table of training options: what a request may say, what is used when it is silent, and the docs.

`outcrop.hyperparameters.markdown()` renders it for docs/hyperparameters.md; a test compares the two.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from outcrop.errors import Invalid

Value = int | float | str
Values = Mapping[str, Value | None]


@dataclass(frozen=True)
class Hyperparameter:
    """One option. `default` None means that it is derived, and `meaning` says from what; or, if not `is_derived`, none."""

    name: str
    meaning: str
    kind: type[int] | type[float] | type[str]
    default: Value | None
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    source: str = "Outcrop"
    is_derived: bool = True

    def read(self, text: str) -> Value:
        """The option's value from the request's text. Raises Invalid, naming what was given and what is expected."""
        if self.kind is str:
            if not self.choices and not text.startswith("s3://"):
                raise Invalid(
                    f"hyperParameters.{self.name} is {text!r}; it must be an S3 URI such as s3://bucket/rows.jsonl"
                )
            if not self.choices:
                return text
            if text not in self.choices:
                raise Invalid(f"hyperParameters.{self.name} is {text!r}; it must be one of {', '.join(self.choices)}")
            return text
        try:
            value = int(text) if self.kind is int else float(text)
        except ValueError:
            expected = "a whole number" if self.kind is int else "a number"
            raise Invalid(f"hyperParameters.{self.name} is {text!r}; it must be {expected}") from None
        if not self.low <= value <= self.high:
            raise Invalid(f"hyperParameters.{self.name} is {text}; it must lie between {self.low:g} and {self.high:g}")
        return value


AWS = "Bedrock"
TABLE = (
    Hyperparameter("epochCount", "passes over the training file", int, 2, 1, 10, source=AWS),
    Hyperparameter(
        "batchSize", "rows per optimizer step; derived from the number of rows when left out", int, None, 1, 256, source=AWS
    ),
    Hyperparameter(
        "learningRateMultiplier",
        "scales the learning rate that is derived from the base model's size; not together with learningRate",
        float, 1.0, 0.1, 2.0, source=AWS,
    ),
    Hyperparameter(
        "earlyStoppingThreshold",
        "by how much the validation loss (nats) must fall to count as better; needs a validation set",
        float, 0.001, 0.0, 0.1, source=AWS,
    ),
    Hyperparameter(
        "earlyStoppingPatience",
        "evaluations without a better loss after which training stops; needs a validation set",
        int, 2, 1, 10, source=AWS,
    ),
    Hyperparameter(
        "learningRate", "peak learning rate of AdamW; derived from the base model's size when left out",
        float, None, 1e-7, 0.1, source=AWS,
    ),
    Hyperparameter(
        "learningRateWarmupSteps", "optimizer steps over which the rate rises to its peak; 5 % of all, at most 100, when left out",
        int, None, 0, 250, source=AWS,
    ),
    Hyperparameter(
        "evalPercentage",
        "share of the training rows (%) set aside for validation when no validation file is given; none when left out",
        float, None, 5.0, 50.0, source=AWS, is_derived=False,
    ),
    Hyperparameter("method", "low-rank adapters, or all weights", str, "lora", choices=("lora", "full")),
    Hyperparameter("loraRank", "rank of the adapters", int, 16, 1, 256),
    Hyperparameter("loraAlpha", "the adapters' output is scaled by loraAlpha / loraRank", float, 32.0, 1.0, 1024.0),
    Hyperparameter("loraDropout", "chance that an input of an adapter is dropped in a training step", float, 0.0, 0.0, 0.5),
    Hyperparameter(
        "maxTokens", "longest row (tokens); rows above it fail the job, they are never cut. The base model's context when left out",
        int, None, 16, 131072,
    ),
    Hyperparameter(
        "prefixSharing",
        "auto draws rows that begin alike together and computes what they share once, where that saves work; off draws every "
        "row at random", str, "auto", choices=("auto", "off"),
    ),
    Hyperparameter(
        "generalValidationS3Uri",
        "a file of general rows, in any form of training data, whose loss is watched beside the validation loss: it shows what "
        "the model forgets, and decides nothing", str, None, is_derived=False,
    ),
    Hyperparameter(
        "distillationPairs", "of a distillation: when there are fewer prompts, the teacher makes up more of their kind, up to so many",
        int, None, 100, 15_000, is_derived=False,
    ),
    Hyperparameter(
        "distillationLoss", "of a distillation: answers learns the teacher's words; distribution learns what it would have said at each of "
        "them, for which teacher and student must share tokenizer and template", str, "answers", choices=("answers", "distribution"),
    ),
    Hyperparameter("seed", "of the order of rows, the adapters' start and dropout", int, 0, 0, 2**31 - 1),
)  # fmt: skip
BY_NAME = {option.name: option for option in TABLE}
# Sets of at most so many rows get so many rows a step (docs/experiments/rates.md).
BATCH_SIZES = ((2000, 4), (8000, 8), (32000, 16))
LARGEST_BATCH = 32
# Adapters that are pre-trained at the full rate cost the base much of what it knew; at half of it a fifth of that, for 3 % more
# loss. All weights forget little at their full rate (docs/experiments/rates.md).
PRE_TRAINING_EPOCHS, PRE_TRAINING_RATE = 1, 0.5
DISTILLATION_ONLY = ("distillationPairs", "distillationLoss")
NEEDS_LORA = ("loraRank", "loraAlpha", "loraDropout")


def read(given: Mapping[str, str], num_parameters: int, customization: str = "FINE_TUNING") -> dict[str, Value | None]:
    """Every option's effective value for a base model of that many parameters.

    `batchSize`, `maxTokens`, `learningRateWarmupSteps` and `evalPercentage` stay None when left out: they are settled when
    the data has been read.

    Raises Invalid for an unknown name, a value out of its range, and options that exclude each other.
    """
    unknown = sorted(set(given) - set(BY_NAME))
    if unknown:
        raise Invalid(f"hyperParameters.{unknown[0]} is not known; the names are {', '.join(BY_NAME)}")
    values: dict[str, Value | None] = {
        option.name: option.read(given[option.name]) if option.name in given else option.default for option in TABLE
    }
    misplaced = [name for name in DISTILLATION_ONLY if name in given]
    if misplaced and customization != "DISTILLATION":
        raise Invalid(f"hyperParameters.{misplaced[0]} is only used with customizationType DISTILLATION")
    if customization != "DISTILLATION":
        values["distillationLoss"] = None
    is_text = customization == "CONTINUED_PRE_TRAINING"
    if is_text and "epochCount" not in given:
        values["epochCount"] = PRE_TRAINING_EPOCHS
    if "learningRate" in given and "learningRateMultiplier" in given:
        raise Invalid("hyperParameters has learningRate and learningRateMultiplier; give one of them")
    if values["method"] == "full":
        misplaced = [name for name in NEEDS_LORA if name in given]
        if misplaced:
            raise Invalid(f"hyperParameters.{misplaced[0]} is only used with method lora, but method is full")
        for name in NEEDS_LORA:
            values[name] = None
    if values["learningRate"] is None:
        halves = is_text and values["method"] == "lora"
        rate = base_learning_rate(str(values["method"]), num_parameters) * (PRE_TRAINING_RATE if halves else 1.0)
        values["learningRate"] = rate * float(values["learningRateMultiplier"] or 1.0)
    return values


def batch_size(values: Mapping[str, Value | None], num_rows: int) -> int:
    """Rows per optimizer step: as said, else by the number of training rows."""
    if values["batchSize"] is not None:
        return int(values["batchSize"])
    return next((size for most, size in BATCH_SIZES if num_rows <= most), LARGEST_BATCH)


def as_text(values: Mapping[str, Value | None]) -> dict[str, str]:
    """The effective values as the API returns them: text, the unsaid left out."""
    return {
        name: f"{value:.6g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
        if value is not None
    }


def base_learning_rate(method: str, num_parameters: int) -> float:
    """Peak learning rate at learningRateMultiplier 1, per optimizer step of AdamW.

    A straight line in log-log through two points. The small end is from our own sweeps of the starter model over sets of 64
    to 4,000 rows (docs/experiments/rates.md, `make bench-rates`). The large end is what published recipes use for models of
    8 billion parameters (2e-4 for adapters, 1e-5 for full weights). In between it is an interpolation.
    """
    small, large = {"lora": (6e-3, 2e-4), "full": (1e-3, 1e-5)}[method]
    size = min(max(num_parameters, 1e6), 8e9)
    share = math.log(size / 1e6) / math.log(8e9 / 1e6)
    return float(small * (large / small) ** share)


def markdown() -> str:
    """The table as documentation."""
    lines = ["| name | meaning | default | range | from |", "|---|---|---|---|---|"]
    for option in TABLE:
        default = (
            ("derived" if option.is_derived else "none")
            if option.default is None
            else f"{option.default:g}"
            if option.kind is not str
            else option.default
        )
        allowed = ", ".join(option.choices) or (
            f"{option.low:g} to {option.high:g}" if option.kind is not str else "an S3 URI"
        )
        lines.append(f"| `{option.name}` | {option.meaning} | {default} | {allowed} | {option.source} |")
    return "\n".join(lines) + "\n"
