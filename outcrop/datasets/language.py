"""Which language a text is in, by its script and its commonest words; "" where that does not say.

The words are each language's most frequent function words. A text is called only when they are a fair share of its words and
no other language comes near; so short texts, code and lists of names stay uncalled, which is no finding.
"""

import re

SCRIPTS = (
    ("Chinese", re.compile(r"[\u4e00-\u9fff]")),
    ("Japanese", re.compile(r"[\u3040-\u30ff]")),
    ("Korean", re.compile(r"[\uac00-\ud7af]")),
    ("Russian", re.compile(r"[\u0400-\u04ff]")),
    ("Greek", re.compile(r"[\u0370-\u03ff]")),
    ("Arabic", re.compile(r"[\u0600-\u06ff]")),
    ("Hebrew", re.compile(r"[\u0590-\u05ff]")),
    ("Hindi", re.compile(r"[\u0900-\u097f]")),
    ("Thai", re.compile(r"[\u0e00-\u0e7f]")),
)
# Words that are English, too, are left out of the other languages' lists.
WORDS = {
    "English": "the of and to in is that for it you was with on are be this have not your can from they what will or we do my",
    "German": "der das und ist nicht ein eine zu den mit von sie für auf dem wir wie haben ich kann werden auch bei im oder",
    "French": "le la les des et est une que vous dans pas avec nous votre ce sont être je cette du au mais comme leur qui",
    "Spanish": "el los las que una para con por está del es su como se más pero usted puede este esta muy también y según qué",
    "Portuguese": "os que uma para com não da em você é por mais como seu sua dos das está são ao pode isso foi pela à",
    "Italian": "il che di è una con non del della sono gli le più questo nel alla può anche suo dei ho ma perché quando al",
    "Dutch": "het een van en niet dat voor met op zijn je uw kan ook wordt aan deze bij om maar naar te geen wij ik",
    "Polish": "nie się na jest że jak czy może dla przez są tym proszę od po jego tylko już być oraz które nas ich",
    "Swedish": "och att det som är en på inte av för med jag kan har till den du om ett vi från så eller hur ska",
    "Turkish": "bir ve bu için ile da çok olarak daha gibi değil nasıl var olan sonra kadar en mi ama siz bunu ya ise",
}
_SETS = {language: frozenset(words.split()) for language, words in WORDS.items()}
_TOKENS = re.compile(r"[^\W\d_]+")
# Fewer words say nothing; so many different ones and this share of all must be the language's, and so much more than any other's.
FEWEST_WORDS, FEWEST_DIFFERENT, SHARE, AHEAD = 8, 3, 0.15, 1.5


def language_of(text: str) -> str:
    """A text's language in English, or ""."""
    letters = sum(char.isalpha() for char in text[:2000])
    for language, pattern in SCRIPTS:
        found = len(pattern.findall(text[:2000]))
        if letters and found > 0.3 * letters:
            if language == "Chinese" and re.search(r"[\u3040-\u30ff]", text[:2000]):
                return "Japanese"
            return language
    tokens = _TOKENS.findall(text[:2000].lower())
    if len(tokens) < FEWEST_WORDS:
        return ""
    hits = {language: [token for token in tokens if token in words] for language, words in _SETS.items()}
    (language, most), (_, next_most) = sorted(hits.items(), key=lambda pair: -len(pair[1]))[:2]
    is_clear = len(most) >= SHARE * len(tokens) and len(most) >= AHEAD * len(next_most)
    return language if is_clear and len(set(most)) >= FEWEST_DIFFERENT else ""
