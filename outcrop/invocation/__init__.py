"""Converse and InvokeModel: render, generate, write the answer in the family's form.

In: a model id and a request in Bedrock's or a family's shape. Out: text with usage and latency, whole or as events.
The room knows text and templates; tokens go to serving.
"""

from outcrop.invocation.answer import Answer, Ask, Delta, Invocation, answer, answer_when_free, count, loss, stream
from outcrop.invocation.converse import conversation_of, converse, converse_stream
from outcrop.invocation.embedding import Embedded, embed, makes_vectors
from outcrop.invocation.families import Body, invoke, invoke_stream, read_body

__all__ = [
    "Answer", "Ask", "Body", "Delta", "Embedded", "Invocation", "answer", "answer_when_free", "conversation_of", "converse", "converse_stream", "count", "embed",
    "invoke", "invoke_stream", "loss", "makes_vectors", "read_body", "stream",
]  # fmt: skip
