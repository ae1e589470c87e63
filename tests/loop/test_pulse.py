"""The dead man's switch, and who says whether the loop works."""

import fcntl
import threading
import time

import httpx
import pytest

from tests.harness import Loop
from tests.resources.servers import dripping, dripping_head, serving
from zlh_dagster.cli.health import GOOD_SECONDS, STALL_SECONDS, Health, Watch, look, tell
from zlh_dagster.cli.home import claim
from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.launch import REPAIR_RUN_FAILED
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources import pulse
from zlh_dagster.resources.leader import KEY as LEADER
from zlh_dagster.resources.pulse import HEARTBEAT, call_heartbeat


@pytest.fixture
def beats(sandbox):
    """How many calls the dead man's switch has had; one is made in the background."""

    def count() -> int:
        for thread in threading.enumerate():
            if thread.name == HEARTBEAT:
                thread.join()
        return sandbox.edge.heartbeat.beats.count

    return count


def test_the_heartbeat_is_called_for_a_good_tick_and_for_no_other(loop, sandbox, beats):
    loop.minute()
    assert beats() == 1
    loop.judge()
    assert beats() == 1, "a tick counts once"
    sandbox.edge.faults.switch_on("cloudflare", "html")
    sandbox.edge.faults.switch_on("technitium", "html")
    loop.minute()
    assert beats() == 2, "one provider that is away is no stalled loop"


def test_no_heartbeat_while_the_database_is_away(platform, instance, beats):
    loop = Loop(platform.services(), instance)
    loop.minute()
    last = loop.services.pulse.last()
    assert (last is not None, beats()) == (True, 1)
    blind = Loop(platform.services(ZLH_DATABASE_URL="sqlite:////nonexistent/platform.db"), instance)
    for _ in range(3):
        blind.observe()
        blind.judge()
    assert beats() == 1, "by the good tick before"
    assert blind.services.pulse.last() == last


def test_no_heartbeat_for_a_tick_that_nobody_judged(loop, beats):
    """The sensor hangs: ticks alone are not enough."""
    loop.minute()
    loop.observe()
    loop.observe()
    assert beats() == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: httpx.Response(500),
        lambda request: (_ for _ in ()).throw(httpx.ConnectTimeout("to https://hc/secret-part")),
        lambda request: (_ for _ in ()).throw(httpx.InvalidURL("https://hc/secret-part")),
    ],
)
def test_a_heartbeat_that_fails_is_logged_without_its_address(answer, caplog):
    transport = httpx.MockTransport(answer)
    assert not call_heartbeat("https://hc.example.com/secret-part", transport=transport)
    assert "ZLH_HEARTBEAT_URL" in caplog.text
    assert "secret-part" not in caplog.text


@pytest.mark.parametrize(("does", "taken"), [(dripping, True), (dripping_head, False)])
def test_a_heartbeat_that_drips_is_not_waited_for(does, taken, monkeypatch):
    monkeypatch.setattr(pulse, "TIMEOUT", 0.2)
    with serving(does) as port:
        started = time.monotonic()
        assert call_heartbeat(f"http://127.0.0.1:{port}/x") is taken
        assert time.monotonic() - started < 1


@pytest.mark.usefixtures("daemon")
def test_health_of_a_loop_that_works(loop):
    loop.minute()
    found = look(loop.services)
    assert (found.healthy, found.role) == (True, "leading")
    assert 0 <= found.last_good_tick_age < 60
    assert "healthy: leading" in found.line()


def test_without_a_daemon_nothing_is_healthy_however_fresh_the_last_tick(loop, platform):
    loop.minute()
    [problem] = look(loop.services).problems
    assert "no daemon runs" in problem
    with claim(platform.home, fcntl.LOCK_EX, "daemon"):
        assert look(loop.services).healthy
    assert not look(loop.services).healthy


def test_the_daemon_of_a_deployment_on_several_machines_may_be_on_another(platform, instance):
    loop = Loop(platform.services(ZLH_DEPLOYMENT="both"), instance)
    loop.minute()
    assert look(loop.services).healthy


def test_health_of_a_standby_is_good_too(loop, platform, instance, tmp_path):
    loop.minute()
    other = Loop(platform.services(DAGSTER_HOME=str(tmp_path / "other")), instance)
    other.minute()
    with claim(tmp_path / "other", fcntl.LOCK_EX, "daemon"):
        found = look(other.services)
    assert (found.healthy, found.role) == (True, "standby")
    assert str(platform.home) in found.leader


@pytest.mark.parametrize("age", [GOOD_SECONDS + 1, -GOOD_SECONDS - 1])
def test_an_old_tick_and_a_clock_that_jumped_are_not_healthy(loop, age):
    loop.minute()
    found = look(loop.services, now=time.time() + age)
    assert not found.healthy
    assert "last good tick was 3 min ago" in found.line()


def test_what_is_missing_is_named(platform, loop):
    services = loop.services
    [never] = look(services).problems
    assert never == f"no controller has run yet with DAGSTER_HOME {platform.home}"
    assert not platform.home.exists()
    assert services.deployment
    [nothing_yet, nobody, no_daemon] = look(services).problems
    assert nothing_yet == "no good tick yet"
    assert "nobody leads" in nobody
    assert f"no daemon runs on this machine's {platform.home}" in no_daemon
    with claim(platform.home, fcntl.LOCK_SH), claim(platform.home, fcntl.LOCK_EX, "daemon"):
        assert len(look(services).problems) == 2
    with claim(platform.home, fcntl.LOCK_EX):
        assert "no daemon runs" in look(services).problems[-1], "one that `zlh up` starts again"
    loop.minute()
    services.redis.delete(LEADER)
    assert "nobody leads" in look(services).line()
    lost = platform.services(ZLH_REDIS_URL="unix:///nonexistent/redis.sock")
    assert "Redis" in look(lost).line()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_stands_still_is_told_once_and_once_when_it_goes_on():
    clock, sent, health = Clock(), [], Health(problems=["no good tick yet"])
    watch = Watch(lambda: health, lambda message: sent.append(message) or True, clock=clock)
    for _ in range(3):
        clock.now += STALL_SECONDS / 2
        watch.once()
    [told] = sent
    assert told.severity is Severity.CRITICAL
    assert "stands still" in told.title
    assert "Since 5 min: no good tick yet" in told.lines
    health = Health(1.0, "leading", "me")
    watch.once()
    watch.once()
    assert [m.title for m in sent[1:]] == ["Over: the loop goes on"]
    assert "8 min" in sent[1].lines[0] or "7 min" in sent[1].lines[0]


def test_a_moment_of_weakness_is_not_told():
    clock, sent = Clock(), []
    health = Health(problems=["no good tick yet"])
    watch = Watch(lambda: health, lambda message: sent.append(message) or True, clock=clock)
    for _ in range(10):
        clock.now += STALL_SECONDS - 1
        health = Health(problems=["the last good tick was 4 min ago"])
        watch.once()
        clock.now += 1
        health = Health(1.0, "leading", "me")
        watch.once()
    assert sent == []


def test_what_may_hang_is_started_again_every_ten_minutes_until_the_loop_goes_on():
    clock, started = Clock(), []
    health = Health(problems=["the last good tick was 4 min ago"])
    watch = Watch(
        lambda: health, lambda _: True, lambda: started.append(clock.now / 60), clock=clock
    )

    def minutes(number: int) -> None:
        for _ in range(number):
            clock.now += 60
            watch.once()

    minutes(27)
    assert started == [5, 15, 25]
    health = Health(1.0, "leading", "me")
    minutes(1)
    health = Health(problems=["nobody leads"])
    minutes(6)
    assert started == [5, 15, 25, 33]


def test_the_terminal_hears_that_no_tick_is_good_and_when_one_is():
    clock, said = Clock(), []
    health = Health(problems=["no good tick yet"])
    watch = Watch(lambda: health, lambda _: True, clock=clock, say=said.append)

    def minutes(number: int) -> None:
        for _ in range(number):
            clock.now += 60
            watch.once()

    minutes(4)
    assert said == []
    minutes(2)
    [told] = said
    assert told.startswith("for 5 min not healthy: no good tick yet; `zlh status`")
    health = Health(7.0, "leading", "me")
    minutes(3)
    assert said[1:] == ["healthy: leading, last good tick 7 s ago"]


def test_a_probe_tells_once_that_the_loop_stands_still_and_once_that_it_goes_on(loop, sandbox):
    """Each call is a process of its own."""
    loop.minute()
    unwell, well = Health(problems=["nobody leads"]), Health(1.0, "leading", "me")
    began = time.time()
    for minute, health in enumerate([well, *[unwell] * 8, well, well]):
        tell(loop.services, health, now=began + 60 * minute)
    told = [m.payload["embeds"][0]["title"] for m in sandbox.edge.discord.inbox()]
    assert [title.partition(":")[0] for title in told] == ["The loop stands still", "Over"]
    (loop.services.settings.home / "stall.json").write_text("{}")
    tell(loop.services, unwell, now=began)
    assert len(sandbox.edge.discord.inbox()) == 2


def test_what_discord_did_not_take_is_told_at_the_next_look():
    clock, tried = Clock(), []
    watch = Watch(
        lambda: Health(problems=["x"]), lambda message: tried.append(message), clock=clock
    )
    clock.now = STALL_SECONDS
    watch.once()
    watch.once()
    assert len(tried) == 2


@pytest.mark.usefixtures("daemon")
def test_repair_runs_that_fail_are_not_healthy(loop):
    """What would remind of them is what fails."""
    loop.minute()
    assert look(loop.services).healthy
    title = "level1_repair fails"
    now = time.time()
    loop.services.incidents.open(
        Incident(REPAIR_RUN_FAILED, Severity.CRITICAL, title, opened_at=now - 600)
    )
    assert "level1_repair fails since 10 min" in look(loop.services).line()


@pytest.mark.usefixtures("daemon")
def test_repair_runs_that_begin_again_are_healthy_though_discord_cannot_be_told(loop, sandbox):
    loop.minute()
    failed = Incident(REPAIR_RUN_FAILED, Severity.CRITICAL, "x", opened_at=time.time())
    loop.services.incidents.open(failed)
    sandbox.edge.faults.switch_on("discord", "status", code=404)
    sandbox.edge.velocity.restart()
    loop.minute()
    assert REPAIR_RUN_FAILED in loop.services.incidents.all_open()
    assert look(loop.services).healthy
