"""Which path of which surface is answered by what."""

from starlette.routing import Route

from zlh_dagster.sandbox.cloudflare_api import CloudflareApi
from zlh_dagster.sandbox.edge import Edge
from zlh_dagster.sandbox.gate import Endpoint, Gate
from zlh_dagster.sandbox.proxmox_api import ProxmoxApi
from zlh_dagster.sandbox.technitium_api import TechnitiumApi

_READ = ("GET",)
_ANY = ("GET", "POST", "PUT", "PATCH", "DELETE")


def provider_routes(edge: Edge) -> list[Route]:
    """The routes of every pretend provider."""
    gate = Gate(edge)
    return [
        *gate.routes("cloudflare", edge.cloudflare, _cloudflare(edge)),
        *gate.routes("technitium", edge.technitium, _technitium(edge)),
        *gate.routes("velocity", edge.velocity, _velocity(edge)),
        *gate.routes("discord", edge.discord, _discord(edge)),
        *gate.routes("heartbeat", None, _heartbeat(edge)),
        *gate.routes("proxmox", None, _proxmox(edge)),
    ]


def _cloudflare(edge: Edge) -> list[Endpoint]:
    api = CloudflareApi(edge.config, edge.cloudflare)
    listing = "/client/v4/zones/{zone_id}/dns_records"
    one = f"{listing}/{{record_id}}"
    return [
        Endpoint("/client/v4/zones/{zone_id}", _READ, api.guarded(api.read_zone)),
        Endpoint(listing, _READ, api.guarded(api.list_records), listing=True),
        Endpoint(listing, ("POST",), api.guarded(api.create), write=True),
        Endpoint(f"{listing}/batch", ("POST",), api.guarded(api.batch), write=True),
        Endpoint(one, _READ, api.guarded(api.read)),
        Endpoint(one, ("PATCH",), api.guarded(api.patch), write=True),
        Endpoint(one, ("PUT",), api.guarded(api.put), write=True),
        Endpoint(one, ("DELETE",), api.guarded(api.delete), write=True),
        Endpoint("/client/v4/{rest:path}", _ANY, api.no_route),
    ]


def _technitium(edge: Edge) -> list[Endpoint]:
    api = TechnitiumApi(edge.config, edge.technitium)
    either = ("GET", "POST")
    prefix = "/api/zones/records"
    return [
        Endpoint(f"{prefix}/get", either, api.guarded(api.get), listing=True),
        Endpoint(f"{prefix}/add", either, api.guarded(api.add), write=True),
        Endpoint(f"{prefix}/update", either, api.guarded(api.update), write=True),
        Endpoint(f"{prefix}/delete", either, api.guarded(api.delete), write=True),
        Endpoint("/api/user/profile/get", either, api.guarded(api.profile)),
        Endpoint("/api/zones/permissions/get", either, api.guarded(api.permissions)),
        Endpoint("/api/{rest:path}", _ANY, api.no_route),
    ]


def _velocity(edge: Edge) -> list[Endpoint]:
    bridge = edge.velocity
    return [
        Endpoint("/zpack/list", _READ, bridge.guarded(bridge.list_servers), listing=True),
        Endpoint("/zpack/register", ("POST",), bridge.guarded(bridge.register), write=True),
        Endpoint(
            "/zpack/unregister",
            ("POST", "DELETE"),
            bridge.guarded(bridge.unregister),
            write=True,
        ),
        Endpoint("/zpack/{rest:path}", _ANY, bridge.no_route),
    ]


def _discord(edge: Edge) -> list[Endpoint]:
    discord = edge.discord
    message = "messages/{message_id}"
    endpoints = []
    # A webhook of Discord's own ends in its token; here any will do, and none.
    for webhook in ("/discord/{level}", "/discord/{level}/{token}"):
        endpoints += [
            Endpoint(webhook, _READ, discord.guarded(discord.read)),
            Endpoint(webhook, ("POST",), discord.guarded(discord.post), write=True),
            Endpoint(
                f"{webhook}/{message}", ("PATCH",), discord.guarded(discord.patch), write=True
            ),
        ]
    return [*endpoints, Endpoint("/discord/{rest:path}", _ANY, discord.no_route)]


def _heartbeat(edge: Edge) -> list[Endpoint]:
    beat = edge.heartbeat.beat
    return [
        Endpoint("/heartbeat{token:path}", _READ, beat),
        Endpoint("/heartbeat{token:path}", ("POST",), beat, write=True),
    ]


def _proxmox(edge: Edge) -> list[Endpoint]:
    api = ProxmoxApi(edge.config, edge.containers)
    listing = "/api2/json/nodes/{node}/lxc"
    return [
        Endpoint(listing, _READ, api.guarded(api.list_containers), listing=True),
        Endpoint("/api2/json/access/permissions", _READ, api.guarded(api.permissions)),
        Endpoint("/api2/json/{rest:path}", _ANY, api.guarded(api.no_route)),
    ]
