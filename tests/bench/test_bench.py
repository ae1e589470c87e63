"""Benchmarks run, and the page of figures shows what was measured."""

import importlib.util

import pandas as pd
import pytest

from bench import publish, results_file, worlds
from bench.__main__ import MODULES, load
from bench.harness import Figure, number
from zlh_dagster.core.compare import compare

NEEDS_MORE = {"octodns": "octodns"}
CHEAP = ("compare", "octodns", "requests")


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


def test_the_page_shows_the_published_results_and_nothing_else():
    results = results_file.read(results_file.PUBLISHED)
    assert set(results["benchmarks"]) == set(MODULES)
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
