"""Everything is built from the settings when first needed, and closed at the end."""

import httpx
import pytest

from zlh_dagster.core.incidents import Incident
from zlh_dagster.core.model import Surface
from zlh_dagster.core.rules import Severity
from zlh_dagster.resources.services import Services
from zlh_dagster.resources.settings import SettingsError


def test_nothing_is_opened_before_it_is_needed(platform):
    platform.services(
        ZLH_REDIS_URL="unix:///nonexistent/redis.sock",
        ZLH_DATABASE_URL="postgresql://nobody@127.0.0.1:1/x",
    )
    assert platform.sandbox.edge.journal.entries() == []


def test_only_the_surfaces_that_are_on_have_clients(platform):
    assert set(platform.services().surfaces) == set(Surface)
    without = platform.services(VELOCITY_URL=None, ZPACK_SECRET=None)
    assert set(without.surfaces) == {Surface.CLOUDFLARE, Surface.TECHNITIUM}
    nothing = dict.fromkeys(platform.sandbox.environment())
    assert platform.services(**nothing).surfaces == {}


def test_clients_are_made_once(platform):
    services = platform.services()
    assert services.surfaces is services.surfaces
    assert services.engine is services.engine
    assert services.redis is services.redis


def test_levels_without_a_webhook_only_log(platform, caplog):
    services = platform.services(DISCORD_WEBHOOK_CRITICAL=None)
    assert services.discord.critical("t") is False
    assert services.discord.info("t") is True
    assert "no webhook for critical" in caplog.text


def test_every_secret_of_the_settings_is_masked_in_messages(platform):
    services = platform.services(ZLH_DATABASE_URL="postgresql://zlh:hunter22@127.0.0.1:1/x")
    services.discord.info("hunter22", platform.sandbox.config.cloudflare_token)
    [message] = platform.sandbox.edge.discord.inbox()
    assert "hunter22" not in str(message.payload)
    assert platform.sandbox.config.cloudflare_token not in str(message.payload)


def test_closing_ends_connections_and_the_services_can_be_used_again(platform):
    services = platform.services()
    with services:
        client = services.surfaces[Surface.CLOUDFLARE]
        client.list_records()
        engine, ledger = services.engine, services.ledger
        assert ledger.events() == []
        services.redis.ping()
        services.incidents.open(Incident("a", Severity.INFO, "t"))
    with pytest.raises(RuntimeError, match="closed"):
        client.list_records()
    assert engine.pool.checkedout() == 0
    assert services.engine is not engine
    assert services.ledger is not ledger
    assert services.ledger.events() == []
    assert set(services.incidents.all_open()) == {"a"}
    assert not services.surfaces[Surface.CLOUDFLARE].list_records().empty


def test_closing_what_was_never_opened_is_nothing(platform):
    services = platform.services()
    services.close()
    services.close()
    assert isinstance(services.surfaces[Surface.VELOCITY].requests, int)


def test_settings_are_read_late_and_their_mistakes_are_told(monkeypatch):
    monkeypatch.setenv("ZLH_LEASE_SECONDS", "5")
    services = Services()
    with pytest.raises(SettingsError, match="ZLH_LEASE_SECONDS"):
        _ = services.settings


def test_the_whole_way_is_real_http(platform):
    """The sandbox behind these services is a server, not a stand-in for the client."""
    assert httpx.get(f"{platform.sandbox.url}/sandbox/state").status_code == 200
    platform.services().surfaces[Surface.VELOCITY].list_records()
    [entry] = platform.sandbox.edge.journal.entries()
    assert (entry.surface, entry.method, entry.path) == ("velocity", "GET", "/zpack/list")
