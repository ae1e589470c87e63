"""Names and defaults are a contract; a mistake is one line that names the setting."""

import shutil
import tempfile
from pathlib import Path

import pytest
from pydantic import SecretStr

from zlh_dagster.core.desired import EdgeConfig
from zlh_dagster.core.policy import PolicyConfig
from zlh_dagster.resources.private import NotPrivate
from zlh_dagster.resources.settings import Settings, SettingsError, load_settings

NETWORKS = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "fc00::/7",
    "::1/128",
)
STOP = "stop_suspended_workload"
DEFAULTS = {
    "ZLH_REPAIR_MODE": "dry-run",
    "ZLH_LEVEL2_ACTIONS": (),
    "ZLH_DATABASE_URL": None,
    "ZLH_REDIS_URL": None,
    "ZLH_BULLMQ_PREFIX": "bull",
    "ZLH_DAGSTER_DATABASE_URL": None,
    "ZLH_DEPLOYMENT": None,
    "ZLH_WEB_URL": None,
    "ZLH_RUNBOOK_URL": None,
    "ZLH_SNAPSHOT_URL": None,
    "ZLH_AGENT_SHARD_SIZE": 10_000,
    "ZLH_ZONE": None,
    "CLOUDFLARE_API_TOKEN": None,
    "CLOUDFLARE_ZONE_ID": None,
    "CLOUDFLARE_API_BASE": "https://api.cloudflare.com/client/v4",
    "CLOUDFLARE_EDGE_IP": None,
    "TECHNITIUM_API_URL": None,
    "TECHNITIUM_API_TOKEN": None,
    "VELOCITY_EDGE_IP": None,
    "TRAEFIK_EDGE_IP": None,
    "VELOCITY_URL": None,
    "ZPACK_SECRET": None,
    "PROXMOX_URL": None,
    "PROXMOX_NODE": None,
    "PROXMOX_TOKEN_ID": None,
    "PROXMOX_TOKEN_SECRET": None,
    "PROXMOX_CA_FILE": None,
    "DAGSTER_HOME": Path(".zlh"),
    "ZLH_WEB_HOST": "127.0.0.1",
    "ZLH_WEB_PORT": 3000,
    "ZLH_RUN_LAUNCHER": "celery",
    "ZLH_AGENT_PORT": 18888,
    "ZLH_AGENT_NETWORKS": NETWORKS,
    "DISCORD_WEBHOOK_CRITICAL": None,
    "DISCORD_WEBHOOK_WARNING": None,
    "DISCORD_WEBHOOK_REPAIR": None,
    "DISCORD_WEBHOOK_INFO": None,
    "ZLH_HEARTBEAT_URL": None,
    "ZLH_MAX_REPAIRS_PER_SERVER_HOUR": 3,
    "ZLH_MASS_DRIFT_FRACTION": 0.2,
    "ZLH_MASS_DRIFT_MIN": 5,
    "ZLH_SURFACE_FAILURES_TO_OPEN": 5,
    "ZLH_SURFACE_OPEN_SECONDS": 900,
    "ZLH_LEASE_SECONDS": 60,
    "ZLH_RETENTION_HOURS": 24,
}
SECRETS = (
    "CLOUDFLARE_API_TOKEN",
    "TECHNITIUM_API_TOKEN",
    "ZPACK_SECRET",
    "PROXMOX_TOKEN_SECRET",
    "DISCORD_WEBHOOK_CRITICAL",
    "DISCORD_WEBHOOK_WARNING",
    "DISCORD_WEBHOOK_REPAIR",
    "DISCORD_WEBHOOK_INFO",
    "ZLH_HEARTBEAT_URL",
    "ZLH_DATABASE_URL",
    "ZLH_REDIS_URL",
)
FULL = {
    "ZLH_DATABASE_URL": "mysql://zlh:secret-database@db.internal/zlh",
    "ZLH_REDIS_URL": "redis://:secret-redis@redis.internal:6379/0",
    "ZLH_ZONE": "example.gg",
    "CLOUDFLARE_API_TOKEN": "secret-cloudflare",
    "CLOUDFLARE_ZONE_ID": "5a4d8b0f6e1c47d29b3e7f8a10c2d4e6",
    "CLOUDFLARE_EDGE_IP": "203.0.113.10",
    "TECHNITIUM_API_URL": "http://dns.internal:5380",
    "TECHNITIUM_API_TOKEN": "secret-technitium",
    "VELOCITY_EDGE_IP": "10.70.0.2",
    "TRAEFIK_EDGE_IP": "10.70.0.3",
    "VELOCITY_URL": "http://velocity.internal:8081",
    "ZPACK_SECRET": "secret-zpack",
    "PROXMOX_URL": "https://pve.internal:8006",
    "PROXMOX_NODE": "pve1",
    "PROXMOX_TOKEN_ID": "zlh@pve!loop",
    "PROXMOX_TOKEN_SECRET": "secret-proxmox",
    "DISCORD_WEBHOOK_CRITICAL": "https://discord.com/api/webhooks/1/secret-critical",
    "ZLH_HEARTBEAT_URL": "https://hc.example.com/secret-heartbeat",
}


@pytest.fixture
def load(monkeypatch):
    """Settings from exactly these variables; one that is ``None`` is left out."""

    def read(**values: str | None) -> Settings:
        for name, value in values.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return load_settings(env_file=None)

    return read


def refusal(load, **values) -> str:
    with pytest.raises(SettingsError) as refused:
        load(**values)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- the table of the contract -------------------------------------------------------------------


def test_every_setting_of_the_contract_exists_with_its_default(load):
    settings = load()
    assert {name.upper() for name in Settings.model_fields} == set(DEFAULTS)
    assert {name: getattr(settings, name.lower()) for name in DEFAULTS} == DEFAULTS


def test_without_settings_every_surface_is_off_and_nothing_is_written(load):
    settings = load()
    assert not settings.live
    assert not (settings.cloudflare_on)
    assert not (settings.technitium_on)
    assert not (settings.velocity_on)
    assert settings.edge == EdgeConfig(zone=None)
    assert settings.policy == PolicyConfig(0.2, 5)


def test_a_full_configuration_says_where_servers_are_published(load):
    settings = load(**FULL)
    assert settings.edge == EdgeConfig(
        zone="example.gg",
        cloudflare_ip="203.0.113.10",
        velocity_ip="10.70.0.2",
        traefik_ip="10.70.0.3",
        velocity=True,
    )


def test_an_address_without_its_surface_publishes_nothing_there(load):
    settings = load(CLOUDFLARE_EDGE_IP="203.0.113.10", VELOCITY_EDGE_IP="10.70.0.2")
    assert settings.edge == EdgeConfig(zone=None)


def test_an_empty_variable_is_an_unset_one(load):
    settings = load(ZLH_REPAIR_MODE="", ZLH_ZONE="", ZLH_WEB_PORT="", CLOUDFLARE_API_TOKEN="")
    assert settings == load()


def test_an_env_file_is_read_and_the_environment_wins(tmp_path, monkeypatch):
    file = tmp_path / "settings.env"
    file.write_text("ZLH_BULLMQ_PREFIX=file\nZLH_LEASE_SECONDS=90\nSOMETHING_ELSE=x\n")
    monkeypatch.setenv("ZLH_BULLMQ_PREFIX", "environment")
    settings = load_settings(env_file=file)
    assert (settings.zlh_bullmq_prefix, settings.zlh_lease_seconds) == ("environment", 90)


def test_lists_are_separated_by_commas(load):
    settings = load(ZLH_LEVEL2_ACTIONS=f" {STOP} ,,", ZLH_AGENT_NETWORKS="10.1.0.0/16, fd00::/8")
    assert settings.zlh_level2_actions == (STOP,)
    assert settings.zlh_agent_networks == ("10.1.0.0/16", "fd00::/8")


@pytest.mark.parametrize(
    "name",
    [
        "everything",
        "restart_agent",
        "velocity_repoint",
        "delete_container",
        "dns_republish",
        STOP.upper(),
    ],
)
def test_only_level_2_actions_that_exist_can_be_switched_on(load, name):
    """A name that switches nothing on would leave the operator believing that it did."""
    with pytest.raises(SettingsError, match=r"ZLH_LEVEL2_ACTIONS.*" + STOP):
        load(ZLH_LEVEL2_ACTIONS=f"{STOP},{name}")


def test_live_is_asked_for_by_its_name(load):
    assert load(ZLH_REPAIR_MODE="live").live


# --- settings that need each other ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("absent", "because"),
    [
        ("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ZONE_ID"),
        ("CLOUDFLARE_ZONE_ID", "CLOUDFLARE_API_TOKEN"),
        ("TECHNITIUM_API_URL", "TECHNITIUM_API_TOKEN"),
        ("TECHNITIUM_API_TOKEN", "TECHNITIUM_API_URL"),
        ("VELOCITY_URL", "ZPACK_SECRET"),
        ("ZPACK_SECRET", "VELOCITY_URL"),
        ("PROXMOX_NODE", "PROXMOX_URL"),
        ("PROXMOX_TOKEN_ID", "PROXMOX_URL"),
        ("PROXMOX_TOKEN_SECRET", "PROXMOX_URL"),
        ("CLOUDFLARE_EDGE_IP", "Cloudflare"),
        ("VELOCITY_EDGE_IP", "Technitium"),
        ("TRAEFIK_EDGE_IP", "Technitium"),
        ("ZLH_ZONE", "Cloudflare"),
    ],
)
def test_a_missing_partner_is_named_with_what_needs_it(load, absent, because):
    said = refusal(load, **{**FULL, absent: None})
    assert said.startswith(f"{absent}: is needed because {because} is ")


def test_what_is_malformed_and_what_is_absent_are_named_in_one_go(load):
    changed = {"ZLH_REPAIR_MODE": "lively", "CLOUDFLARE_ZONE_ID": None, "ZLH_WEB_PORT": "70000"}
    said = refusal(load, **{**FULL, **changed})
    for part in (
        "ZLH_REPAIR_MODE: must be 'dry-run' or 'live'",
        "ZLH_WEB_PORT: must be less than or equal to 65535",
        "CLOUDFLARE_ZONE_ID: is needed because CLOUDFLARE_API_TOKEN is set",
    ):
        assert part in said.split("; ")


@pytest.mark.parametrize("surface", ["TECHNITIUM", "VELOCITY"])
def test_every_surface_needs_the_zone(load, surface):
    own = {k: v for k, v in FULL.items() if k.startswith(surface) or k == "ZPACK_SECRET"}
    more = {"TRAEFIK_EDGE_IP": "10.70.0.3"} if surface == "TECHNITIUM" else {}
    if surface == "TECHNITIUM":
        own.pop("ZPACK_SECRET")
        more["VELOCITY_EDGE_IP"] = "10.70.0.2"
    assert refusal(load, **own, **more).startswith("ZLH_ZONE: is needed because ")


# --- malformed values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ZLH_REPAIR_MODE", ["on", "LIVE", "true", "dry run"]),
        ("ZLH_ZONE", ["gg", ".", "example..gg", "a" * 64 + ".gg", "exa mple.gg", "*.example.gg"]),
        ("ZLH_ZONE", ["example.gg/../other", "ex_ample.gg", "@.gg", "-x.gg", "bücher.gg"]),
        ("CLOUDFLARE_EDGE_IP", ["203.0.113", "fd00::1", "example.gg", "203.0.113.10/32"]),
        ("VELOCITY_EDGE_IP", ["localhost"]),
        ("TRAEFIK_EDGE_IP", ["256.0.0.1"]),
        ("CLOUDFLARE_API_BASE", ["api.cloudflare.com", "ftp://x", "https://", "https://x:port"]),
        ("TECHNITIUM_API_URL", ["dns.internal:5380", "http://[::1", "file:///etc/passwd"]),
        ("VELOCITY_URL", ["velocity.internal"]),
        ("PROXMOX_URL", ["pve.internal:8006"]),
        ("ZLH_DATABASE_URL", ["not a url", "/var/lib/db", "oracle://x", "sqlite", "mysql://["]),
        ("ZLH_REDIS_URL", ["localhost:6379", "http://redis", "not a url", "redis://h:port"]),
        ("ZLH_AGENT_NETWORKS", ["10.0.0.0/33", "everywhere", "10.0.0.0/8,x"]),
        ("ZLH_WEB_PORT", ["http", "-1", "65536", "3000.5"]),
        ("ZLH_AGENT_PORT", ["0", "65536"]),
        ("DISCORD_WEBHOOK_INFO", ["discord.com/api/webhooks/1/x"]),
        ("ZLH_MAX_REPAIRS_PER_SERVER_HOUR", ["0", "-1", "many"]),
        ("ZLH_MASS_DRIFT_FRACTION", ["20", "-0.1", "20%", "nan"]),
        ("ZLH_MASS_DRIFT_MIN", ["-1"]),
        ("ZLH_SURFACE_FAILURES_TO_OPEN", ["0"]),
        ("ZLH_SURFACE_OPEN_SECONDS", ["0"]),
        ("ZLH_LEASE_SECONDS", ["29", "0", "-60", "1m"]),
        ("ZLH_RETENTION_HOURS", ["0"]),
        ("CLOUDFLARE_API_TOKEN", ["two words", "tokén", "line\nbreak"]),
        ("TECHNITIUM_API_TOKEN", ["tokén"]),
        ("PROXMOX_TOKEN_SECRET", ["two words"]),
    ],
)
def test_a_malformed_value_is_refused_and_the_setting_named(load, name, values):
    for value in values:
        assert refusal(load, **{**FULL, name: value}).startswith(f"{name}"), value


def test_every_mistake_is_told_at_once(load):
    said = refusal(load, ZLH_WEB_PORT="x", ZLH_LEASE_SECONDS="5", ZLH_ZONE="gg")
    assert {part.split(":")[0] for part in said.split("; ")} == {
        "ZLH_WEB_PORT",
        "ZLH_LEASE_SECONDS",
        "ZLH_ZONE",
    }


SECURE = (
    "CLOUDFLARE_API_BASE",
    "PROXMOX_URL",
    "ZLH_HEARTBEAT_URL",
    "DISCORD_WEBHOOK_CRITICAL",
    "DISCORD_WEBHOOK_WARNING",
    "DISCORD_WEBHOOK_REPAIR",
    "DISCORD_WEBHOOK_INFO",
)


@pytest.mark.parametrize("name", SECURE)
def test_http_is_for_loopback_only(load, name):
    assert f"{name}: must be https" in refusal(load, **{**FULL, name: "http://10.0.0.5/x"})
    assert "must be https" in refusal(load, **{**FULL, name: "http://localhost.evil.example/x"})
    for host in ("127.0.0.1", "localhost", "[::1]"):
        load(**{**FULL, name: f"http://{host}:8080/x"})
    load(**{**FULL, name: "https://10.0.0.5/x"})


def test_technitium_and_velocity_may_speak_http_inside(load):
    settings = load(**{**FULL, "TECHNITIUM_API_URL": "http://10.0.0.5:5380/"})
    assert settings.technitium_api_url == "http://10.0.0.5:5380", "without the slash at its end"


def test_a_zone_is_read_in_lower_case_without_its_final_dot(load):
    assert load(ZLH_ZONE="Example.GG.").zlh_zone == "example.gg"


@pytest.mark.parametrize("name", ["CLOUDFLARE_API_TOKEN", "TECHNITIUM_API_TOKEN"])
def test_a_line_break_at_the_end_of_a_token_is_not_part_of_it(load, name):
    """Secret files end in a line break, and a header must not."""
    settings = load(**{**FULL, name: "  token-from-a-file\n"})
    assert getattr(settings, name.lower()).get_secret_value() == "token-from-a-file"


@pytest.mark.parametrize(
    "switch",
    [
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=optional",
        "db=1&ssl_cert_reqs=NONE",
        "ssl_check_hostname=false",
        "ssl_check_hostname=0",
        "ssl_check_hostname=No",
    ],
)
def test_verification_of_redis_is_not_switched_off(load, switch):
    said = refusal(load, ZLH_REDIS_URL=f"rediss://:pw-of-it@h:6380/0?{switch}")
    assert said.startswith("ZLH_REDIS_URL: ")
    assert f"must not have {switch.split('&')[-1].split('=')[0]}" in said
    assert "pw-of-it" not in said


@pytest.mark.parametrize(
    "query", ["", "?ssl_cert_reqs=required&ssl_check_hostname=true", "?ssl_ca_certs=/etc/ca.pem"]
)
def test_redis_may_be_told_whom_to_trust(load, query):
    url = f"rediss://h:6380/0{query}"
    assert load(ZLH_REDIS_URL=url).redis_url == url


# --- secrets -------------------------------------------------------------------------------------


def test_secrets_are_in_no_representation(load):
    settings = load(**FULL)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "secret-" not in shown
    assert "example.gg" in shown
    for name in SECRETS:
        value = getattr(settings, name.lower())
        assert value is None or isinstance(value, SecretStr)


@pytest.mark.parametrize("name", [name for name in SECRETS if name != "ZPACK_SECRET"])
def test_a_secret_that_is_refused_is_not_repeated(load, name):
    said = refusal(load, **{**FULL, name: "gopher://xyzzy-plugh sécret"})
    assert "xyzzy" not in said
    assert "plugh" not in said


def test_a_secret_whose_partner_is_missing_is_not_repeated(load):
    said = refusal(load, **{**FULL, "ZPACK_SECRET": "xyzzy-plugh", "VELOCITY_URL": None})
    assert "xyzzy" not in said


def test_everything_secret_is_handed_to_the_redactor(load):
    secrets = load(**FULL).secrets()
    for value in FULL.values():
        if "secret-" in value:
            assert value in secrets
    assert "secret-database" in secrets, "the password alone, as a driver may repeat it"
    assert "secret-redis" in secrets
    assert "example.gg" not in secrets


def test_a_password_is_redacted_as_written_in_the_url_and_as_it_is(load):
    secrets = load(ZLH_DATABASE_URL="postgresql://zlh:p%40ss-word@db/zlh").secrets()
    assert {"p%40ss-word", "p@ss-word"} <= set(secrets)


@pytest.mark.parametrize(
    ("name", "url", "parts"),
    [
        ("ZLH_REDIS_URL", "redis://h/0?password=p%40ss-word&db=1", {"p%40ss-word", "p@ss-word"}),
        ("ZLH_REDIS_URL", "unix:///run/r.sock?password=secret-redis", {"secret-redis"}),
        ("ZLH_DATABASE_URL", "postgresql://db/zlh?user=u&password=secret-db", {"secret-db"}),
        (
            "ZLH_DATABASE_URL",
            "mariadb://u:p%2Fq-r@db/zlh?ssl_key_password=s-k-p",
            {"p/q-r", "s-k-p"},
        ),
        ("ZLH_SNAPSHOT_URL", "memory://bucket/x?secret=abc+def", {"abc+def", "abc def"}),
        (
            "DISCORD_WEBHOOK_INFO",
            "https://discord.com/api/webhooks/123456789012345678/aB-3_x9ZqW",
            {"/api/webhooks/123456789012345678/aB-3_x9ZqW", "aB-3_x9ZqW"},
        ),
        (
            "ZLH_HEARTBEAT_URL",
            "https://hc.example/ping/0f8c-4e1a-77/start?key=K3y-of-it",
            {"/ping/0f8c-4e1a-77/start", "0f8c-4e1a-77", "K3y-of-it"},
        ),
        ("ZLH_HEARTBEAT_URL", "https://u:secret-pw@hc.example/x", {"secret-pw"}),
    ],
)
def test_the_secret_parts_of_a_url_are_secrets_alone(load, name, url, parts):
    """A driver or a server repeats a part of what it was given."""
    secrets = set(load(**{name: url}).secrets())
    assert parts <= secrets
    assert not {"ping", "start", "webhooks", "api", "zlh", "u", "1", "bucket"} & secrets


def test_without_secrets_there_is_nothing_to_redact(load):
    assert load().secrets() == ()


# --- derived -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("postgresql://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("mysql://u@h/d", "mysql+pymysql://u@h/d"),
        ("mariadb://u@h/d", "mariadb+pymysql://u@h/d"),
        ("mysql+pymysql://u@h/d", "mysql+pymysql://u@h/d"),
        ("sqlite:////srv/zlh.db", "sqlite:////srv/zlh.db"),
    ],
)
def test_a_database_url_gets_the_driver_that_is_installed(load, given, used):
    assert load(ZLH_DATABASE_URL=given).database_url == used


def test_state_lies_below_dagster_home(load, tmp_path):
    settings = load(DAGSTER_HOME=str(tmp_path))
    assert settings.home == tmp_path
    assert settings.database_url == f"sqlite:///{tmp_path}/platform.db"
    assert settings.redis_url == f"unix://{settings.socket('redis')}"


def test_a_relative_home_is_made_absolute(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load().home == tmp_path / ".zlh"


def test_a_socket_path_fits_however_deep_the_home_lies(load, tmp_path, monkeypatch):
    short = tempfile.mkdtemp(prefix="zlh-")
    monkeypatch.setattr(tempfile, "tempdir", short)
    deep = load(DAGSTER_HOME=str(tmp_path / ("x" * 120)))
    other = load(DAGSTER_HOME=str(tmp_path / ("y" * 120)))
    assert len(str(deep.socket("redis"))) <= 100
    assert deep.socket("redis") == deep.socket("redis")
    assert deep.socket("redis") != other.socket("redis"), "two deployments on one machine"
    shallow = load(DAGSTER_HOME="/tmp/z")
    assert shallow.socket("redis") == Path("/tmp/z/redis.sock")
    shutil.rmtree(short)


def test_a_socket_is_not_looked_for_where_another_user_could_have_put_one(
    load, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deep = load(DAGSTER_HOME=str(tmp_path / ("x" * 120)))
    folder = deep.socket("redis").parent
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    for path in (lambda: deep.redis_url, lambda: deep.socket("code")):
        with pytest.raises(NotPrivate, match=r"open to other users.*shorter DAGSTER_HOME"):
            path()


def test_a_configured_redis_is_used_as_given(load):
    assert load(ZLH_REDIS_URL="redis://h:1/2").redis_url == "redis://h:1/2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROXMOX_TOKEN_ID", "root@pam!zlü"),
        ("PROXMOX_TOKEN_ID", "root@pam!a b"),
        ("PROXMOX_TOKEN_ID", "root@pam!a\r\nX-Other: 1"),
        ("PROXMOX_TOKEN_ID", "root@pam"),
        ("CLOUDFLARE_ZONE_ID", "abc/../../x y"),
        ("CLOUDFLARE_ZONE_ID", "abc?x=1"),
        ("CLOUDFLARE_ZONE_ID", ".."),
        ("CLOUDFLARE_ZONE_ID", "zöne"),
        ("PROXMOX_NODE", "../pve"),
        ("PROXMOX_NODE", "pve 1"),
        ("PROXMOX_NODE", "pvé"),
    ],
)
def test_what_ends_in_a_header_or_a_path_is_refused_at_start(monkeypatch, name, value):
    for setting, text in {**FULL, name: value}.items():
        monkeypatch.setenv(setting, text)
    with pytest.raises(SettingsError, match=rf"^{name}: must be ") as failed:
        load_settings(env_file=None)
    assert "\n" not in str(failed.value)


def test_spaces_around_what_ends_in_a_path_are_taken_off(monkeypatch):
    for setting, text in {**FULL, "CLOUDFLARE_ZONE_ID": " abc ", "PROXMOX_NODE": "pve-1 "}.items():
        monkeypatch.setenv(setting, text)
    settings = load_settings(env_file=None)
    assert (settings.cloudflare_zone_id, settings.proxmox_node) == ("abc", "pve-1")
