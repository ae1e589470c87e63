"""Of several deployments on one Redis one leads; the others stand by and take over."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from zlh_dagster.resources.leader import KEY, Leader, Leadership, deployment_id
from zlh_dagster.resources.redis import RedisUnavailable, connect


@pytest.fixture
def redis(redis_url):
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def deployment(redis, tmp_path):
    """Makes deployments, each with a state directory of its own."""

    def make(name, seconds=60.0):
        return Leadership(redis, home=tmp_path / name, seconds=seconds)

    return make


def test_the_first_leads_and_the_second_stands_by_and_says_who_leads(deployment, tmp_path):
    one, two = deployment("one"), deployment("two")
    assert one.take() is None
    held = two.take()
    assert str(tmp_path / "one") in held.name
    assert abs(time.time() - held.since) < 5
    assert one.take() is None
    assert one.current() == two.current() == held


def test_nobody_leads_before_anybody_has_looked(deployment):
    assert deployment("one").current() is None


def test_the_lead_is_the_deployments_and_not_the_processs(deployment):
    """A restarted daemon goes on leading."""
    assert deployment("one").take() is None
    assert deployment("one").take() is None


def test_each_look_keeps_the_lead_for_its_whole_time_again(deployment, redis):
    one = deployment("one")
    one.take()
    redis.pexpire(KEY, 1000)
    one.take()
    assert redis.pttl(KEY) > 59_000
    deployment("two").take()
    assert redis.pttl(KEY) <= 60_000


def test_a_leader_that_is_gone_is_replaced_when_its_time_is_over(deployment):
    one, two = deployment("one", seconds=0.05), deployment("two")
    one.take()
    assert two.take() is not None
    time.sleep(0.08)
    assert two.take() is None
    assert one.take() is not None, "the one that slept stands by"


def test_a_leader_that_leaves_is_replaced_at_once(deployment):
    one, two = deployment("one"), deployment("two")
    one.take()
    one.release()
    assert two.take() is None


def test_a_standby_that_leaves_takes_nothing_with_it(deployment):
    one, two = deployment("one"), deployment("two")
    one.take()
    two.release()
    assert two.take() is not None
    deployment("three").release()
    assert one.take() is None


@pytest.mark.parametrize("text", ["{broken", "[]", "5", "null", '"text"', "{}", '{"id": 5}'])
def test_what_cannot_be_read_is_somebody_elses_until_its_time_is_over(deployment, redis, text):
    one = deployment("one")
    redis.set(KEY, text, px=60_000)
    assert one.take() == one.current() == Leader("unknown", 0.0)
    one.release()
    assert redis.get(KEY) == text


def test_a_lead_without_an_end_gets_one_so_that_somebody_leads_again(deployment, redis):
    one = deployment("one", seconds=0.3)
    for overwrite in (lambda: redis.set(KEY, "text"), lambda: redis.rpush(KEY, "a", "list")):
        overwrite()
        assert one.take() == one.current() == Leader("unknown", 0.0)
        one.release()
        assert 0 < redis.pttl(KEY) <= 300
        time.sleep(0.35)
        assert one.take() is None
        one.release()


def test_without_redis_nobody_is_known_to_lead(tmp_path):
    with connect("unix:///nonexistent/redis.sock") as client:
        lost = Leadership(client, home=tmp_path, seconds=60)
        for ask in (lost.take, lost.release, lost.current):
            with pytest.raises(RedisUnavailable, match="who leads is not known"):
                ask()


# --- identity ------------------------------------------------------------------------------------


def test_an_identity_is_made_once_and_kept(tmp_path):
    first = deployment_id(tmp_path / "home", None)
    assert len(first) == 32
    assert deployment_id(tmp_path / "home", None) == first
    assert deployment_id(tmp_path / "other", None) != first
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["deployment-id"]


def test_processes_that_are_first_at_once_get_one_identity(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        made = set(pool.map(lambda home: deployment_id(home, None), [tmp_path / "home"] * 64))
    assert len(made) == 1
    assert len(list((tmp_path / "home").iterdir())) == 1


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_identity_is_not_shared_by_two_deployments(deployment, tmp_path, text):
    """A disk that was full left an empty file in each: both would lead."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "deployment-id").write_text(text)
    assert deployment("one").take() is None
    assert deployment("two").take() is not None


def test_what_stands_in_redis_is_no_secret(deployment, redis):
    deployment("one").take()
    assert set(json.loads(redis.get(KEY))) == {"id", "name", "since", "mode"}
