"""The documents say what the program does, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

from zlh_dagster.core.model import Action, DriftKind
from zlh_dagster.resources.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = {name.upper() for name in Settings.model_fields}


def test_every_setting_is_documented_once_with_its_default():
    rows = re.findall(
        r"^\| `([A-Z0-9_]+)` \| (.*?) \|", (ROOT / "docs/settings.md").read_text(), re.M
    )
    assert sorted(name for name, _ in rows) == sorted(NAMES)
    for name, default in rows:
        value = Settings.model_fields[name.lower()].default
        if isinstance(value, (int, float)):
            assert default == f"`{value}`", name


def test_the_example_settings_exist():
    named = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.M)
    assert named
    assert set(named) <= NAMES


def test_every_action_and_kind_of_drift_is_documented():
    text = "".join(page.read_text() for page in PAGES)
    for word in (*Action, *DriftKind):
        assert f"`{word.value}`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_law_names_tests_that_exist():
    text = (ROOT / "docs/safety.md").read_text()
    laws = re.findall(r"^\| (\d+)\. ", text, re.M)
    assert [int(law) for law in laws] == list(range(1, 14))
    for name in re.findall(r"`(test_\d\d_\w+\.py)`", text):
        assert (ROOT / "tests/laws" / name).exists(), name
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


def test_every_decision_has_a_status():
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert decisions
    for page in decisions:
        assert "Status: " in page.read_text(), page.name
