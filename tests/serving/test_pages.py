"""Pages are shared by sequences that begin alike, and by no others; none is lost, and none is used twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.serving.engines.pages import PLACES, Line, Pages


def tokens(length: int, last: int = 0) -> list[int]:
    return [*range(length - 1), last]


def computed(pages: Pages, asked: list[int], adapter: str | None = None) -> Line:
    line = pages.begin(asked, adapter, len(asked))
    assert line is not None
    pages.extend(line, len(asked))
    pages.computed(line, len(asked))
    return line


def test_what_begins_alike_is_computed_once() -> None:
    pages = Pages(20)
    first = computed(pages, tokens(100, 1))
    second = pages.begin(tokens(100, 2), None, 120)
    assert second is not None
    assert second.length == 3 * PLACES
    assert second.pages == first.pages[:3]
    longer = pages.begin(tokens(96), None, 96)
    assert longer is not None
    assert longer.length == 2 * PLACES, "the last token is left to be computed"


def test_another_adapter_shares_nothing() -> None:
    pages = Pages(20)
    computed(pages, tokens(100), "one")
    line = pages.begin(tokens(100), "other", 100)
    assert line is not None
    assert line.length == 0


def test_a_page_whose_beginning_differs_is_another_page() -> None:
    pages = Pages(20)
    computed(pages, [0] * 32 + [7] * 33)
    line = pages.begin([1] * 32 + [7] * 33, None, 65)
    assert line is not None
    assert line.length == 0


def test_the_longest_unused_makes_room() -> None:
    pages = Pages(8)
    for begin in (0, 1000):
        pages.end(computed(pages, [begin + place for place in range(65)]))
    pages.end(computed(pages, list(range(65))))  # used again
    pages.end(computed(pages, [2000 + place for place in range(190)]))
    kept = pages.begin(list(range(65)), None, 65)
    gone = pages.begin([1000 + place for place in range(65)], None, 65)
    assert kept is not None
    assert kept.length == 64
    assert gone is not None
    assert gone.length == 0


def test_what_never_fits_is_refused_and_what_does_not_fit_now_waits() -> None:
    pages = Pages(8)
    with pytest.raises(ValueError, match="do not fit the cache of 256"):
        pages.begin([1], None, 257)
    line = pages.begin([1], None, 200)
    assert line is not None
    assert pages.begin([2], None, 100) is None
    pages.end(line)
    assert pages.begin([2], None, 100) is not None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 150), st.integers(0, 5)), max_size=40))
def test_no_page_is_lost_or_written_by_two(steps: list[tuple[int, int, int]]) -> None:
    pages = Pages(12)
    lines: list[Line] = []
    for kind, length, choice in steps:
        if kind < 2:
            line = pages.begin([kind] * length, None, length + 20)
            if line is not None:
                lines.append(line)
                shared = set(line.pages)
                pages.extend(line, length)
                own = set(line.pages) - shared
                assert not own & {page for other in lines[:-1] for page in other.pages}
                pages.computed(line, length)
        elif lines:
            pages.end(lines.pop(choice % len(lines)))
    for line in lines:
        pages.end(line)
    fresh = pages.begin([9], None, 12 * PLACES)
    assert fresh is not None
    pages.extend(fresh, 12 * PLACES)
    assert sorted(fresh.pages) == list(range(12))
