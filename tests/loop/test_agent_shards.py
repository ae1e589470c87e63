"""Agents of a fleet that is too large for one process."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from tests.harness import Loop, titles
from zlh_dagster.core.policy import AGENTS
from zlh_dagster.core.snapshot import Outcome, require_one_fresh_tick
from zlh_dagster.jobs.agent_shards import PROBE_AGENTS
from zlh_dagster.jobs.retention import retain
from zlh_dagster.resources.observe import observe_payloads, observe_shard
from zlh_dagster.resources.shards import Shard, merge, shards_for
from zlh_dagster.resources.ticks import load_tick

NOW = datetime.now(timezone.utc)


@pytest.fixture
def sharded(platform, instance):
    """Eight game servers and a developer's, three at the most in one run."""
    return Loop(platform.services(ZLH_AGENT_SHARD_SIZE="3"), instance)


def asked(platform) -> list[str]:
    entries = platform.sandbox.edge.journal.entries()
    return [e.path for e in entries if e.surface == "agents" and e.path == "/health"]


def agents_of_the_newest_tick(loop):
    store = loop.services.snapshots
    return store.read(AGENTS, store.newest_first()[0])


@pytest.mark.parametrize(
    ("rows", "size", "number"), [(0, 3, 0), (3, 3, 0), (4, 3, 2), (9, 3, 3), (10, 3, 4)]
)
def test_a_fleet_is_cut_only_when_it_is_too_large(rows, size, number):
    assert len(shards_for(rows, size)) == number


def test_the_shards_of_a_fleet_are_all_of_it_once(platform):
    rows = observe_payloads(platform.services(), "t").rows
    parts = [shard.part(rows) for shard in shards_for(len(rows), 3)]
    assert sorted(vmid for part in parts for vmid in part["vmid"]) == sorted(rows["vmid"])
    assert max(len(part) for part in parts) <= 3
    assert [Shard.parse(shard.name) for shard in shards_for(7, 3)] == shards_for(7, 3)
    with pytest.raises(ValueError, match="names no shard"):
        Shard.parse("003-of-003")


def test_a_small_fleet_is_asked_in_the_tick_and_has_no_partitions(platform, loop, instance):
    assert loop.minute() == []
    assert agents_of_the_newest_tick(loop).observed
    assert instance.get_dynamic_partitions("agent_shards") == []
    assert platform.services().agent_rounds.ticks() == {}


def test_a_tick_takes_the_answers_of_the_round_before_it(platform, sharded, instance):
    assert sharded.observe().success
    first = agents_of_the_newest_tick(sharded)
    assert (first.outcome, len(first.rows)) == (Outcome.UNOBSERVED, 0)
    assert "begun" in first.reason
    assert asked(platform) == []

    requests = sharded.next_round()
    assert len(requests) == 3
    names = {r.partition_key for r in requests}
    assert names == {"000-of-003", "001-of-003", "002-of-003"}
    assert set(instance.get_dynamic_partitions("agent_shards")) == names
    sharded.shards(requests)
    assert len(asked(platform)) == 9

    assert sharded.observe().success
    assert len(asked(platform)) == 9
    tick = load_tick(sharded.services.snapshots, sharded.services.snapshots.newest_first()[0])
    assert tick.agents.observed
    assert list(tick.agents.rows["vmid"]) == [*range(5000, 5008), 6000]
    assert set(tick.agents.rows["answer"]) == {"healthy"}
    assert tick.agents.requests == 9
    require_one_fresh_tick(tick.snapshots, now=datetime.now(timezone.utc))


def test_what_a_shard_finds_is_told_like_what_a_tick_finds(platform, sharded):
    """A silent agent in a running container, after as many looks as ever."""
    platform.sandbox.edge.containers.change_agent(5003, mode="refused")
    for _ in range(8):
        sharded.minute()
    assert titles(platform.sandbox) == ["Server 5003: agent offline"]


def test_a_round_of_which_a_shard_is_missing_is_not_taken(platform, sharded):
    assert sharded.observe().success
    requests = sharded.next_round()
    sharded.shards(requests[:-1])
    assert sharded.observe().success
    seen = agents_of_the_newest_tick(sharded)
    assert seen.outcome is Outcome.UNOBSERVED
    assert "002-of-003" in seen.reason


def test_an_old_round_is_not_taken(platform):
    services = platform.services(ZLH_AGENT_SHARD_SIZE="3")
    payloads = observe_payloads(services, "round")
    for shard in shards_for(9, 3):
        services.agent_rounds.write(observe_shard(services, payloads, shard))
    now = datetime.now(timezone.utc)
    assert merge(services.agent_rounds, "t", now=now).observed
    late = merge(services.agent_rounds, "t", now=now + timedelta(seconds=91))
    assert (late.outcome, len(late.rows)) == (Outcome.UNOBSERVED, 0)
    assert "older than 90 s" in late.reason


def test_one_unobserved_shard_is_never_an_empty_one(platform):
    """The database goes away between the tick and the shard's run, say."""
    services = platform.services(ZLH_AGENT_SHARD_SIZE="3")
    payloads = observe_payloads(services, "round")
    taken = [observe_shard(services, payloads, shard) for shard in shards_for(9, 3)]
    for snapshot in taken[:-1]:
        services.agent_rounds.write(snapshot)
    lost = type(taken[-1])(
        source=taken[-1].source,
        tick="round",
        taken_at=taken[-1].taken_at,
        outcome=Outcome.UNOBSERVED,
        rows=taken[-1].rows.head(0),
        reason="too many open files",
    )
    services.agent_rounds.write(lost)
    seen = merge(services.agent_rounds, "t", now=datetime.now(timezone.utc))
    assert (seen.outcome, len(seen.rows)) == (Outcome.UNOBSERVED, 0)
    assert "too many open files" in seen.reason


def test_a_fleet_that_grows_has_other_partitions(platform, sharded, instance):
    assert sharded.observe().success
    sharded.next_round()
    larger = Loop(platform.services(ZLH_AGENT_SHARD_SIZE="2"), instance)
    assert larger.observe().success
    larger.next_round()
    names = set(instance.get_dynamic_partitions("agent_shards"))
    assert names == {f"00{n}-of-005" for n in range(5)}


def test_no_second_round_is_asked_for_while_one_is_under_way(platform, sharded, instance):
    job = sharded.definitions.resolve_job_def(PROBE_AGENTS)
    assert sharded.observe().success
    [request, *_] = sharded.next_round()
    instance.create_run_for_job(job, run_config=request.run_config, tags=request.tags)
    assert sharded.observe().success
    assert sharded.next_round() == []


def test_old_rounds_are_deleted_and_ticks_are_not_taken_for_rounds(platform, sharded, instance):
    sharded.minute()
    sharded.minute()
    services = sharded.services
    assert len(services.agent_rounds.ticks()) == 2
    assert len(services.snapshots.ticks()) == 2
    later = datetime.now(timezone.utc) + timedelta(hours=2)
    done = retain(instance, services, now=later)
    assert done.problems == []
    assert done.counts["agent_rounds"] == 2
    assert services.agent_rounds.ticks() == {}
    assert len(services.snapshots.ticks()) == 2


def test_who_was_not_well_in_the_round_is_asked_again_by_the_tick(platform, sharded):
    """A restart that fell between the two is no silent agent."""
    assert sharded.observe().success
    platform.sandbox.edge.containers.change_agent(5003, mode="refused")
    sharded.shards(sharded.next_round())
    platform.sandbox.edge.containers.change_agent(5003, mode="healthy")
    platform.sandbox.edge.journal.clear()
    assert sharded.observe().success
    assert len(asked(platform)) == 1
    seen = agents_of_the_newest_tick(sharded)
    assert set(seen.rows["answer"]) == {"healthy"}
    assert len(seen.rows) == 9
    assert seen.requests == 10


def test_of_a_fleet_that_is_not_well_no_more_than_a_shard_is_asked_again(platform, sharded):
    assert sharded.observe().success
    for vmid in range(5000, 5008):
        platform.sandbox.edge.containers.change_agent(vmid, mode="refused")
    sharded.shards(sharded.next_round())
    assert sharded.observe().success
    answers = agents_of_the_newest_tick(sharded).rows["answer"].value_counts()
    assert (answers["silent"], answers["unknown"], answers["healthy"]) == (3, 5, 1)


def aged(snapshot, seconds, **values):
    return replace(snapshot, taken_at=snapshot.taken_at - timedelta(seconds=seconds), **values)


def test_a_round_is_as_old_as_its_first_shard_and_does_not_hide_a_newer_one(platform):
    services = platform.services(ZLH_AGENT_SHARD_SIZE="3")
    payloads = observe_payloads(services, "new")
    taken = [observe_shard(services, payloads, shard) for shard in shards_for(9, 3)]
    services.agent_rounds.write(aged(taken[0], 40))
    for snapshot in taken[1:]:
        services.agent_rounds.write(snapshot)
    now = datetime.now(timezone.utc)
    merged = merge(services.agent_rounds, "t", now=now)
    assert merged.taken_at == aged(taken[0], 40).taken_at
    assert not merge(services.agent_rounds, "t", now=now + timedelta(seconds=51)).observed
    # A late shard of an older round is written last.
    for snapshot in taken:
        services.agent_rounds.write(aged(snapshot, 300, tick="old"))
    assert merge(services.agent_rounds, "t", now=now).taken_at == merged.taken_at


def test_a_round_from_before_a_repair_does_not_make_the_tick_old(platform, sharded):
    """What was repaired meanwhile is seen by the tick itself."""
    sharded.minute()
    sharded.minute()
    store = sharded.services.snapshots
    tick = load_tick(store, store.newest_first()[0])
    assert tick.agents.taken_at < tick.payloads.taken_at
    assert tick.taken_at > tick.agents.taken_at
