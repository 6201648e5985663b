"""requestMetadataFilters in all their forms."""

import pytest

from outcrop.errors import Invalid
from outcrop.logs import read_filter

CALL = {"team": "maps", "stage": "live"}


@pytest.mark.parametrize(
    ("given", "is_wanted"),
    [
        (None, True), ({}, True), ({"equals": {"team": "maps"}}, True), ({"equals": {"team": "chat"}}, False), ({"equals": {"owner": "maps"}}, False),
        ({"notEquals": {"team": "chat"}}, True), ({"notEquals": {"team": "maps"}}, False), ({"notEquals": {"owner": "maps"}}, True),
        ({"andAll": [{"equals": {"team": "maps"}}, {"equals": {"stage": "live"}}]}, True),
        ({"andAll": [{"equals": {"team": "maps"}}, {"notEquals": {"stage": "live"}}]}, False),
        ({"orAll": [{"equals": {"team": "chat"}}, {"equals": {"stage": "live"}}]}, True),
        ({"orAll": [{"equals": {"team": "chat"}}, {"notEquals": {"stage": "live"}}]}, False),
    ],
)  # fmt: skip
def test_a_filter_says_which_calls_are_meant(given: dict | None, is_wanted: bool) -> None:
    assert read_filter(given)(CALL) is is_wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"equals": {"a": "b"}, "orAll": []}, "exactly one of"), ({"is": {"a": "b"}}, "is is not known"), ({"equals": {"a": "b", "c": "d"}}, "one key with one string"),
        ({"equals": {"a": 1}}, "one key with one string"), ({"andAll": []}, "a list of 1 to 16"), ({"andAll": [{"orAll": []}]}, "andAll.0 must have exactly one of equals"),
        ({"orAll": [{"equals": {}}]}, "orAll.0.equals must be one key"),
    ],
)  # fmt: skip
def test_a_wrong_one_is_refused_by_its_place(given: dict, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        read_filter(given)
