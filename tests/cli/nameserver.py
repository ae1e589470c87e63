"""An authoritative nameserver on loopback that answers from the sandbox's public zone."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


@contextmanager
def nameserver(sandbox: Any, *, authoritative: bool = True) -> Iterator[str]:
    """Its ``address:port`` while it serves."""
    over = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(0.1)

        def serve() -> None:
            while not over.is_set():
                try:
                    wire, asker = udp.recvfrom(4096)
                except TimeoutError:
                    continue
                udp.sendto(_answer(sandbox, wire, authoritative).to_wire(), asker)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{udp.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def _answer(sandbox: Any, wire: bytes, authoritative: bool) -> dns.message.Message:
    query = dns.message.from_wire(wire)
    answer = dns.message.make_response(query)
    if authoritative:
        answer.flags |= dns.flags.AA
    [question] = query.question
    name = question.name.to_text(omit_final_dot=True)
    found = [r for r in sandbox.edge.cloudflare.named(name) if r.type == "SRV"]
    texts = [f"{d.priority} {d.weight} {d.port} {d.target}." for d in (r.data for r in found)]
    if texts:
        answer.answer.append(dns.rrset.from_text_list(question.name, 300, "IN", "SRV", texts))
    else:
        answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer
