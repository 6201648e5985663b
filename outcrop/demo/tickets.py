"""The demo's data: messages to a shop's support desk, and the form that is to be filled in.

Made here, by a seed. The wordings are the demo's own: the starter model has learned to fill in forms from other
messages (recipes/pebble), some of them much like these, so it knows what is asked but not these customers.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

SYSTEM = "Write JSON with category, urgency, product, order."
CATEGORIES = ("account", "billing", "defect", "delivery", "return")
URGENCIES = ("high", "low", "medium")
SCHEMA = {"category": CATEGORIES, "urgency": URGENCIES, "product": None, "order": None}

_PRODUCTS = (
    "camera", "charger", "drone", "fan", "freezer", "headset", "heater", "kettle", "keyboard", "lamp", "laptop", "mixer",
    "monitor", "phone", "printer", "projector", "router", "scanner", "speaker", "tablet", "toaster", "vacuum", "watch",
)  # fmt: skip
_PROBLEMS = {
    "account": ("Your site says my password for the {p} page is unknown", "I cannot get into my account to register the {p}",
                "Please change the email address of the account that bought the {p}", "My login stopped working after I ordered the {p}"),
    "billing": ("You took the money for the {p} two times", "The amount on the bill for the {p} is not what we agreed",
                "My card shows a charge for a {p} I never bought", "I was promised a discount on the {p} and paid the full price"),
    "defect": ("The {p} died after one day", "There is smoke coming from the {p}", "My new {p} will not start",
               "The {p} keeps switching itself off", "One part of the {p} is cracked"),
    "delivery": ("The {p} should have been here last week", "Your driver left my {p} with a stranger",
                 "The tracking page of the {p} has not moved for days", "I only got an empty box instead of the {p}"),
    "return": ("I changed my mind about the {p} and want to give it back", "How can I exchange the {p} for a bigger one",
               "The {p} does not fit our kitchen, please take it back", "I would like my money back and send you the {p}"),
}  # fmt: skip
_URGENCIES = {
    "high": (
        "I cannot wait another day",
        "This must be solved now",
        "We are losing money every hour",
        "Call me back at once",
    ),
    "medium": (
        "Please get back to me in the next few days",
        "I would be glad about an answer this week",
        "Tell me soon what to do",
    ),
    "low": (
        "No need to rush",
        "Any time this month is fine",
        "It is not pressing at all",
        "Answer when you find the time",
    ),
}
_NAMES = ("Ayla", "Bram", "Chiara", "Darius", "Esther", "Farid", "Greta", "Hamza", "Ilse", "Jorge", "Katya", "Liam", "Milena",
          "Nils", "Odette", "Pavel", "Rania", "Sven", "Tamara", "Ulrich", "Vikram", "Wanda", "Yusra", "Zeno")  # fmt: skip
_OPENINGS = ("", "", "Hello. ", "Good day. ", "To whom it may concern. ", "Hi there. ")
_ORDERS = ("Order {o}", "My order is {o}", "The order number is {o}", "It is about order {o}", "Reference {o}")


@dataclass(frozen=True)
class Ticket:
    """A message and what stands in it."""

    text: str
    form: dict[str, str]

    @property
    def answer(self) -> str:
        """The form as the desk wants it: one line of JSON, keys in order, nothing else."""
        return json.dumps(self.form)

    @property
    def row(self) -> str:
        """A line of training data in Bedrock's system + messages form."""
        messages = [{"role": "user", "content": self.text}, {"role": "assistant", "content": self.answer}]
        return json.dumps({"system": SYSTEM, "messages": messages})


def tickets(seed: int) -> Iterator[Ticket]:
    """Different tickets without end; different seeds give different ones."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        category, urgency = rng.choice(CATEGORIES), rng.choice(URGENCIES)
        product, order = rng.choice(_PRODUCTS), f"{rng.choice('ABCDEK')}{rng.randint(100, 9999)}"
        sentences = [
            rng.choice(_PROBLEMS[category]).format(p=product),
            rng.choice(_ORDERS).format(o=order),
            rng.choice(_URGENCIES[urgency]),
        ]
        if rng.random() < 0.4:
            sentences[1], sentences[2] = sentences[2], sentences[1]
        text = f"{rng.choice(_OPENINGS)}{'. '.join(sentences)}. {rng.choice(_NAMES)}"
        if text not in seen:
            seen.add(text)
            yield Ticket(text, {"category": category, "urgency": urgency, "product": product, "order": order})
