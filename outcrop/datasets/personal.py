"""Personal data and secrets in text, by rules: a pattern, and a checksum wherever the identifier has one.

Rules that have neither are left out on purpose: names, postal addresses and IP addresses cannot be told from other words and
numbers without being wrong often. The `pii` extra (presidio) looks for those.

Sources: ISO/IEC 7812 (card numbers, Luhn), ISO 13616 (IBAN), the US Social Security Administration's rules for numbers that
are never assigned, Brazil's Receita Federal (CPF), Spain's Interior Ministry (DNI), France's INSEE (NIR), RFC 2606 (example
domains); prefixes of keys from their issuers' documentation.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Letters and digits of an IBAN (ISO 13616 registry).
IBAN_LENGTHS = {
    country: int(length)
    for country, length in (
        pair.split(":")
        for pair in (
            "AD:24 AE:23 AL:28 AT:20 BA:20 BE:16 BG:22 BH:22 BR:29 CH:21 CR:22 CY:28 CZ:24 DE:22 DK:18 DO:28 EE:20 ES:24 FI:18 "
            "FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LI:21 "
            "LT:20 LU:20 LV:21 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 "
            "SA:24 SE:24 SI:19 SK:24 SM:27 TN:24 TR:26 UA:29 VG:24 XK:20"
        ).split()
    )
}
# Mailboxes of a role, and domains that are nobody's (RFC 2606).
ROLES = frozenset(
    "abuse accounts admin billing careers contact customerservice enquiries feedback hello help helpdesk hr info inquiries jobs "
    "legal mail marketing media news newsletter noreply no-reply office orders postmaster press privacy root sales security "
    "service services support team webmaster your.email youremail name email user username".split()
)
NOBODYS = (
    "example.com",
    "example.org",
    "example.net",
    ".example",
    ".test",
    ".invalid",
    ".localhost",
    "domain.com",
    "email.com",
)


@dataclass(frozen=True)
class Rule:
    """What is looked for: `pattern` finds, `accepts` decides. One of `hints` must be in a text (in lower case) for it to be
    searched, if there are any."""

    name: str
    kind: str
    pattern: re.Pattern[str]
    accepts: Callable[[str], bool] = lambda text: True
    hints: tuple[str, ...] = ()


def luhn(text: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812)."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    groups = re.split(r"[ -]", text)
    if len(groups) > 1 and [len(group) for group in groups] not in (
        [4, 4, 4, 4],
        [4, 6, 5],
        [4, 6, 4],
        [4, 4, 4, 4, 3],
    ):
        return False
    issuers = {
        13: ("4",), 14: ("30", "36", "38", "39"), 15: ("34", "37"), 16: ("4", "5", "2", "35", "60", "64", "65"), 19: ("4", "62"),
    }  # fmt: skip
    return digits.startswith(issuers.get(len(digits), ())) and len(set(digits)) > 1 and luhn(digits)


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    if IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _is_ssn(text: str) -> bool:
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_cpf(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()]
    if len(set(digits)) == 1:
        return False

    def check(count: int) -> int:
        return (
            sum(digit * weight for digit, weight in zip(digits, range(count + 1, 1, -1), strict=False)) * 10 % 11 % 10
        )

    return check(9) == digits[9] and check(10) == digits[10]


def _is_dni(text: str) -> bool:
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(text[:8]) % 23] == text[8]


def _is_nir(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return len(digits) == 15 and 97 - int(digits[:13]) % 97 == int(digits[13:])


def _is_persons_mail(text: str) -> bool:
    mailbox, _, domain = text.lower().rpartition("@")
    return mailbox not in ROLES and not domain.endswith(NOBODYS) and not domain.endswith((".png", ".jpg", ".svg"))


def _is_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if text.startswith("+"):
        return 9 <= len(digits) <= 15 and digits[0] != "0"
    digits = digits.removeprefix("1") if len(digits) == 11 else digits
    # North American numbers; toll-free ones are no person's.
    return (
        len(digits) == 10
        and digits[0] > "1"
        and digits[3] > "1"
        and not re.match(r"8(00|33|44|55|66|77|88)|900", digits)
    )


def _is_password(text: str) -> bool:
    value = re.split(r"[:=]", text, maxsplit=1)[1].strip(" \t\"'")
    has_kinds = re.search(r"[A-Za-z]", value) and re.search(r"\d", value)
    return bool(has_kinds) and not re.search(
        r"[<>{}()\[\]$]|\*{3}|xxx|your|example|changeme|placeholder", value, re.IGNORECASE
    )


EDGE, END = r"(?<![\w.@-])", r"(?![\w-])"
PERSONAL = (
    Rule("payment card number", "personal-data", re.compile(r"(?<![\d.,-])\d{4}(?:[ -]?\d{4,6}){2}(?:[ -]?\d{1,5})?(?:[ -]?\d{3})?(?![\d,-]|\.\d)"), _is_card),
    Rule("IBAN", "personal-data", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"), _is_iban),
    Rule("US social security number", "personal-data", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _is_ssn),
    Rule("Brazilian CPF", "personal-data", re.compile(r"(?<!\d)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)"), _is_cpf),
    Rule("Spanish DNI", "personal-data", re.compile(r"(?<![\w-])\d{8}-?[A-HJ-NP-TV-Z](?![\w-])"), lambda text: _is_dni(text.replace("-", ""))),
    Rule("French NIR", "personal-data", re.compile(r"(?<!\d)[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d{2} ?\d{3} ?\d{3} ?\d{2}(?!\d)"), _is_nir),
    Rule("e-mail address", "contact", re.compile(EDGE + r"[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_%+-])?@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}" + r"(?![A-Za-z0-9-])"), _is_persons_mail, ("@",)),
    Rule("telephone number", "contact", re.compile(r"(?<![\w.+/=-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4})(?![\w/-]|\.\d)"), _is_phone),
)  # fmt: skip
SECRETS = (
    Rule("AWS access key", "secret", re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"), hints=("akia", "asia")),
    Rule("private key", "secret", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"), hints=("-----begin",)),
    Rule("GitHub token", "secret", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})"), hints=("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")),
    Rule("Slack token", "secret", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"), hints=("xox",)),
    Rule("Stripe key", "secret", re.compile(r"\b[sr]k_live_[A-Za-z0-9]{16,}"), hints=("k_live_",)),
    Rule("API key", "secret", re.compile(r"(?<![\w-])sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,}"), lambda text: bool(re.search(r"\d", text)), ("sk-",)),
    Rule("Google API key", "secret", re.compile(r"\bAIza[A-Za-z0-9_-]{35}"), hints=("aiza",)),
    Rule("Hugging Face token", "secret", re.compile(r"\bhf_[A-Za-z0-9]{30,}"), hints=("hf_",)),
    Rule("JSON web token", "secret", re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,4000}"), hints=("eyj",)),
    Rule("password", "secret", re.compile(r"(?i)\b(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token)[\"']?\s{0,2}[:=]\s{0,2}[\"']?[^\s\"',;\\]{8,80}"), _is_password, ("passw", "pwd", "secret", "api_key", "api-key", "apikey", "token")),
)  # fmt: skip
RULES = (*PERSONAL, *SECRETS)
# What could be a number of the above, in raw lines.
DIGITS = re.compile(rb"\d(?:[ ().-]{0,2}\d){8}|\d{8}-?[A-Z]")
# Words that are common for other reasons count only when this follows.
FOLLOWS = {
    "sk-": re.compile(rb"[a-z0-9_-]{20}"), "asia": re.compile(rb"[a-z0-9]{16}"), "akia": re.compile(rb"[a-z0-9]{16}"),
    "hf_": re.compile(rb"[a-z0-9]{30}"), "xox": re.compile(rb"[abeoprs]-"), "@": re.compile(rb"[a-z0-9-]+\."),
    **dict.fromkeys(("passw", "pwd", "secret", "api_key", "api-key", "apikey", "token"), re.compile(rb"\w{0,40}[\"'\\]{0,4}\s{0,4}[:=]")),
}  # fmt: skip
HINTS = sorted({hint for rule in RULES for hint in rule.hints})


@dataclass(frozen=True)
class Found:
    """What was found: the rule's name and kind, where in the text, and the text with most of it hidden."""

    name: str
    kind: str
    start: int
    text: str

    @property
    def masked(self) -> str:
        """Enough to find it again and no more: a report must not spread what it warns of."""
        shown = 4 if self.kind == "secret" else 2
        return f"{self.text[:shown]}{'*' * min(8, max(3, len(self.text) - shown))}"


def suspects(block: bytes) -> Iterator[int]:
    """Places in raw lines of JSON at which something may be found; what is found there decides `search`."""
    for match in DIGITS.finditer(block):
        yield match.start()
    lower = block.lower()
    for hint in HINTS:
        word = hint.encode()
        follows = FOLLOWS.get(hint)
        place = lower.find(word)
        while place >= 0:
            if follows is None or follows.match(lower, place + len(word)):
                yield place
            place = lower.find(word, place + 1)


def search(text: str) -> list[Found]:
    """Everything of `RULES` in a text, each place once."""
    lower = text.lower()
    found: list[Found] = []
    for rule in RULES:
        if rule.hints and not any(hint in lower for hint in rule.hints):
            continue
        for match in rule.pattern.finditer(text):
            place = match.start()
            if rule.accepts(match.group()) and not any(one.start <= place < one.start + len(one.text) for one in found):
                is_example = rule.kind == "secret" and "EXAMPLE" in match.group()
                found.append(Found(rule.name, "secret-example" if is_example else rule.kind, place, match.group()))
    return found
