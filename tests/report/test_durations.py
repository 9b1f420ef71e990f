"""Times in words, as messages and pages have them."""

import pytest

from grokcore.report.durations import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3569, "59 min"),
        (3600, "1 h 00 min"),
        (11_100, "3 h 05 min"),
    ],
)
def test_a_time_is_written_in_the_unit_that_a_person_would_take(seconds: float, words: str) -> None:
    assert duration(seconds) == words
