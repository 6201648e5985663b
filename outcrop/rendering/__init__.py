"""A conversation -> token ids, the mask of the answers, the stop tokens.

In: messages, and a folder in Hugging Face layout (tokenizer.json, a chat template in one of its three
places). Out: token ids. This is the only renderer: training, evaluation and serving use it, and its hash
is kept with every model. It knows no weights, no S3 and no HTTP.
"""

from outcrop.rendering.calls import read_calls, words_before_calls
from outcrop.rendering.conversation import Conversation, Message, Tool, ToolCall, ToolResult
from outcrop.rendering.decoder import Decoder
from outcrop.rendering.renderer import Rendered, Renderer

__all__ = [
    "Conversation", "Decoder", "Message", "Rendered", "Renderer", "Tool", "ToolCall", "ToolResult", "read_calls",
    "words_before_calls",
]  # fmt: skip
