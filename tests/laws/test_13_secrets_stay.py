"""Law 13: no secret leaves the process; what customers choose cannot hurt anybody."""

import hashlib
import json
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.harness import Loop, statuses, writes
from zlh_dagster.core.names import InvalidServer, container_address
from zlh_dagster.resources.database import DatabaseError
from zlh_dagster.sandbox.platform_rows import change_server
from zlh_dagster.schema.tables import repair_event

pytestmark = pytest.mark.usefixtures("through_dagster")
SRV = "_minecraft._tcp.mc-5000.example.gg"


def everything(loop, sandbox, capfd) -> str:
    """All that the controller left behind: events, runs, ledger, Redis, Discord, output, files."""
    parts = []
    for run in loop.instance.get_runs():
        parts.append(json.dumps(run.run_config) + json.dumps(dict(run.tags)))
        parts += [str(event) for event in loop.instance.all_logs(run.run_id)]
    with loop.services.engine.connect() as connection:
        parts += [str(row) for row in connection.execute(sa.select(repair_event))]
    redis = loop.services.redis
    for key in redis.scan_iter("*"):
        kind = redis.type(key)
        parts.append(str(redis.hgetall(key) if kind == "hash" else kind))
    parts += [str(message.payload) for message in sandbox.edge.discord.inbox()]
    for path in loop.services.settings.home.rglob("*.parquet"):
        parts.append(path.read_bytes().decode("latin1"))
    out, err = capfd.readouterr()
    return "\n".join([*parts, out, err])


FAULTS = [
    ("cloudflare", "invalid_token"),
    ("technitium", "invalid_token"),
    ("velocity", "invalid_token"),
    ("proxmox", "invalid_token"),
    ("cloudflare", "html"),
    ("technitium", "truncated_json"),
    ("velocity", "disconnect"),
    ("discord", "disconnect"),
]


@pytest.mark.parametrize(("surface", "fault"), FAULTS)
@pytest.mark.parametrize("during", ["reads", "writes"])
def test_secrets_stay(loop, sandbox, capfd, surface, fault, during):
    """Everything drifts and one system after the other fails: no secret anywhere."""
    secrets = loop.services.settings.secrets()
    assert len(secrets) > 6
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    for record in sandbox.edge.technitium.named(SRV):
        sandbox.edge.technitium.remove(record.key())
    sandbox.edge.velocity.restart()
    only = (
        {}
        if surface in ("discord", "proxmox")
        else {
            "reads": during == "reads",
            "writes": during == "writes",
        }
    )
    sandbox.edge.faults.switch_on(surface, fault, **only)
    loop.minute()
    loop.by_hand((5000, "edge_republish"))
    left = everything(loop, sandbox, capfd)
    found = [secret[:4] + "…" for secret in secrets if secret in left]
    assert found == []
    assert len(left) > 10_000


@pytest.mark.parametrize(
    "hostname",
    ["@everyone", "<@123>", "**bold**", "x\ny", "a" * 300, "https://evil.example", "mc'; DROP--"],
)
def test_secrets_what_customers_choose_mentions_nobody_and_breaks_nothing(
    loop, sandbox, platform, hostname
):
    change_server(platform.engine, 5000, hostname=hostname)
    loop.minute()
    for message in sandbox.edge.discord.inbox():
        assert message.payload["allowed_mentions"] == {"parse": []}
        text = json.dumps(message.payload, ensure_ascii=False)
        assert "@everyone" not in text.replace("\\\\@everyone", "")
    assert writes(sandbox) == []


@pytest.mark.parametrize("ip", ["203.0.113.9", "8.8.8.8", "169.254.169.254", "10.1.2.3"])
def test_secrets_no_address_outside_the_allowed_networks_is_called(platform, instance, sandbox, ip):
    """The sandbox allows loopback only: the agent at any other address is never asked."""
    loop = Loop(platform.services(), instance)
    change_server(platform.engine, 5000, ip=ip)
    loop.minute()
    asked = {e.vmid for e in sandbox.edge.journal.entries() if e.surface == "agents"}
    assert 5000 not in asked
    assert 5001 in asked


def told(sandbox) -> str:
    """All that Discord was told, as it is read there."""
    text = json.dumps([m.payload for m in sandbox.edge.discord.inbox()])
    return text.replace("\\", "")


@pytest.mark.parametrize("character", [*"_*~`|>#[]()<@", "__", "**"])
def test_secrets_stay_whatever_they_are_made_of(platform, sandbox, character):
    """Discord's own characters are escaped in a message, the secret is found before that."""
    secret = f"q1{character}w2{character}e3"
    services = platform.services(TECHNITIUM_API_TOKEN=secret)
    assert services.discord.critical(f"refused {secret}", f"a line with {secret} in it")
    text = told(sandbox)
    assert secret not in text
    assert "w2" not in text
    assert "a line with *** in it" in text


def test_secrets_stay_the_digest_of_one_and_the_password_in_an_url_among_them(platform, sandbox):
    """The digest of the bridge's secret opens it; a URL spells a password in its own way."""
    services = platform.services(
        ZPACK_SECRET="the-bridge's-own",
        ZLH_REDIS_URL="redis://user:p_w%2Ad~9@redis.example:6379/0",
    )
    digest = hashlib.sha256(b"the-bridge's-own").hexdigest()
    for secret in ("the-bridge's-own", digest, "p_w%2Ad~9", "p_w*d~9"):
        assert services.discord.critical("refused", f"it was {secret} there")
        assert secret not in told(sandbox)
    assert told(sandbox).count("it was *** there") == 4


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("{'token': 'abcd1234'}", "abcd1234"),
        ('{"secret": "abcd1234"}', "abcd1234"),
        ("password='qq11'", "qq11"),
        ("PASSWORD = qq11", "qq11"),
        ("postgresql://zlh:h_nt*r22@db/zlh", "h_nt*r22"),
    ],
)
def test_secrets_stay_though_nobody_knows_them(platform, sandbox, text, secret):
    services = platform.services()
    services.discord.critical("failed", text)
    assert secret not in told(sandbox)
    assert secret not in services.redactor.text(text)


@pytest.mark.parametrize("where", ["max_fencing_token", "interrupt_below"])
def test_secrets_stay_when_a_run_fails(loop, sandbox, capfd, monkeypatch, where):
    """A database's error may quote what it was given; events and log show it masked."""
    secret = "sandbox-technitium-token"

    def fails(*_):
        raise DatabaseError(f"platform database: no access with {secret}")

    monkeypatch.setattr(loop.services.ledger, where, fails)
    assert secret in loop.services.settings.secrets()
    sandbox.edge.cloudflare.remove(sandbox.edge.cloudflare.named(SRV)[0].id)
    [run] = loop.minute()
    [failure] = [e for e in run.all_events if e.is_step_failure]
    assert "no access with ***" in str(failure.step_failure_data)
    assert secret not in everything(loop, sandbox, capfd)


@pytest.mark.parametrize(
    "ip", ["169.254.1.9", "fe80::10", "fe80::10%eth0", "fd00::10%1", "::ffff:169.254.1.9"]
)
def test_secrets_an_address_that_means_nothing_elsewhere_is_never_published(
    loop, sandbox, platform, ip
):
    sandbox.edge.velocity.restart()
    change_server(platform.engine, 5000, ip=ip)
    with pytest.raises(InvalidServer, match="ip: "):
        container_address(ip)
    loop.minute()
    loop.by_hand((5000, "velocity_reregister"))
    names = {backend.name for backend in sandbox.edge.velocity.backends()}
    assert "mc-5000" not in names
    assert "mc-5001" in names


def test_an_address_mapped_into_ipv6_is_the_address_itself(loop, sandbox, platform):
    """It is registered as such, and what the proxy shows in either spelling is no drift."""
    assert container_address("::ffff:10.0.0.1") == "10.0.0.1"
    backends = [b for b in sandbox.edge.velocity.backends() if b.name != "mc-5000"]
    sandbox.edge.velocity.restart()
    sandbox.edge.velocity.seed(backends)
    change_server(platform.engine, 5000, ip="::ffff:10.0.0.1")
    loop.minute()
    [mine] = [b for b in sandbox.edge.velocity.backends() if b.name == "mc-5000"]
    assert mine.address == "10.0.0.1"
    for spelled in ("10.0.0.1", "::ffff:10.0.0.1", "0:0:0:0:0:ffff:a00:1"):
        sandbox.edge.velocity.restart()
        sandbox.edge.velocity.seed([*backends, replace(mine, address=spelled)])
        loop.minute()
        assert statuses(loop.services) == ["succeeded"], spelled
