"""Everything that a check can find, with what it means and what to do: the one table, and the docs."""

from dataclasses import dataclass

FAILS, HURTS, LOOK = "fails", "hurts", "look"
SEVERITIES = (FAILS, HURTS, LOOK)


@dataclass(frozen=True)
class Kind:
    """A kind of finding. FAILS: a job on this file would fail. HURTS: the model would be worse for it, or its evaluation
    would mislead, or something would leak. LOOK: somebody should look."""

    name: str
    severity: str
    meaning: str
    remedy: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("json", FAILS, "a line is not JSON, or not UTF-8", "mend the line at the column given; each line is one object"),
        Kind("form", FAILS, "a row is in none of the forms, or in another one than the file began with", "one form a file; `outcrop data convert` writes any"),
        Kind("missing-key", FAILS, "a key that must be there is not", "add the key"),
        Kind("unknown-key", FAILS, "a key that the form does not have", "remove the key"),
        Kind("type", FAILS, "a value of the wrong type", "write the type that is expected"),
        Kind("schema-version", FAILS, "schemaVersion is nearly bedrock-conversation-2024", "write it so"),
        Kind("role", FAILS, "roles do not alternate from user to assistant, or too few messages", "user first, assistant last, by turns"),
        Kind("system", FAILS, "a system prompt that is empty, or of more than one part", "one part, filled, or none at all"),
        Kind("reserved", FAILS, "a string that is reserved for the model's own turns", "leave out its colon or its line break"),
        Kind("empty", FAILS, "a prompt, an answer or a text without words", "fill it, or remove the row"),
        Kind("media", FAILS, "an image, a video or a document: models here read text", "remove the row"),
        Kind("overlong", FAILS, "a row has more tokens than the base model takes; it would have to be cut, and is not", "shorten it, part it, or choose a base with a longer context"),
        Kind("unlearnable", FAILS, "a row without a token that would be learned, or one that the chat template refuses", "mend or remove the row"),
        Kind("count", FAILS, "too few rows, too many, or too many bytes", "add rows, or split the file; the limits are settings"),
        Kind("hyperparameter", FAILS, "a hyperparameter that is unknown or out of its range", "see the ranges"),
        Kind("limit", FAILS, "beyond what the family named takes at AWS", "see the family's limits"),
        Kind("secret", HURTS, "a key, token or password: a model can say it again", "revoke it, and remove or mask it"),
        Kind("personal-data", HURTS, "an identifier of a person whose checksum is right", "remove or mask it"),
        Kind("leakage", HURTS, "a held-out row's prompt is in the training rows, too: its score would be too good", "take it out of the training rows; --fix does"),
        Kind("conflict", HURTS, "the same prompt has different answers", "keep the right one"),
        Kind("duplicate", HURTS, "the same row again: it weighs double", "keep one; --fix does"),
        Kind("near-duplicate", HURTS, "nearly the same row again", "keep one, unless both are meant"),
        Kind("label-spelling", HURTS, "labels that differ in case, spaces or punctuation alone", "write them alike"),
        Kind("label-missing", HURTS, "a label of the held-out rows that the training rows do not have", "add rows of it"),
        Kind("label-balance", LOOK, "few labels with very different numbers of rows", "add rows of the rare ones, or accept that they will be missed"),
        Kind("secret-example", LOOK, "a key that documentation gives as an example", "see that it is one"),
        Kind("contact", LOOK, "an e-mail address or a telephone number", "remove or mask it, if it is a person's"),
        Kind("name", LOOK, "a name, a place or a paper of a person (`--names`, by presidio)", "remove or mask it, if it is a real person's"),
        Kind("language", LOOK, "rows in another language than the others, or answers in another than their prompts", "see that it is meant"),
        Kind("other-schema", LOOK, "a schemaVersion of one's own: Nova takes any, Llama and distillation take bedrock-conversation-2024 alone", "write bedrock-conversation-2024"),
        Kind("system-prompt", LOOK, "some rows have a system prompt and others none, or none has one", "train with the system prompt that will be used"),
        Kind("answer-space", LOOK, "answers that begin or end in white space: it will be learned", "strip it"),
        Kind("early-stopping", LOOK, "early stopping is asked for, and there is no validation data: it does nothing", "give a validation file, or evalPercentage"),
        Kind("few-rows", LOOK, "few rows for the settings", "more rows, fewer epochs or a smaller batch"),
        Kind("not-compared", LOOK, "so many rows look alike that not every pair was compared", "remove the duplicates that were found, and check again"),
    )
}  # fmt: skip


def markdown() -> str:
    """The table as documentation."""
    words = {FAILS: "fails", HURTS: "hurts", LOOK: "look at"}
    lines = ["| kind | verdict | what it is | what to do |", "|---|---|---|---|"]
    lines += [f"| `{kind.name}` | {words[kind.severity]} | {kind.meaning} | {kind.remedy} |" for kind in KINDS.values()]
    return "\n".join(lines) + "\n"
