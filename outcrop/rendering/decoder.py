"""Token ids -> text, as they come."""

from tokenizers import Tokenizer


class Decoder:
    """Turns a stream of token ids into text that never has to be taken back.

    A character may need several tokens (bytes of one code point), so text is held back while it ends in the
    replacement character. Only the tokens since the last settled point are decoded again, so the work per
    token does not grow with the answer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._settled = 0
        self._seen = 0

    def push(self, token: int) -> str:
        """The text that this token adds; empty while a character is still incomplete."""
        self._tokens.append(token)
        before = self._text(self._settled, self._seen)
        now = self._text(self._settled, len(self._tokens))
        if now.endswith("\ufffd") or len(now) <= len(before):
            return ""
        self._settled, self._seen = self._seen, len(self._tokens)
        return now[len(before) :]

    def flush(self) -> str:
        """What was held back, when no more tokens will come."""
        before = self._text(self._settled, self._seen)
        now = self._text(self._settled, len(self._tokens))
        self._settled = self._seen = len(self._tokens)
        return now[len(before) :]

    def _text(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._tokens[start:end], skip_special_tokens=True)
