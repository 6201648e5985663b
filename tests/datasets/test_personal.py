"""Personal data and secrets: found where the checksum is right, and not where it is not."""

import pytest

from outcrop.datasets.personal import search, suspects

FOUND = {
    "4111 1111 1111 1111": "payment card number", "4242424242424242": "payment card number", "3782 822463 10005": "payment card number",
    "5555-5555-5555-4444": "payment card number", "DE89 3704 0044 0532 0130 00": "IBAN", "GB82WEST12345698765432": "IBAN",
    "FR14 2004 1010 0505 0001 3M02 606": "IBAN", "NL91ABNA0417164300": "IBAN", "536-22-1234": "US social security number",
    "529.982.247-25": "Brazilian CPF", "12345678Z": "Spanish DNI", "1 85 05 78 006 084 91": "French NIR",
    "maria.lopez@acme-corp.com": "e-mail address", "j_smith+tag@mail.university.edu": "e-mail address",
    "+49 30 901820": "telephone number", "(415) 555-2671": "telephone number", "415-555-2671": "telephone number",
    "+1 415 555 2671": "telephone number", "AKIAQ2W3E4R5T6Y7U8I9": "AWS access key", "ghp_" + "a1B2" * 9: "GitHub token",
    "xoxb-1234567890-abcdef": "Slack token", "sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc": "Stripe key",
    "sk-proj-abcdEFGH1234ijklMNOP5678": "API key", "AIza" + "Sy1" + "a" * 32: "Google API key", "hf_" + "aB" * 17: "Hugging Face token",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN": "JSON web token",
    "-----BEGIN RSA PRIVATE KEY-----": "private key", "password: hunter2xyz9": "password", 'api_key = "k3yK3yk3y12"': "password",
}  # fmt: skip
NOTHING = [
    "4111 1111 1111 1112", "1234 5678 9012 3456", "0000 0000 0000 0000", "DE89 3704 0044 0532 0130 01", "ABCD1234EFGH5678IJKL",
    "000-12-3456", "666-12-3456", "912-34-5678", "536-00-1234", "529.982.247-26", "111.111.111-11", "12345678A",
    "user@example.com", "info@acme-corp.com", "someone@localhost", "logo@2x.png", "1-800-555-0199", "2019-2020", "1,234,567,890",
    "10.0.0.1", "version 1.2.3.4", "3.14159265358979", "password: <your password>", "password: ********", "the secret: courage",
    "token = ${TOKEN}", "AKIA is a prefix", "sk-learn is a library", "risk-averse-and-careful-people", "2023-01-15 12:30:45",
    "call 911", "ISBN 978-3-16-148410-0", "0.123456789012345", "1 2 3 4 5 6 7 8 9 10 11 12 13",
]  # fmt: skip


@pytest.mark.parametrize("text", FOUND)
def test_it_is_found_and_hidden_in_the_report(text: str) -> None:
    (found,) = search(f"It says {text} here.")
    assert found.name == FOUND[text]
    assert text not in found.masked
    assert found.kind in ("personal-data", "contact", "secret")


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_alike_is_not(text: str) -> None:
    assert search(f"It says {text} here.") == []


def test_a_documented_example_is_called_one() -> None:
    (found,) = search("export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE")
    assert found.kind == "secret-example"


@pytest.mark.parametrize("text", FOUND)
def test_the_quick_look_at_raw_lines_misses_nothing(text: str) -> None:
    line = f'{{"prompt": "It says {text} here."}}'.encode()
    assert list(suspects(line))
