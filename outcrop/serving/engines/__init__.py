"""Engines turn token ids into token ids. To add one: write the module, add the line.

Each is a program, `python -m MODULE WEIGHTS SOCKET THREADS SLOTS FORMAT CACHE ADAPTERS PAUSE SERVER` (number format, bytes of
the cache and of adapters, seconds, vLLM's command or address), that speaks serving/protocol.py on the socket and removes it when it ends.
torch is imported in these modules alone.
"""

# Encoders have an engine of their own, whichever answers otherwise.
EMBEDDING_ENGINE = "outcrop.serving.engines.embedding_engine"
ENGINES = {
    "torch": "outcrop.serving.engines.loop",
    "vllm": "outcrop.serving.engines.vllm_engine",
    "echo": "outcrop.serving.engines.echo_engine",
}
