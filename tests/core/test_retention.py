"""Which runs go: the pure decision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zlh_dagster.core.retention import Ended


def ended(runs, *, routine="", eventful="", expired=""):
    return Ended(
        runs=list(runs), routine=set(routine), eventful=set(eventful), expired=set(expired)
    )


@pytest.mark.parametrize(
    ("case", "deleted"),
    [
        (ended(""), ""),
        (ended("cba", routine="abc"), "abc"),
        (ended("cba", routine="abc", eventful="b"), "ac"),
        (ended("cba", routine="b"), "b"),
        (ended("cba", eventful="abc", expired="a"), "a"),
        (ended("cba", routine="abc", eventful="abc", expired="ab"), "ab"),
        (ended("ba", routine="a", eventful="z", expired="yz"), "a"),
    ],
)
def test_uneventful_runs_go_and_others_when_they_are_expired(case, deleted):
    assert "".join(case.to_delete()) == deleted


def test_of_eventful_runs_the_newest_are_kept_up_to_a_number():
    case = ended("fedcba", routine="ace", eventful="c")
    assert "".join(case.to_delete(most=2)) == "abce"[:1] + "bce"
    assert "".join(case.to_delete(most=4)) == "ae"


some = st.sets(st.sampled_from("abcdefgh"))


@given(runs=st.permutations("abcdef"), routine=some, eventful=some, expired=some)
def test_what_is_left_is_bounded_and_nothing_more_goes_the_second_time(
    runs, routine, eventful, expired
):
    most = 3
    case = ended(runs, routine=routine, eventful=eventful, expired=expired)
    gone = case.to_delete(most=most)
    assert set(gone) <= set(runs)
    left = [run for run in runs if run not in gone]
    assert len(left) <= most
    assert not set(left) & expired
    assert not set(left) & (routine - eventful)
    again = ended(left, routine=routine, eventful=eventful, expired=expired)
    assert again.to_delete(most=most) == []
