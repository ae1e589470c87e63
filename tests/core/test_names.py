"""What a platform row may be called, and where it may listen."""

import pytest

from zlh_dagster.core.names import (
    SRV_PREFIXES,
    InvalidServer,
    backend_content,
    canonical_address,
    container_address,
    game_of,
    game_port,
    host_label,
    normalise_name,
    service_of,
    split_backend,
    srv_content,
)

ZONE = "example.gg"


@pytest.mark.parametrize(
    "hostname",
    ["mc-5000", "MC-5000", "mc-5000.", "mc-5000.example.gg", "Mc-5000.Example.GG."],
)
def test_a_label_and_a_full_name_in_the_zone_are_the_same_server(hostname):
    assert host_label(hostname, ZONE) == "mc-5000"


@pytest.mark.parametrize("hostname", ["a", "5", "a" * 63, "xn--bcher-kva", "0-0"])
def test_every_label_of_rfc_1123_is_allowed(hostname):
    assert host_label(hostname, ZONE) == hostname


@pytest.mark.parametrize(
    "hostname",
    [
        "",
        ".",
        ".example.gg",
        "example.gg",
        "a" * 64,
        "a" * 300,
        "-mc",
        "mc-",
        "mc_1",
        "mc 1",
        " mc-1",
        "mc-1 ",
        "a.b",
        "a.b.example.gg",
        "mc-1..",
        "mc-1.example.com",
        "mc-1.notexample.gg",
        "mc-1.example.gg.example.gg",
        "*",
        "*.example.gg",
        "mc-1\n",
        "mc\n1",
        "mc-1\x00",
        "@everyone",
        "<@123>",
        "`rm`",
        "müller",
        "мс-1",
        "mc１",
        "ｍｃ",
        "mc-1\u202e",
        "mc/../1",
        "10.0.0.1",
        None,
        5000,
        True,
        b"mc-1",
        ["mc-1"],
        float("nan"),
    ],
)
def test_anything_else_is_refused_and_the_field_named(hostname):
    with pytest.raises(InvalidServer, match=r"^hostname: ") as refused:
        host_label(hostname, ZONE)
    assert len(str(refused.value)) < 250, "what a customer typed does not flood the message"
    assert "\n" not in str(refused.value)


def test_a_letter_that_only_becomes_ascii_when_lowered_is_no_letter_of_a_name():
    """U+212A, the Kelvin sign, lowers to an ASCII k: it must not pass for another server's k."""
    assert "\u212a".lower() == "k"
    with pytest.raises(InvalidServer):
        host_label("\u212aube", ZONE)


def test_a_name_that_the_zone_makes_too_long_is_refused():
    """253 characters is what a full name may have, the longest SRV prefix included."""
    zone = ".".join(["z" * 50] * 4)
    room = 253 - len(zone) - len("_projectzomboid._udp..")
    assert host_label("a" * room, zone) == "a" * room
    with pytest.raises(InvalidServer, match="too long"):
        host_label("a" * (room + 1), zone)


def test_names_are_compared_in_lower_case_without_their_final_dot():
    assert normalise_name("MC-1.Example.GG.") == "mc-1.example.gg"


@pytest.mark.parametrize(
    ("game", "prefix", "port"),
    [
        ("minecraft", "_minecraft._tcp", 25565),
        ("rust", "_rust._udp", 28015),
        ("terraria", "_terraria._tcp", 7777),
        ("projectzomboid", "_projectzomboid._udp", 16261),
        ("valheim", "_valheim._udp", 2456),
        ("palworld", "_palworld._udp", 8211),
        ("factorio", "_game._tcp", 25565),
        ("anything else", "_game._tcp", 25565),
    ],
)
def test_each_game_has_its_service_and_default_port(game, prefix, port):
    service = service_of(game)
    assert (service.prefix, service.port) == (prefix, port)
    assert game_port(None, service) == port
    assert prefix in SRV_PREFIXES


def test_a_game_is_named_in_any_case():
    assert game_of({"game": " Minecraft "}) == "minecraft"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "minecraft",
        5,
        {},
        {"game": None},
        {"game": ""},
        {"game": "  "},
        {"game": 5},
        {"game": ["minecraft"]},
        {"game": {"name": "minecraft"}},
        {"Game": "rust"},
    ],
)
def test_a_payload_without_a_game_is_refused(payload):
    with pytest.raises(InvalidServer, match=r"^payload: "):
        game_of(payload)


@pytest.mark.parametrize(
    ("allocated", "port"),
    [
        (None, 25565),
        ({}, 25565),
        ({"game": None}, 25565),
        ({"game": []}, 25565),
        ({"query": [7]}, 25565),
        ({"game": [1]}, 1),
        ({"game": [65535]}, 65535),
        ({"game": [30000, 30001]}, 30000),
        ({"game": [30000, "rubbish"]}, 30000),
    ],
)
def test_the_first_allocated_game_port_counts_else_the_default(allocated, port):
    assert game_port(allocated, service_of("minecraft")) == port


@pytest.mark.parametrize(
    "first", ["25565", -1, 0, 65536, 70000, True, False, 25565.0, None, [25565], {}, 10**400]
)
def test_a_port_that_cannot_be_read_is_never_replaced_by_a_guess(first):
    with pytest.raises(InvalidServer, match=r"^allocatedPorts: ") as refused:
        game_port({"game": [first]}, service_of("minecraft"))
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("allocated", [[], [25565], "25565", 25565, {"game": 25565}, {"game": "1"}])
def test_ports_of_another_shape_are_refused(allocated):
    with pytest.raises(InvalidServer, match=r"^allocatedPorts: "):
        game_port(allocated, service_of("minecraft"))


@pytest.mark.parametrize(
    ("ip", "address"),
    [
        ("10.60.0.1", "10.60.0.1"),
        (" 10.60.0.1 ", "10.60.0.1"),
        ("FD00:0:0::10", "fd00::10"),
        ("fd00:0000::0010", "fd00::10"),
    ],
)
def test_an_address_is_read_into_its_canonical_form(ip, address):
    assert container_address(ip) == address


@pytest.mark.parametrize(
    "ip",
    [
        None,
        "",
        " ",
        10,
        True,
        "localhost",
        "10.60.0",
        "10.60.0.256",
        "10.60.0.01",
        "10.60.0.1/24",
        "10.60.0.1:25565",
        "[fd00::1]",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "10.60.0.1,10.60.0.2",
        "http://10.60.0.1",
        "１0.60.0.1",
        "x" * 300,
    ],
)
def test_what_is_no_address_of_one_host_is_refused(ip):
    with pytest.raises(InvalidServer, match=r"^ip: ") as refused:
        container_address(ip)
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.60.0.1", "10.60.0.1"),
        ("fd00:0:0:0:0:0:0:10", "fd00::10"),
        ("FD00::10", "fd00::10"),
        ("Lobby.internal", "lobby.internal"),
    ],
)
def test_an_address_is_the_same_however_a_proxy_spells_it(text, address):
    assert canonical_address(text) == address


@pytest.mark.parametrize("address", ["10.60.0.1", "fd00::10", "::ffff:10.60.0.1"])
def test_a_backend_is_split_into_what_it_was_joined_from(address):
    assert split_backend(backend_content(address, 25565)) == (address, 25565)


def test_an_ipv6_backend_stands_in_brackets():
    assert backend_content("fd00::10", 25565) == "[fd00::10]:25565"


def test_srv_targets_are_compared_without_final_dot_and_case():
    assert srv_content(port=1, target="MC.Example.GG.") == "0 0 1 mc.example.gg"
    assert srv_content(priority=5, weight=6, port=7, target="a") == "5 6 7 a"
