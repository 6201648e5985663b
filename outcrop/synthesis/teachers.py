"""Who answers when data is made: a model of the catalogue, or one behind an endpoint in Bedrock's or OpenAI's shape."""

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from outcrop import invocation
from outcrop.errors import Invalid, ModelFailed
from outcrop.rendering import Conversation

# A remote that is busy is asked again after so long, twice as long each time, so often.
FIRST_WAIT_S, MOST_TRIES = 1.0, 6
REMOTE_TIMEOUT_S = 300
REFUSED = (400, 413, 422)
BUSY = (408, 409, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Said:
    """A teacher's answer. `is_whole` is False when it ran into its limit."""

    text: str
    is_whole: bool
    input_tokens: int
    output_tokens: int


class Teacher(Protocol):
    """Answers one conversation; may be asked from many threads at once."""

    @property
    def name(self) -> str:
        """What lineage says of it."""
        ...

    def answer(self, asked: Conversation, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Said:
        """The answer. Raises OutcropError when there is none to be had."""
        ...


@dataclass(frozen=True)
class CatalogueTeacher:
    """A model of this installation. Waits while its engine is loading or full."""

    asking: invocation.Invocation
    name: str

    def answer(self, asked: Conversation, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Said:
        """The answer. Raises Invalid for a prompt that does not fit, and what the engine raises."""
        ask = invocation.Ask(asked, max_tokens, temperature, seed=seed)
        said = invocation.answer_when_free(self.asking, self.name, ask)
        return Said(said.text, said.stopped_by != "length", said.input_tokens, said.output_tokens)


class BedrockTeacher:
    """A model behind another Bedrock, AWS's own or one in its shape, through boto3 and its credentials."""

    def __init__(self, model: str, endpoint: str = "") -> None:
        self.name = f"{model} at {endpoint or 'AWS'}"
        self._model = model
        config = Config(retries={"mode": "standard", "max_attempts": MOST_TRIES}, read_timeout=REMOTE_TIMEOUT_S)
        # A Bedrock of one's own knows any region; AWS's is asked in the one that is configured.
        region = {"region_name": boto3.Session().region_name or "us-east-1"} if endpoint else {}
        try:
            self._client: Any = boto3.client("bedrock-runtime", endpoint_url=endpoint or None, config=config, **region)
        except BotoCoreError as error:
            raise Invalid(f"the teacher {self.name} cannot be asked: {error}") from None

    def answer(self, asked: Conversation, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Said:
        """The answer; a Bedrock takes no seed. Raises ModelFailed."""
        more = {"system": [{"text": asked.system}]} if asked.system else {}
        turns = [{"role": message.role, "content": [{"text": message.text}]} for message in asked.messages]
        inference = {"maxTokens": max_tokens, "temperature": temperature}
        try:
            reply = self._client.converse(modelId=self._model, messages=turns, inferenceConfig=inference, **more)
        except ClientError as error:
            kind = Invalid if error.response["Error"]["Code"] == "ValidationException" else ModelFailed
            raise kind(f"the teacher {self.name} refuses it: {error}") from None
        except BotoCoreError as error:
            raise ModelFailed(f"the teacher {self.name} does not answer: {error}") from None
        text = "".join(block.get("text", "") for block in reply["output"]["message"]["content"])
        usage = reply["usage"]
        return Said(text, reply["stopReason"] != "max_tokens", usage["inputTokens"], usage["outputTokens"])


class OpenAITeacher:
    """A model behind any endpoint in OpenAI's shape, such as vLLM's or llama.cpp's; `url` ends in /v1."""

    def __init__(self, model: str, url: str, key: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise Invalid(f"the teacher's address is {url!r}; it must begin with http:// or https://")
        self.name = f"{model} at {url}"
        self._model, self._url, self._key = model, url.rstrip("/"), key

    def answer(self, asked: Conversation, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Said:
        """The answer. Raises ModelFailed."""
        head = [{"role": "system", "content": asked.system}] if asked.system else []
        turns = [{"role": message.role, "content": message.text} for message in asked.messages]
        body: dict[str, Any] = {
            "model": self._model, "messages": [*head, *turns], "max_tokens": max_tokens, "temperature": temperature,
        }  # fmt: skip
        if seed is not None:
            body["seed"] = seed
        reply = self._post(json.dumps(body).encode())
        try:
            choice, usage = reply["choices"][0], reply.get("usage") or {}
            text = choice["message"]["content"] or ""
        except (KeyError, IndexError, TypeError):
            raise ModelFailed(f"the teacher {self.name} answers in no known form: {str(reply)[:200]}") from None
        whole = choice.get("finish_reason") != "length"
        return Said(text, whole, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))

    def _post(self, data: bytes) -> Any:
        headers = {
            "content-type": "application/json",
            **({"authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        request = urllib.request.Request(f"{self._url}/chat/completions", data, headers)  # noqa: S310  # checked above
        for number in range(MOST_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=REMOTE_TIMEOUT_S) as reply:  # noqa: S310
                    return json.loads(reply.read())
            except urllib.error.HTTPError as error:
                said = error.read(500).decode(errors="replace")
                if error.code in REFUSED:  # this question, not the teacher
                    raise Invalid(f"the teacher {self.name} answers {error.code}: {said}") from None
                if error.code not in BUSY or number + 1 == MOST_TRIES:
                    raise ModelFailed(f"the teacher {self.name} answers {error.code}: {said}") from None
            except (
                urllib.error.URLError,
                http.client.HTTPException,
                TimeoutError,
                ConnectionError,
                ValueError,
            ) as error:
                if number + 1 == MOST_TRIES:
                    raise ModelFailed(f"the teacher {self.name} does not answer: {error}") from None
            time.sleep(FIRST_WAIT_S * 2**number)
        raise AssertionError("unreachable")


def remote_teacher(model: str, endpoint: str, key: str = "") -> Teacher:
    """A model at an endpoint: `bedrock` is AWS's, an address that ends in /v1 OpenAI-shaped, any other a Bedrock's. Raises Invalid."""
    if endpoint == "bedrock":
        return BedrockTeacher(model)
    if endpoint.rstrip("/").endswith("/v1"):
        return OpenAITeacher(model, endpoint, key)
    return BedrockTeacher(model, endpoint)
