"""Generated conversations whose earlier turns show what is wanted: the form of an answer, or the label that goes with a text.

Nothing in a question says it, so that it can only be read from the examples before it. The first answers of a conversation are guesses,
which are not learned: learning them made the model answer bare questions in any form.
"""

import json
import random
from collections.abc import Callable

from outcrop.rendering import Conversation, Rendered
from recipes.pebble import words
from recipes.pebble.lessons import FACTS, KINDS, PROBLEMS, URGENCIES, Lesson, either, ticket, value_of
from recipes.pebble.words import names

Form = Callable[[str, str, str], str]
MARKS = (("[", "]"), ("<", ">"), ("(", ")"), ('"', '"'), ("{", "}"), ("* ", ""), ("-> ", ""), ("= ", ""), ("# ", ""),
         ("", "."), ("", "!"), ("- ", ""), ("> ", ""), ("**", "**"), ("~", "~"), ("/", "/"))  # fmt: skip
WORDS_BEFORE = (
    "Answer",
    "Result",
    "Value",
    "Found",
    "Output",
    "Final",
    "A",
    "Reply",
    "Entry",
    "Field",
    "It says",
    "Here",
)
SENTENCES = ("It is {v}.", "The answer is {v}.", "{v} it is.", "That would be {v}.", "I found {v}.", "{n}: {v}", "{n} - {v}",
             "{v} ({n})", "{k}: {v}", "{k} = {v}", "{n} has {v}", "Yes, {v}.", "{k} of {n}: {v}")  # fmt: skip


def form_of(rng: random.Random, held: bool) -> Form:
    """A way to write an answer, of (value, name, kind)."""
    way = rng.choice(("bare", "bare", "marks", "marks", "word", "sentence", "json", "tag"))
    if way == "bare":
        return lambda v, n, k: v
    if way == "marks":
        left, right = rng.choice(MARKS)
        return lambda v, n, k: f"{left}{v}{right}"
    before = words.made_up(rng, held) if held or rng.random() < 0.4 else rng.choice(WORDS_BEFORE)
    if way == "word":
        joint = rng.choice((": ", " = ", " -> ", " "))
        return lambda v, n, k: f"{before}{joint}{v}"
    if way == "tag":
        return lambda v, n, k: f"<{before.lower()}>{v}</{before.lower()}>"
    if way == "json":
        named = rng.choice(("answer", "value", "result", before.lower()))
        return lambda v, n, k: json.dumps({named: v})
    sentence = rng.choice(SENTENCES)
    return lambda v, n, k: sentence.format(v=v, n=n, k=k)


def _pairs(rng: random.Random, held: bool) -> Callable[[], tuple[str, str, str, str]]:
    kind = rng.choice([*KINDS, "age", "score", "room"])
    wording = either(
        rng, held, ("What is the {k} of {n}?", "{k} of {n}?", "Which {k} does {n} have?"), ("Which {k} goes with {n}?",)
    )

    def ask() -> tuple[str, str, str, str]:
        people = names(rng, rng.randint(1, 4), held)
        values = {person: value_of(rng, kind) for person in people}
        text = "\n".join(f"{person}: {value}" for person, value in values.items())
        person = rng.choice(people)
        return f"{text}\n\n{wording.format(k=kind, n=person)}", values[person], person, kind

    return ask


def _facts(rng: random.Random, held: bool) -> Callable[[], tuple[str, str, str, str]]:
    kind = rng.choice(sorted(FACTS))
    told, told_held, asked, asked_held, _ = FACTS[kind]
    question = either(rng, held, asked, asked_held)

    def ask() -> tuple[str, str, str, str]:
        person, other = names(rng, 2, held)
        value = value_of(rng, kind)
        sentences = [either(rng, held, told, told_held).format(n=person, v=value)]
        if rng.random() < 0.5:
            sentences.insert(
                rng.randrange(2), either(rng, held, told, told_held).format(n=other, v=value_of(rng, kind))
            )
        text = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
        return f"{text}\n\n{question.format(n=person)}", value, person, kind

    return ask


def _tickets(rng: random.Random, held: bool) -> Callable[[], tuple[str, str, str, str]]:
    key = rng.choice(("product", "order", "customer", "category", "urgency"))
    wording = either(rng, held, ("What is the {k}?", "Name the {k}.", "{k}?", ""), ("Tell me the {k}.",)).format(k=key)

    def ask() -> tuple[str, str, str, str]:
        text, fields = ticket(rng, held)
        return f"{text}\n\n{wording}".strip(), fields[key], fields["customer"], key

    return ask


def as_shown(rng: random.Random, held: bool) -> Conversation:
    """Questions of one kind, each on a text of its own, and answers of one form, as the first of them shows it."""
    ask, form = rng.choice((_pairs, _facts, _tickets))(rng, held), form_of(rng, held)
    turns: list[str] = []
    for _ in range(rng.randint(2, 6)):
        question, value, name, kind = ask()
        turns += [question, form(value, name, kind)]
    return Conversation.of(*turns)


def labels(rng: random.Random, held: bool, count: int) -> list[str]:
    """Names for classes that say nothing of what is in them."""
    way = rng.choice(("letters", "colors", "animals", "made up", "numbered"))
    if way == "made up":
        return [words.made_up(rng, held) for _ in range(count)]
    if way == "numbered":
        word = rng.choice(("Team", "Group", "Class", "Queue", "Type"))
        return [f"{word} {letter}" for letter in rng.sample("ABCDEFGH123456789", count)]
    pool = {"letters": list("ABCDEFGHKMPQRSTXYZ"), "colors": words.COLORS, "animals": words.ANIMALS}[way]
    return rng.sample(pool, count)


def _texts(rng: random.Random, held: bool, count: int) -> list[Callable[[], str]]:
    """Makers of texts, one for each of so many classes."""
    way = rng.choice(("problem", "problem", "urgency", "fact", "word"))
    if way == "word":
        return [lambda pool=pool: rng.choice(pool) for pool in rng.sample(list(KINDS.values()), count)]  # type: ignore[misc]
    if way == "fact":
        return [
            lambda kind=kind: either(rng, held, FACTS[kind][0], FACTS[kind][1]).format(
                n=names(rng, 1, held)[0], v=value_of(rng, kind)
            )  # type: ignore[misc]
            for kind in rng.sample(sorted(FACTS), count)
        ]
    source = PROBLEMS if way == "problem" else URGENCIES
    chosen = rng.sample(sorted(source), min(count, len(source)))
    return [
        lambda kind=kind: either(rng, held, *source[kind]).format(p=rng.choice(words.PRODUCTS)).capitalize() + "."  # type: ignore[misc]
        for kind in chosen
    ]


def by_example(rng: random.Random, held: bool) -> Conversation:
    """Texts and their labels, which only the earlier turns explain; the last one asks for a class that was shown."""
    makers = _texts(rng, held, rng.randint(2, 4))
    named = labels(rng, held, len(makers))
    drawn = list(range(len(makers)))
    rng.shuffle(drawn)
    drawn += [rng.randrange(len(makers)) for _ in range(rng.randint(2, 8))]
    turns: list[str] = []
    seen: dict[int, list[str]] = {}
    for number in drawn:
        again = seen.get(number)
        text = rng.choice(again) if again and rng.random() < 0.3 else makers[number]()
        seen.setdefault(number, []).append(text)
        turns += [text, named[number]]
    return Conversation.of(*turns)


def statement(rng: random.Random, held: bool) -> Conversation:
    """Something said and nothing asked: what it is about. Without this lesson the model repeated a syllable for ever."""
    way = rng.choice(("problem", "problem", "ticket", "fact", "word"))
    if way == "ticket":
        text, fields = ticket(rng, held)
        return Conversation.of(text, f"This is about the {fields['product']}.")
    if way == "problem":
        product = rng.choice(words.PRODUCTS)
        text = either(rng, held, *PROBLEMS[rng.choice(sorted(PROBLEMS))]).format(p=product)
        return Conversation.of(
            f"{text[0].upper()}{text[1:]}{rng.choice(('.', '.', '', '!'))}", f"This is about the {product}."
        )
    kind = rng.choice(sorted(FACTS))
    value = value_of(rng, kind)
    if way == "word":
        return Conversation.of(f"{value}{rng.choice(('', '.'))}", f"This is about {value}.")
    name = names(rng, 1, held)[0]
    return Conversation.of(either(rng, held, *FACTS[kind][:2]).format(n=name, v=value), f"This is about {name}.")


def guesses(kind: str, conversation: Conversation) -> int:
    """How many of a conversation's first answers nothing before them tells: one, or one for each label."""
    if kind == "by_example":
        return len({message.text for message in conversation.messages if message.role == "assistant"})
    return int(kind == "as_shown")


def without_guesses(row: Rendered, count: int) -> Rendered:
    """The row with its first answers not learned."""
    learned, place = list(row.is_answer), 0
    for _ in range(count):
        place = learned.index(True, place)
        while place < len(learned) and learned[place]:
            learned[place] = False
            place += 1
    return Rendered(row.tokens, learned)


LESSONS: dict[str, Lesson] = {"as_shown": as_shown, "by_example": by_example, "statement": statement}
