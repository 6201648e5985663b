"""Llama's bodies."""

from collections.abc import Iterator

from outcrop.invocation.answer import Answer, Ask, Delta
from outcrop.invocation.families.body import METRICS, Body, Fields, Json, metrics


def llama(body: Json) -> Body:
    """A prompt in Llama's own form. Raises Invalid."""
    fields = Fields(body)
    ask = Ask(
        prompt=fields.take("prompt", str, ""), max_tokens=fields.whole("max_gen_len", None, 1),
        temperature=fields.number("temperature", 0.0, 0, 1), top_p=fields.number("top_p", 1.0, 0, 1),
        top_k=fields.whole("top_k", 0, 0) or 0, seed=fields.whole("seed", None, 0), stop_sequences=fields.strings("stop"),
    )  # fmt: skip
    fields.end()

    def whole(_: str, result: Answer) -> Json:
        return {
            "generation": result.text,
            "prompt_token_count": result.input_tokens,
            "generation_token_count": result.output_tokens,
            "stop_reason": "length" if result.stopped_by == "length" else "stop",
        }

    def events(model_id: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        for item in pieces:
            if isinstance(item, Delta):
                yield {
                    "generation": item.text,
                    "prompt_token_count": None,
                    "generation_token_count": None,
                    "stop_reason": None,
                }
            else:
                yield {**whole(model_id, item), "generation": "", METRICS: metrics(item)}

    return Body(ask, whole, events)
