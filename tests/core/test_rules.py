"""The policy is whole, and says what the code does."""

import pytest

from zlh_dagster.core.guards import NAMED_BY_OPERATOR, level_refusal
from zlh_dagster.core.model import EDGE_ACTIONS, OPERATION_ACTIONS, Action
from zlh_dagster.core.policy import action_for
from zlh_dagster.core.rules import POLICY, RULES, Kind, Rule

by_kind = pytest.mark.parametrize("rule", POLICY, ids=lambda rule: rule.kind.value)


def test_each_kind_has_exactly_one_row():
    assert sorted(rule.kind.value for rule in POLICY) == sorted(kind.value for kind in Kind)
    assert set(RULES) == set(Kind)


@by_kind
def test_a_row_says_something_in_every_column(rule: Rule):
    assert rule.found
    assert rule.guards
    assert rule.does
    assert "|" not in rule.found + rule.guards + rule.does, "it becomes a table in the documents"


@by_kind
def test_what_a_row_repairs_is_built_and_of_its_level(rule: Rule):
    if rule.repairs:
        assert rule.action is not None
        assert rule.action.built
        assert rule.action.level == rule.level == 1


@by_kind
def test_a_row_above_level_0_is_the_level_of_its_action(rule: Rule):
    if rule.level:
        assert rule.action is not None
        assert rule.action.level == rule.level


@by_kind
def test_what_is_only_named_is_never_carried_out(rule: Rule):
    if rule.action is not None and not rule.action.built:
        assert rule.level != 1
        assert rule.guards.startswith("never carried out")


@by_kind
def test_no_row_destroys_anything(rule: Rule):
    assert rule.level <= NAMED_BY_OPERATOR
    assert rule.action is None or rule.action.level <= NAMED_BY_OPERATOR


def test_every_action_that_is_built_is_in_the_policy_or_is_the_revert():
    """Of the edge, one row may stand for the wider action that the policy chooses."""
    named = {rule.action for rule in POLICY if rule.repairs or rule.level == NAMED_BY_OPERATOR}
    wider = {action_for(Action.EDGE_REPUBLISH.surfaces)}
    built = {action for action in Action if action.built}
    assert built - named - wider == {Action.REVERT}


def test_level_3_is_names_only():
    level3 = [action for action in Action if action.level == 3]
    assert len(level3) == 3
    assert not any(action.built for action in level3)
    assert not any(action.surfaces for action in level3)


def test_what_is_built_at_level_1_is_what_needs_no_switch():
    free = {action for action in Action if level_refusal(action, ()) is None}
    assert free == EDGE_ACTIONS | OPERATION_ACTIONS | {Action.REVERT}


@pytest.mark.parametrize("action", list(Action))
def test_every_action_has_a_level(action):
    assert action.level in (1, 2, 3)
