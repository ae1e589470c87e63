"""Benchmarks run, and the page of figures shows what was measured."""

import importlib.util

import pandas as pd
import pytest

from bench import publish, results_file, worlds
from bench.__main__ import MODULES, load
from bench.harness import Figure, Result, number
from bench.loop_rounds import summary
from zlh_dagster.core.compare import compare

NEEDS_MORE = {"octodns": "octodns"}
CHEAP = ("compare", "octodns", "requests")
WHOLE_STACK = [name for name in MODULES if name not in CHEAP]


def skip_without_its_package(name):
    package = NEEDS_MORE.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is installed by `make bench` only")


@pytest.mark.parametrize("name", MODULES)
def test_each_benchmark_can_be_loaded_by_its_name(name):
    skip_without_its_package(name)
    assert load(name).name == name


@pytest.mark.parametrize("name", CHEAP)
def test_the_cheap_ones_run_at_their_smallest_size(name):
    skip_without_its_package(name)
    figures = load(name).run(True).figures
    assert figures
    assert len({figure.name for figure in figures}) == len(figures)
    assert all(figure.value > 0 for figure in figures)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WHOLE_STACK)
def test_those_of_a_whole_deployment_run_at_their_smallest_size(name):
    figures = load(name).run(True).figures
    assert len({figure.name for figure in figures}) == len(figures)


def test_the_page_shows_the_published_results_and_nothing_else():
    results = results_file.read(results_file.PUBLISHED)
    assert results_file.mixed(results, MODULES) is None
    assert publish.section(publish.PAGE.read_text()) == publish.table(results)


def test_what_is_made_to_drift_is_what_is_found():
    world = worlds.listing(500, drift=0.01)
    found = pd.concat([world.cloudflare, world.technitium], ignore_index=True)
    kinds = compare(world.desired, found)["kind"].value_counts()
    assert set(kinds.index) == set(worlds.KINDS)
    assert kinds.sum() == world.drifting == 20


def test_an_aim_is_met_on_its_own_side():
    assert Figure("a", 1.0, "s", 1.5).met
    assert not Figure("a", 2.0, "s", 1.5).met
    assert Figure("a", 60.0, "times", 50.0, at_least=True).met
    assert Figure("a", 1.0, "s").met is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (12.34, "12.3"), (1234.5, "1,234"), (4.0, "4")]
)
def test_numbers_show_what_counts(value, text):
    assert number(value) == text


def measured(run, when):
    return {"run": run, "measured_at": when}


@pytest.mark.parametrize(
    ("benchmarks", "problem"),
    [
        ({"a": measured("1", "10:00"), "b": measured("1", "10:05")}, None),
        ({"a": measured("1", "10:00")}, "not measured: b"),
        (
            {"a": measured("1", "10:00"), "b": measured("2", "10:05")},
            "of another run than the newest: a",
        ),
    ],
)
def test_figures_of_two_runs_are_not_published_side_by_side(benchmarks, problem):
    assert results_file.mixed({"benchmarks": benchmarks}, ["a", "b"]) == problem


def test_results_of_a_call_are_kept_under_its_name(tmp_path):
    path = tmp_path / "latest.json"
    for name, run in (("a", "1"), ("b", "1"), ("a", "2")):
        result = Result([Figure(name, 1.0, "s")])
        results_file.keep(name, result, seconds=1.0, run=run, path=path)
    benchmarks = results_file.read(path)["benchmarks"]
    assert {name: one["run"] for name, one in benchmarks.items()} == {"a": "2", "b": "1"}


def test_a_tick_costs_what_minutes_with_it_cost_more_than_minutes_without():
    minutes = {"repair": [2.0, 1.0, 6.0], "with_tick": [4.0, 4.4], "without": [3.0, 3.2]}
    said = summary(minutes)
    assert said["tick_processor"] == pytest.approx(1.1)
    assert said["tick_give_or_take"] == pytest.approx(0.2236, abs=1e-4)
    assert said["idle_share"] == pytest.approx(3.1 / 60)
    assert (said["repair_median"], said["repair_worst"]) == (2.0, 6.0)
    alone = summary({"repair": [1.0], "with_tick": [4.0], "without": [3.0]})
    assert alone["tick_give_or_take"] is None
