"""Generated conversations: what the starter model is to learn.

Each lesson is a function (rng, held) -> Conversation. With `held` the lesson uses names and wordings that training
never does; the model card's scores are taken there. Questions come with two manners: by default a full sentence, as
chat models answer; short when the question asks for the value only.
"""

import json
import random
from collections.abc import Callable

from outcrop.rendering import Conversation
from recipes.pebble import words
from recipes.pebble.words import names

Lesson = Callable[[random.Random, bool], Conversation]
SHORT = (" Answer with the value only.", " Reply with one word or number.", " Value only.", " Be brief.")


def either(rng: random.Random, held: bool, trained: tuple[str, ...], kept: tuple[str, ...]) -> str:
    """A wording from the side of the split that is asked for."""
    return rng.choice(kept if held else trained)


def manner(rng: random.Random, question: str, sentence: str, value: str) -> tuple[str, str]:
    """A question and its answer in one of the two manners; how the manner is asked for is not held out."""
    if rng.random() < 0.45:
        return question + rng.choice(SHORT), value
    return question, sentence


# --- pairs -----------------------------------------------------------------------------------------------------

KINDS = {
    "color": words.COLORS, "city": words.CITIES, "job": words.JOBS, "animal": words.ANIMALS, "food": words.FOODS,
    "product": words.PRODUCTS, "day": words.DAYS, "month": words.MONTHS,
}  # fmt: skip


def value_of(rng: random.Random, kind: str) -> str:
    """A value of a kind. Values are open words: only names are held out."""
    if kind in ("age", "score", "room"):
        return str(rng.randint(2, 99))
    return rng.choice(KINDS[kind])


def pairs(rng: random.Random, held: bool, most: int = 8) -> Conversation:
    """A list of names with a value each, then questions about them."""
    count = rng.randint(2, most)
    kind = rng.choice([*KINDS, "age", "score", "room"])
    people = names(rng, count, held)
    values = [value_of(rng, kind) for _ in people]
    mark = rng.choice((": ", " = ", " - ", " -> "))
    joint = rng.choice(("\n", "\n", "; ", ", "))
    text = joint.join(f"{person}{mark}{value}" for person, value in zip(people, values, strict=True))
    turns: list[str] = []
    asked = rng.sample(range(count), min(count, rng.choice((1, 2, 4, 6))))
    for index in asked:
        person, value = people[index], values[index]
        ask = either(
            rng, held,
            (f"What is the {kind} of {person}?", f"Which {kind} does {person} have?", f"{person}: which {kind}?",
             f"Tell me the {kind} for {person}.", f"{kind} of {person}?", f"What {kind} belongs to {person}?",
             f"Give me the {kind} that {person} has.", f"Say which {kind} stands beside {person}.",
             f"I need the {kind} of {person}.", f"Find {person} and name the {kind}.", f"{person} has which {kind}?"),
            (f"Which {kind} goes with {person}?", f"For {person}, what {kind} is given?"),
        )  # fmt: skip
        question, answer = manner(rng, ask, f"The {kind} of {person} is {value}.", value)
        turns += [question, answer]
    turns[0] = f"{text}\n\n{turns[0]}"
    return Conversation.of(*turns)


def few_pairs(rng: random.Random, held: bool) -> Conversation:
    """Pairs, but few: the first lesson."""
    return pairs(rng, held, most=3)


def echo(rng: random.Random, held: bool) -> Conversation:
    """Say it again: copying is what every lookup ends in."""
    pool = [*words.PRODUCTS, *words.CITIES, *words.FOODS, *words.ANIMALS, *words.COLORS]
    chosen = [rng.choice(pool) if rng.random() < 0.7 else words.made_up(rng, held) for _ in range(rng.randint(2, 9))]
    text = " ".join(chosen)
    if rng.random() < 0.5:
        return Conversation.of(
            either(rng, held, (f"Repeat: {text}", f"Say this again: {text}"), (f"Copy this: {text}",)), text
        )
    index = rng.randrange(len(chosen) - 1)
    return Conversation.of(
        f"{text}\n\nWhich word comes after {chosen[index]}?", chosen[chosen.index(chosen[index]) + 1]
    )


# --- tables ----------------------------------------------------------------------------------------------------

COLUMNS = ("age", "city", "job", "color", "animal", "score", "food")


def table_text(rng: random.Random, head: list[str], rows: list[list[str]]) -> str:
    """A table in one of the ways in which people write tables."""
    form = rng.choice(("pipe", "markdown", "record", "csv", "tab"))
    if form == "record":
        return "\n".join(
            f"{row[0]}: " + ", ".join(f"{name} {cell}" for name, cell in zip(head[1:], row[1:], strict=True))
            for row in rows
        )
    mark = {"pipe": " | ", "markdown": " | ", "csv": ", ", "tab": "\t"}[form]
    lines = [mark.join(line) for line in [head, *rows]]
    if form == "markdown":
        lines = [f"| {line} |" for line in lines]
        lines.insert(1, "|" + " --- |" * len(head))
    return "\n".join(lines)


def people_table(rng: random.Random, held: bool, most: int = 5) -> Conversation:
    """A table of people, then questions for cells."""
    head = ["name", *rng.sample(COLUMNS, rng.randint(1, 4))]
    people = names(rng, rng.randint(2, most), held)
    rows = [[person, *(value_of(rng, column) for column in head[1:])] for person in people]
    turns: list[str] = []
    for _ in range(rng.choice((1, 2, 4, 6))):
        row = rng.choice(rows)
        column = rng.randrange(1, len(head))
        name, value = head[column], row[column]
        ask = either(
            rng,
            held,
            (
                f"What is the {name} of {row[0]}?",
                f"Which {name} does {row[0]} have?",
                f"Look up the {name} for {row[0]}.",
            ),
            (f"In the table, what {name} stands at {row[0]}?",),
        )
        question, answer = manner(rng, ask, f"The {name} of {row[0]} is {value}.", value)
        turns += [question, answer]
    turns[0] = f"{table_text(rng, head, rows)}\n\n{turns[0]}"
    return Conversation.of(*turns)


def small_table(rng: random.Random, held: bool) -> Conversation:
    """Two or three rows."""
    return people_table(rng, held, most=3)


def money(rng: random.Random) -> str:
    """An amount as annual reports write it."""
    amount = rng.choice((rng.randint(10, 999), rng.randint(1000, 99999)))
    text = f"{amount:,}" if rng.random() < 0.7 else f"{amount / 10:.1f}"
    return f"${text}" if rng.random() < 0.3 else text


def year_table(rng: random.Random, held: bool) -> Conversation:
    """Line items by year, as in a financial report."""
    first = rng.randint(2009, 2021)
    years = [str(first - offset) for offset in range(rng.randint(2, 3))]
    items = rng.sample(words.LINE_ITEMS, rng.randint(2, 6))
    rows = [[item, *(money(rng) for _ in years)] for item in items]
    before = rng.choice(("", f"{rng.choice(words.COMPANIES)} reports in thousands.\n", "Year ended December 31\n"))
    turns: list[str] = []
    for _ in range(rng.choice((1, 2, 4))):
        row = rng.choice(rows)
        column = rng.randrange(len(years))
        item, year, value = row[0], years[column], row[column + 1]
        ask = either(
            rng,
            held,
            (
                f"What was the {item} in {year}?",
                f"How much was {item} in {year}?",
                f"What is the {year} {item}?",
                f"What did the {item} amount to in {year}?",
                f"Find the {item} of {year}.",
                f"{item} in {year}?",
                f"What {item} is reported for {year}?",
            ),
            (f"Give the {item} for the year {year}.",),
        )
        question, answer = manner(rng, ask, f"The {item} in {year} was {value}.", value)
        turns += [question, answer]
    turns[0] = f"{before}{table_text(rng, ['item', *years], rows)}\n\n{turns[0]}"
    return Conversation.of(*turns)


# --- paragraphs ------------------------------------------------------------------------------------------------

FACTS = {
    "city": (("{n} lives in {v}.", "{n} has a home in {v}.", "{v} is where {n} lives.", "{n} moved to {v} last year.",
              "The flat of {n} is in {v}.", "{n} comes from {v}.", "{v} is home to {n}."), ("You can find {n} in {v}.",),
             ("Where does {n} live?", "In which city does {n} live?", "Which city is home to {n}?", "Where is {n} at home?",
              "What city does {n} live in?"), ("What is the home town of {n}?",), "{n} lives in {v}."),
    "job": (("{n} works as a {v}.", "{n} is a {v}.", "The {v} here is {n}.", "{n} became a {v}.", "By trade {n} is a {v}.",
             "As a {v}, {n} is busy.", "{n} has the job of a {v}."), ("{n} earns a living as a {v}.",),
            ("What does {n} do?", "What is the job of {n}?", "Which job does {n} have?", "As what does {n} work?",
             "What is {n} by trade?"), ("What work does {n} do?",), "{n} works as a {v}."),
    "animal": (("{n} has a {v}.", "{n} keeps a {v} at home.", "A {v} belongs to {n}.", "{n} feeds a {v}.", "The {v} lives with {n}.",
                "{n} got a {v} from a friend."), ("{n} owns a {v}.",),
               ("Which animal does {n} have?", "What pet does {n} keep?", "What animal lives with {n}?", "Which animal is it that {n} has?"), ("Which pet belongs to {n}?",), "{n} has a {v}."),
    "food": (("{n} likes {v}.", "{n} often eats {v}.", "{v} is what {n} likes most.", "{n} ordered {v}.", "{n} cannot do without {v}.",
              "For {n} there must be {v}."), ("The favourite of {n} is {v}.",),
             ("What does {n} like?", "What does {n} eat?", "Which food does {n} like?", "What is the food of {n}?"), ("Which food does {n} enjoy?",), "{n} likes {v}."),
    "age": (("{n} is {v} years old.", "{n} turned {v} this year.", "{n}, aged {v}, is well.", "With {v} years {n} is the oldest."), ("At {v}, {n} is still curious.",),
            ("How old is {n}?", "What age is {n}?", "How many years old is {n}?"), ("What is the age of {n}?",), "{n} is {v} years old."),
    "day": (("{n} is free on {v}.", "{n} comes in every {v}.", "{v} is the day of {n}.", "{n} has time on {v}."), ("You can meet {n} on a {v}.",),
            ("When is {n} free?", "On which day does {n} come?", "Which day is {n} free?", "When does {n} have time?"), ("Which day suits {n}?",), "{n} is free on {v}."),
    "color": (("{n} drives a {v} car.", "The car of {n} is {v}.", "{n} has a {v} car.", "A {v} car stands before the house of {n}."), ("{n} bought a {v} car.",),
              ("Which color is the car of {n}?", "What car does {n} drive?", "Which car has {n}?", "What color of car does {n} have?"), ("What is the color of the car of {n}?",),
              "{n} drives a {v} car."),
}  # fmt: skip
FILLER = (
    "It was a quiet week.", "Nothing else happened.", "The weather stayed mild.", "They met long ago.", "Everyone was pleased.",
    "The office opens at nine.", "This was written down in spring.",
)  # fmt: skip


def paragraph(rng: random.Random, held: bool) -> Conversation:
    """Some sentences about people, then questions about what they say."""
    people = names(rng, rng.randint(1, 3), held)
    facts = [
        (person, kind, value_of(rng, kind))
        for person in people
        for kind in rng.sample(sorted(FACTS), rng.randint(1, 3))
    ]
    sentences = []
    for person, kind, value in facts:
        told, told_held, *_ = FACTS[kind]
        sentence = either(rng, held, told, told_held).format(n=person, v=value)
        sentences.append(sentence[0].upper() + sentence[1:])
    sentences += rng.sample(FILLER, rng.randint(0, 2))
    if rng.random() < 0.5:
        rng.shuffle(sentences)
    turns: list[str] = []
    for person, kind, value in rng.sample(facts, min(len(facts), rng.choice((1, 2, 4)))):
        _, _, asked, asked_held, answered = FACTS[kind]
        ask = either(rng, held, asked, asked_held).format(n=person)
        question, answer = manner(rng, ask, answered.format(n=person, v=value), value)
        turns += [question, answer]
    turns[0] = f"{' '.join(sentences)}\n\n{turns[0]}"
    return Conversation.of(*turns)


# --- tickets ---------------------------------------------------------------------------------------------------

PROBLEMS = {
    "billing": (("I was charged twice for the {p}", "the invoice for my {p} is wrong", "I paid too much for the {p}",
                 "there is a charge for a {p} that I did not make", "please refund the money for the {p}",
                 "the price of the {p} on my card statement is too high", "you took money for a {p} twice",
                 "I got no discount on the {p}", "the payment for the {p} went through two times"),
                ("the bill for the {p} shows the wrong amount",)),
    "delivery": (("my {p} has not arrived", "the {p} is late", "the parcel with the {p} is lost", "the {p} went to the wrong address",
                  "the courier never brought the {p}", "the tracking of the {p} does not change",
                  "the box came without the {p}", "when will the {p} be here", "the driver left the {p} somewhere else"), ("I am still waiting for the {p} to be shipped",)),
    "defect": (("the {p} does not turn on", "my {p} is broken", "the {p} stopped working", "the {p} makes a strange noise",
                "the screen of the {p} is cracked", "the {p} died", "the {p} will not start", "smoke comes out of the {p}",
                "the {p} switches itself off", "a part of the {p} came off"), ("the {p} fails after a few minutes",)),
    "account": (("I cannot log in to my account to see the {p}", "my password does not work and I need the {p} manual",
                 "I want to change the email on the account with my {p}", "my account is locked since I bought the {p}",
                 "the login page does not let me in to register the {p}", "please delete the account with the {p}",
                 "I cannot sign in to see the guarantee of the {p}"),
                ("I forgot my password for the {p} portal",)),
    "return": (("I want to send the {p} back", "how do I return the {p}", "I would like to exchange the {p}", "the {p} is the wrong size",
                "please take the {p} back", "I changed my mind about the {p}", "the {p} does not fit", "can I give the {p} back"),
               ("I do not want to keep the {p}",)),
}  # fmt: skip
URGENCIES = {
    "high": (("I need this today", "this is urgent", "please hurry", "fix it immediately", "I am very angry", "I cannot wait", "it must be done now", "this costs us money every hour"), ("act at once",)),
    "medium": (("please answer this week", "let me know soon", "I hope to hear from you", "an answer in the next days would be nice", "get back to me this week"), ("a reply in the next days is fine",)),
    "low": (("there is no hurry", "take your time", "whenever you can", "it is not important", "no need to rush", "any time is fine", "it is not pressing"), ("it can wait",)),
}  # fmt: skip
GREETINGS = ("Hello, ", "Hi, ", "Dear team, ", "", "", "Good morning, ")


def ticket(rng: random.Random, held: bool) -> tuple[str, dict[str, str]]:
    """A message to support, and what stands in it."""
    category = rng.choice(sorted(PROBLEMS))
    urgency = rng.choice(sorted(URGENCIES))
    product = rng.choice(words.PRODUCTS)
    customer = names(rng, 1, held)[0]
    order = f"{rng.choice('ABCDEK')}{rng.randint(100, 9999)}"
    parts = [
        either(rng, held, *PROBLEMS[category]).format(p=product),
        rng.choice(
            (
                f"my order is {order}",
                f"the order number is {order}",
                f"order {order}",
                f"reference {order}",
                f"it is about order {order}",
                f"number {order}",
            )
        ),
        either(rng, held, *URGENCIES[urgency]),
    ]
    if rng.random() < 0.3:
        parts[1], parts[2] = parts[2], parts[1]
    sentences = [part[0].upper() + part[1:] + "." for part in parts]
    text = (
        rng.choice(GREETINGS)
        + " ".join(sentences)
        + rng.choice(
            (
                f" {customer}",
                f" Regards, {customer}",
                f" Thanks, {customer}",
                f" Yours, {customer}",
                f" Best, {customer}",
            )
        )
    )
    return text, {"category": category, "urgency": urgency, "product": product, "order": order, "customer": customer}


ALIASES = {
    "category": ("category", "topic", "type"), "urgency": ("urgency", "priority"), "product": ("product", "item"),
    "order": ("order", "order_id"), "customer": ("customer", "name"),
}  # fmt: skip


def ticket_form(rng: random.Random, held: bool) -> Conversation:
    """A ticket into JSON, the wanted keys named in the request."""
    text, fields = ticket(rng, held)
    keys = rng.sample(sorted(fields), rng.randint(1, 5))
    named = {rng.choice(ALIASES[key]): fields[key] for key in keys}
    wanted = ", ".join(named)
    request = either(
        rng, held,
        (f"Write JSON with {wanted}.", f"Return a JSON object with the keys {wanted}.", f"Extract {wanted} as JSON.",
         f"Fill in the form: {wanted}. Use JSON.", f"JSON only: {wanted}.", f"Answer in JSON with {wanted}.",
         f"Read the message and write JSON: {wanted}.", f"As JSON: {wanted}.", f"Put {wanted} into a JSON object.",
         f"Make JSON of it with {wanted}.", f"List {wanted} in a JSON object."),
        (f"Give me {wanted} in JSON.",),
    )  # fmt: skip
    answer = json.dumps(named)
    if rng.random() < 0.5:
        return Conversation.of(text, answer, system=request)
    return Conversation.of(f"{request}\n\n{text}" if rng.random() < 0.5 else f"{text}\n\n{request}", answer)


def ticket_questions(rng: random.Random, held: bool) -> Conversation:
    """A ticket, then one question for each thing that stands in it."""
    text, fields = ticket(rng, held)
    turns: list[str] = []
    for key in rng.sample(sorted(fields), rng.randint(1, 4)):
        choices = {"category": sorted(PROBLEMS), "urgency": sorted(URGENCIES)}.get(key)
        among = f" Choose from {', '.join(choices)}." if choices and rng.random() < 0.5 else ""
        ask = either(
            rng,
            held,
            (
                f"What is the {key}?",
                f"Which {key} is it?",
                f"Name the {key}.",
                f"Give the {key}.",
                f"Find the {key}.",
                f"Which {key} does this ticket have?",
                f"{key}?",
                f"Say the {key}.",
            ),
            (f"Tell me the {key}.",),
        )
        question, answer = manner(rng, ask + among, f"The {key} of this ticket is {fields[key]}.", fields[key])
        turns += [question, answer]
    turns[0] = f"{text}\n\n{turns[0]}"
    return Conversation.of(*turns)


def to_json(rng: random.Random, held: bool) -> Conversation:
    """Facts in words into JSON."""
    person = names(rng, 1, held)[0]
    kinds = rng.sample(sorted(FACTS), rng.randint(1, 4))
    values = {kind: value_of(rng, kind) for kind in kinds}
    text = " ".join(
        either(rng, held, FACTS[kind][0], FACTS[kind][1]).format(n=person, v=values[kind]) for kind in kinds
    )
    answer = json.dumps({"name": person, **values})
    ask = either(
        rng,
        held,
        (
            "Write this as JSON",
            "Extract the facts as JSON",
            "Return JSON",
            "Put this into JSON",
            "Make JSON of this",
            "Answer in JSON",
            "Give me JSON",
        ),
        ("Turn this into a JSON object",),
    )
    return Conversation.of(f"{ask} with the keys name, {', '.join(kinds)}.\n\n{text}", answer)


LESSONS: dict[str, Lesson] = {
    "echo": echo, "few_pairs": few_pairs, "pairs": pairs, "small_table": small_table, "people_table": people_table,
    "year_table": year_table, "paragraph": paragraph, "ticket_form": ticket_form, "ticket_questions": ticket_questions,
    "to_json": to_json,
}  # fmt: skip
