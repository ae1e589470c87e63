"""Times as text: kept whole, read back, and said in words."""

from datetime import datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zlh_dagster.core.times import age_seconds, ages, instant, iso, words

NOW = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
moments = st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(2199, 1, 1), timezones=st.just(timezone.utc)
)


@settings(max_examples=100, deadline=None)
@given(moments)
def test_a_time_comes_back_to_the_microsecond(moment):
    assert instant(iso(moment)) == moment
    assert instant(iso(moment)).tzinfo is not None


@settings(max_examples=100, deadline=None)
@given(st.lists(moments, min_size=1, max_size=5))
def test_texts_sort_as_their_times_do(given_moments):
    texts = [iso(moment) for moment in given_moments]
    assert sorted(texts) == [iso(moment) for moment in sorted(given_moments)]


def test_another_zone_is_the_same_moment():
    east = datetime(2030, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert iso(east) == "2030-01-01T12:00:00.000000+00:00"


@pytest.mark.parametrize("value", ["", "yesterday", "2030-13-01", 5, "2030-01-01T12:00:00"])
def test_what_is_no_text_of_a_time_is_an_error_and_has_no_age(value):
    """Nor is a time without a zone, which could be anybody's."""
    with pytest.raises(ValueError, match=r".+"):
        instant(value)
    assert age_seconds(value, NOW) is None


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT])
def test_a_null_of_any_kind_is_no_time(value):
    assert instant(value) is None
    assert age_seconds(value, NOW) is None
    assert iso(None) is None


def test_a_time_without_a_zone_is_not_written():
    with pytest.raises(ValueError, match="time zone"):
        iso(datetime(2030, 1, 1))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2030-01-01T11:59:00+00:00", 60),
        ("2030-01-01T12:00:00.500000+00:00", -0.5),
        ("2030-01-01T12:00:00+02:00", 7200),
    ],
)
def test_an_age_is_counted_from_the_moment(text, seconds):
    assert age_seconds(text, NOW) == seconds
    assert list(ages(pd.Series([text], dtype=object), NOW)) == [seconds]


@pytest.mark.parametrize("column", [[], [None], [None, None], ["rubbish"], [float("nan")]])
def test_a_column_without_times_has_no_ages(column):
    assert ages(pd.Series(column, dtype=object), NOW).isna().all()


def test_a_column_is_read_as_each_of_its_texts_is():
    column = ["2030-01-01T11:00:00.000001+00:00", None, "2030-01-01T11:00:00+00:00", "x"]
    found = ages(pd.Series(column, dtype=object), NOW)
    assert [None if pd.isna(age) else age for age in found] == [
        age_seconds(text, NOW) for text in column
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (40.4, "40 s"),
        (89, "89 s"),
        (90, "2 min"),
        (12 * 60, "12 min"),
        (59 * 60 + 29, "59 min"),
        (59 * 60 + 31, "1 h"),
        (3600, "1 h"),
        (3 * 3600 + 20 * 60, "3 h 20 min"),
        (47 * 3600 + 59 * 60, "47 h 59 min"),
        (48 * 3600, "2 days"),
        (51 * 3600, "2 days 3 h"),
        (51 * 3600 + 1800, "2 days 3 h"),
        (365 * 86400, "365 days"),
    ],
)
def test_durations_are_said_in_words(seconds, said):
    assert words(seconds) == said


@settings(max_examples=200, deadline=None)
@given(st.floats(min_value=0, max_value=1e8))
def test_no_duration_says_sixty_minutes_or_one_days(seconds):
    said = words(seconds)
    assert "60 min" not in said
    assert not said.startswith("1 days")
    assert "24 h" not in said.partition("days")[2]
