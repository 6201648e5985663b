"""What AWS takes of each family's training files: limits, forms, reserved strings and ranges, as its pages and validators say.

A job here takes more (its own limits are settings). With a family named, a check also says what AWS would refuse.

Sources: AWS user guide, "Prepare data for fine-tuning" and "Custom model hyperparameters" (November 2026); the validators in
aws-samples/amazon-bedrock-samples (Claude 3 Haiku, Nova, distillation). Where page and validator disagree the page holds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from outcrop.datasets.formats import BEDROCK_CHAT, CHAT, PAIRS, Content, Format
from outcrop.rendering import Conversation

GB, MB = 1024**3, 1024**2
Range = tuple[float, float]
# Nova's validator and page, letter for letter.
NOVA_RESERVED = (
    "System:", "SYSTEM:", "User:", "USER:", "Bot:", "BOT:", "Assistant:", "ASSISTANT:", "Thought:", "[EOS]", "<image>", "<video>",
)  # fmt: skip
LLAMA_RANGES: dict[str, Range] = {"epochCount": (1, 10), "batchSize": (1, 1), "learningRate": (5e-6, 0.1)}
TITAN_RANGES: dict[str, Range] = {
    "epochCount": (1, 10), "batchSize": (1, 64), "learningRate": (0, 1), "learningRateWarmupSteps": (0, 250),
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One family's rules. Rows and bytes are (fewest, most); tokens are estimated from characters, as AWS does."""

    name: str
    form: Format
    train_rows: Range = (1, float("inf"))
    validation_rows: Range = (1, float("inf"))
    all_rows: Range = (1, float("inf"))
    train_bytes: float = float("inf")
    validation_bytes: float = float("inf")
    chars_a_token: int = 6
    tokens: int | None = None
    answer_tokens: int | None = None
    reserved: tuple[str, ...] = ()
    schema_is_fixed: bool = False
    hyperparameters: Mapping[str, Range] = field(default_factory=dict)

    def problems_of(self, content: Content) -> Iterator[tuple[str, str, str]]:
        """(kind, field, message) of what AWS would refuse in a row."""
        if isinstance(content, str):
            return
        for place, text in _texts(content):
            for reserved in self.reserved:
                if reserved in text:
                    yield "reserved", place, f"holds {reserved!r}, which {self.name} reserves for itself"
        sizes = [len(text) for _, text in _texts(content)]
        answers = len(content.messages[-1].text)
        prompts = sum(sizes) - (answers if self.answer_tokens else 0)
        # Claude's validator cuts each text's estimate by itself, the others multiply the limit.
        tokens = sum(size // 3 for size in sizes) if self.chars_a_token == 3 else prompts / self.chars_a_token
        if self.tokens is not None and tokens > self.tokens:
            yield "limit", "", f"has about {tokens:,.0f} tokens; {self.name} takes {self.tokens:,}"
        if self.answer_tokens is not None and answers / self.chars_a_token > self.answer_tokens:
            yield (
                "limit",
                "",
                f"has an answer of about {answers / self.chars_a_token:,.0f} tokens; {self.name} takes {self.answer_tokens:,}",
            )

    def problem_of_form(self, form: Format | None) -> str:
        """What AWS would say of a file's form, if anything."""
        return (
            ""
            if form is None or form is self.form
            else f"is in the form {form.name}; {self.name} takes {self.form.name}"
        )

    def problems_of_files(self, rows: list[int], sizes: list[int]) -> Iterator[tuple[int, str]]:
        """(file, message) of what AWS would refuse of whole files, the training file first."""
        for number, (count, size) in enumerate(zip(rows, sizes, strict=True)):
            fewest, most = self.validation_rows if number else self.train_rows
            if not fewest <= count <= most:
                yield number, f"has {count:,} rows; {self.name} takes {_said(fewest, most)}"
            largest = self.validation_bytes if number else self.train_bytes
            if size > largest:
                yield number, f"has {size:,} bytes; {self.name} takes {largest:,}"
        if not self.all_rows[0] <= sum(rows) <= self.all_rows[1]:
            yield (
                0,
                f"and the validation files have {sum(rows):,} rows together; {self.name} takes {_said(*self.all_rows)}",
            )

    def problems_of_hyperparameters(self, given: Mapping[str, str]) -> Iterator[str]:
        """What AWS would refuse of a request's hyperparameters."""
        for name, text in given.items():
            if name not in self.hyperparameters:
                yield f"{name} is not known to {self.name}; known are {', '.join(self.hyperparameters)}"
                continue
            low, high = self.hyperparameters[name]
            try:
                value = float(text)
            except ValueError:
                yield f"{name} is {text!r}; it must be a number"
                continue
            if not low <= value <= high:
                yield f"{name} is {text}; {self.name} takes {low:g} to {high:g}"


def _texts(content: Conversation) -> Iterator[tuple[str, str]]:
    if content.system is not None:
        yield "system", content.system
    for number, message in enumerate(content.messages):
        yield f"messages.{number}.content", message.text


def _said(fewest: float, most: float) -> str:
    return f"{fewest:,.0f} to {most:,.0f}" if most != float("inf") else f"at least {fewest:,.0f}"


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "claude-3-haiku", CHAT, (32, 10_000), (32, 1_000), (1, 10_000), 10 * GB, GB, chars_a_token=3, tokens=32_000,
            hyperparameters={
                "epochCount": (1, 10), "batchSize": (4, 256), "learningRateMultiplier": (0.1, 2),
                "earlyStoppingThreshold": (0, 0.1), "earlyStoppingPatience": (1, 10),
            },
        ),
        Family("llama-3-1", PAIRS, all_rows=(100, 10_000), tokens=16_000, hyperparameters=LLAMA_RANGES),
        Family("llama-3-2", BEDROCK_CHAT, schema_is_fixed=True, all_rows=(100, 10_000), tokens=16_000, hyperparameters=LLAMA_RANGES),
        Family("llama-3-2-90b", BEDROCK_CHAT, schema_is_fixed=True, all_rows=(100, 10_000), tokens=10_000, hyperparameters=LLAMA_RANGES),
        Family("llama-3-3", BEDROCK_CHAT, schema_is_fixed=True, all_rows=(100, 10_000), tokens=16_000, hyperparameters=LLAMA_RANGES),
        Family(
            "titan-text-premier", PAIRS, train_bytes=GB, validation_bytes=100 * MB, tokens=4_096,
            hyperparameters={
                "epochCount": (1, 5), "batchSize": (1, 1), "learningRate": (1e-7, 1e-5), "learningRateWarmupSteps": (0, 20),
            },
        ),
        Family("titan-text", PAIRS, train_bytes=GB, validation_bytes=100 * MB, tokens=4_096, hyperparameters=TITAN_RANGES),
        Family(
            "cohere-command", PAIRS, (1, 10_000), (1, 1_000), tokens=4_096, answer_tokens=2_048,
            hyperparameters={
                "epochCount": (1, 100), "batchSize": (8, 8), "learningRate": (5e-6, 0.1), "earlyStoppingThreshold": (0, 0.1),
                "earlyStoppingPatience": (1, 10), "evalPercentage": (5, 50),
            },
        ),
        Family(
            "cohere-command-light", PAIRS, (1, 10_000), (1, 1_000), tokens=4_096, answer_tokens=2_048,
            hyperparameters={
                "epochCount": (1, 100), "batchSize": (8, 32), "learningRate": (5e-6, 0.1), "earlyStoppingThreshold": (0, 0.1),
                "earlyStoppingPatience": (1, 10), "evalPercentage": (5, 50),
            },
        ),
        Family(
            "nova", BEDROCK_CHAT, (8, 20_000), reserved=NOVA_RESERVED,
            hyperparameters={"epochCount": (1, 5), "learningRate": (1e-6, 1e-4), "learningRateWarmupSteps": (0, 100)},
        ),
    )
}  # fmt: skip
