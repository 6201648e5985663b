"""Nova's bodies."""

from collections.abc import Iterator

from outcrop.invocation.answer import Answer, Ask, Delta
from outcrop.invocation.converse import conversation_of
from outcrop.invocation.families.body import METRICS, Body, Fields, Json, blocks_of, content_of, metrics


def nova(body: Json) -> Body:
    """Nova's messages. Raises Invalid."""
    fields = Fields(body)
    fields.take("schemaVersion", str)
    inference = Fields(fields.take("inferenceConfig", dict, {}), "inferenceConfig.")
    most = inference.whole("maxTokens", None, 1)
    system = fields.take("system", list)
    ask = Ask(
        prompt=conversation_of(blocks_of(fields.take("messages", list, [])), content_of(system, "system") if system else None),
        max_tokens=most if most is not None else inference.whole("max_new_tokens", None, 1),
        temperature=inference.number("temperature", 0.0, 0, 1), top_p=inference.number("topP", 1.0, 0, 1),
        top_k=inference.whole("topK", 0, 0) or 0, stop_sequences=inference.strings("stopSequences"),
    )  # fmt: skip
    fields.end()
    inference.end()
    reasons = {"end": "end_turn", "length": "max_tokens", "sequence": "stop_sequence"}

    def usage(result: Answer) -> Json:
        total = result.input_tokens + result.output_tokens
        return {"inputTokens": result.input_tokens, "outputTokens": result.output_tokens, "totalTokens": total}

    def whole(_: str, result: Answer) -> Json:
        message = {"role": "assistant", "content": [{"text": result.text}]}
        return {"output": {"message": message}, "stopReason": reasons[result.stopped_by], "usage": usage(result)}

    def events(_: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        item = next(pieces)
        yield {"messageStart": {"role": "assistant"}}
        while isinstance(item, Delta):
            yield {"contentBlockDelta": {"delta": {"text": item.text}, "contentBlockIndex": 0}}
            item = next(pieces)
        yield {"contentBlockStop": {"contentBlockIndex": 0}}
        yield {"messageStop": {"stopReason": reasons[item.stopped_by]}}
        yield {"metadata": {"usage": usage(item), "metrics": {}, "trace": {}}, METRICS: metrics(item)}

    return Body(ask, whole, events)
