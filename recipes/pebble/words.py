"""Words that the generated lessons are made of. A tenth of them, by hash, is never used in training."""

import hashlib
import random

NAMES = """Anna Tom Maria Peter Lena Omar Julia David Nina Ravi Clara Hugo Emma Louis Sara Victor Alice Bruno Carla Dmitri
Elena Felix Grace Henry Irene Jonas Karen Leo Mona Nora Oscar Paula Quentin Rosa Simon Tara Umar Vera Walter Yara Zoe
Adam Bella Carlos Diana Erik Fiona George Hanna Ivan Jane Kevin Laura Martin Nadia Otto Priya Rachel Samuel Tina Ursula
Viktor Wendy Xavier Yusuf Zara Amir Beth Chen Dora Edwin Frida Gita Harold Ines Jack Kira Lars Mei Noah Olga Pablo""".split()
CITIES = """Paris London Berlin Madrid Rome Vienna Oslo Dublin Lisbon Athens Prague Warsaw Cairo Lagos Nairobi Tokyo Osaka Seoul
Delhi Mumbai Boston Chicago Denver Austin Seattle Miami Toronto Lima Bogota Quito Sydney Perth Geneva Milan Naples Lyon
Munich Hamburg Porto Seville Krakow Riga Tallinn Helsinki Bergen Malmo Antwerp Utrecht Leeds Bristol""".split()
JOBS = """nurse teacher driver baker lawyer painter farmer doctor singer pilot waiter editor banker clerk judge tailor
plumber barber chemist dentist engineer gardener janitor librarian mechanic musician pharmacist photographer surgeon writer""".split()
COLORS = "red blue green black white yellow brown purple orange pink grey silver gold violet cream".split()
ANIMALS = (
    "dog cat horse cow sheep goat pig duck goose rabbit mouse fox wolf bear lion tiger eagle owl frog whale".split()
)
PRODUCTS = """laptop phone router printer camera monitor keyboard tablet headset charger speaker drone watch kettle toaster
blender vacuum heater lamp fan mixer freezer scanner projector microphone""".split()
COMPANIES = """Northwind Acme Globex Initech Umbra Vertex Quanta Solis Borealis Kestrel Meridian Pioneer Summit Harbor Atlas
Zephyr Cobalt Delphi Everest Falcon""".split()
LINE_ITEMS = """revenue profit cost tax cash debt assets equity sales income expenses interest inventory dividends goodwill
wages rent depreciation amortization backlog""".split()
FOODS = "bread rice soup cake apple cheese fish salad pasta pizza honey coffee tea milk butter".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_ONSETS = "b d f g h k l m n p r s t v z br dr gr kl pl st tr".split()
_VOWELS = "a e i o u ai ea ou".split()
_CODAS = ["", "", "n", "r", "l", "s", "t", "m", "k"]


def is_held_out(word: str) -> bool:
    """Whether a word is kept for evaluation."""
    return hashlib.sha256(word.lower().encode()).digest()[0] < 26


def pick(rng: random.Random, words: list[str], count: int, held_out: bool = False) -> list[str]:
    """Different words from the list, on the asked side of the split."""
    side = [word for word in words if is_held_out(word) == held_out]
    return rng.sample(side, min(count, len(side)))


def made_up(rng: random.Random, held_out: bool = False) -> str:
    """A name that nobody has."""
    while True:
        syllables = rng.choice((2, 2, 3))
        word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
        if is_held_out(word) == held_out:
            return word.capitalize()


def names(rng: random.Random, count: int, held_out: bool = False) -> list[str]:
    """Different names of people, one in eight made up."""
    chosen = pick(rng, NAMES, count, held_out)
    return [
        made_up(rng, held_out) if rng.random() < 0.125 or index >= len(chosen) else chosen[index]
        for index in range(count)
    ]
