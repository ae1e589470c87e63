"""What a zone's authoritative servers answer, asked directly, so that no cache stands between."""

from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver

from zlh_dagster.core.names import srv_content

TIMEOUT = 3.0
DNS_PORT = 53


class NotAsked(Exception):
    """A server was not found or gave no authoritative answer; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Nameserver:
    """One server of a zone: its name for people, its address, its port."""

    name: str
    address: str
    port: int = DNS_PORT


def named(text: str) -> Nameserver:
    """A server as an option names it: ``192.0.2.1`` or ``192.0.2.1:5353``.

    Raises:
        NotAsked: If it is no such text.
    """
    host, _, port = text.partition(":")
    try:
        return Nameserver(text, str(ip_address(host)), int(port or DNS_PORT))
    except ValueError:
        raise NotAsked(f"{text}: give an IPv4 address, or address:port") from None


def authorities(zone: str) -> list[Nameserver]:
    """The servers that the zone's NS records name, as this machine's resolver finds them.

    Raises:
        NotAsked: If it finds none.
    """
    try:
        names = [str(record.target) for record in dns.resolver.resolve(zone, "NS", lifetime=10)]
        return [
            Nameserver(name.rstrip("."), address.address)
            for name in sorted(names)
            for address in dns.resolver.resolve(name, "A", lifetime=10)
        ]
    except (dns.exception.DNSException, OSError) as error:
        raise NotAsked(
            f"the nameservers of {zone} were not found ({type(error).__name__}): name one with"
            " --nameserver, or go without them by --no-dns"
        ) from None


def srv_at(server: Nameserver, name: str) -> set[str]:
    """The SRV records of a name at one server, each as ``priority weight port target``.

    Raises:
        NotAsked: If the server does not answer with authority.
    """
    query = dns.message.make_query(name, dns.rdatatype.SRV)
    query.flags &= ~dns.flags.RD
    try:
        answer, _ = dns.query.udp_with_fallback(
            query, server.address, port=server.port, timeout=TIMEOUT
        )
    except (dns.exception.DNSException, OSError) as error:
        raise NotAsked(f"{server.name} does not answer: {type(error).__name__}") from None
    rcode = answer.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or not answer.flags & dns.flags.AA:
        raise NotAsked(f"{server.name} is no authority for {name} ({dns.rcode.to_text(rcode)})")
    return {
        srv_content(
            priority=record.priority,
            weight=record.weight,
            port=record.port,
            target=str(record.target),
        )
        for found in answer.answer
        if found.rdtype == dns.rdatatype.SRV
        for record in found
    }
