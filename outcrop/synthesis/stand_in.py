"""A stand-in for a teacher behind an OpenAI-shaped endpoint: `python -m outcrop.synthesis.stand_in`. It prints its address.

It is no model. It answers what `templates/pairs.txt` asks by turning sentences of the passage into questions by rule, and invents
every seventh answer, so that what checks answers has something to find; `templates/judge.txt` it answers by comparing words. It ships
so that making data can be tried, and is tested, where no model is at hand.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from outcrop.synthesis.documents import Passage
from outcrop.synthesis.pairs import Pair, fault_of

SENTENCE = re.compile(r"[A-Z][^.!?\n|]{25,260}[.!?](?=\s|$)")
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)|[*_`#>]")
DEFINED = re.compile(r"^((?:The |A |An |Our |Your )?[\w' -]{3,60}?) (is|are|was|were|must|should|can|may|will) (.+)$")
PURPOSE = re.compile(r"^(?:To|In order to) ([\w' -]{4,60}), (.+)$")
CONDITION = re.compile(r"^(?:If|When) ([^,]{6,80}), (.+)$")
INVENTED_EVERY = 7
ASKED = {"is": "What is", "are": "What are", "was": "What was", "were": "What were"}


def pairs_of(passage: str, count: int) -> list[dict[str, str]]:
    """Questions on sentences of a passage, by rule, each with its sentence as the answer; some answers are invented."""
    found = []
    for sentence in SENTENCE.findall(LINK.sub(lambda match: match.group(1) or "", passage)):
        question = _question(sentence.strip())
        if question:
            invented = (len(sentence) + len(passage)) % INVENTED_EVERY == 0
            answer = "The quarterly submarine budget covers 4,711 penguins." if invented else sentence.strip()
            found.append({"question": question, "answer": answer})
    return found[:count]


def _question(sentence: str) -> str:
    if match := PURPOSE.match(sentence):
        return f"How do you {match.group(1).lower()}?"
    if match := CONDITION.match(sentence):
        return f"What happens when {match.group(1)}?"
    if match := DEFINED.match(sentence):
        subject, verb = match.group(1), match.group(2)
        subject = (
            subject if any(char.isupper() for char in subject.split()[0][1:]) else subject[0].lower() + subject[1:]
        )
        if len(subject.split()) == 1 and subject.lower() in (
            "this",
            "that",
            "it",
            "they",
            "these",
            "we",
            "you",
            "there",
            "he",
            "she",
            "i",
        ):
            return ""
        return f"{ASKED[verb]} {subject}?" if verb in ASKED else f"What {verb} {subject} do?"
    return ""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = str(body["messages"][-1]["content"])
        passage = re.search(r"<passage>\n(.*?)\n</passage>", asked, re.DOTALL)
        text = passage.group(1) if passage else ""
        if "Reply with yes or no" in asked:
            said = self._verdict(asked, text)
        else:
            count = re.search(r"write (\d+) questions", asked)
            said = json.dumps(pairs_of(text, int(count.group(1)) if count else 3))
        self._reply(
            {
                "id": "stand-in", "object": "chat.completion", "model": body.get("model"),
                "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": len(asked) // 4, "completion_tokens": len(said) // 4},
            }
        )  # fmt: skip

    @staticmethod
    def _verdict(asked: str, passage: str) -> str:
        pair = re.search(r"Question: (.*?)\nAnswer: (.*)", asked, re.DOTALL)
        if pair is None:
            return "no"
        fault = fault_of(Pair(pair.group(1), pair.group(2).strip()), Passage("", "", "", 0, passage))
        return "no" if fault else "yes"

    def _reply(self, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Serve on a free port of this machine, or the one given."""
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), _Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
