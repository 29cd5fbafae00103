"""How our requests leave us: outside a dialog by a registration, within one by where the call came from."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from extenbot.interfaces import Dial, Flow
from extenbot.sip.transaction import PORT, TLS_PORT
from extenbot.sip.uri import Uri


@dataclass(frozen=True, slots=True)
class Way:
    """What is the same for all requests of one bot to one PBX (RFC 3261 8.1.2, RFC 3608 6.1)."""

    flow: Flow  # where the bytes go first
    routes: tuple[str, ...]  # Route header values, the first hop first
    local: str  # our From URI: the address of record at the PBX
    contact: str  # our Contact URI
    domain: str  # host[:port] that a bare number belongs to
    username: str  # for digest
    password: str = field(repr=False)


def toward(hop: Uri, flow: Flow, seen_as: str) -> Flow:
    """The way to `hop` of a dialog that began on `flow`: RFC 3261 12.2.1.1 where addresses can be believed.

    The other side calls its host `seen_as` itself. Behind NAT a Contact names what only its own network can
    reach, and then, as for hosts without an address, the way the call came is the way back. A connection is
    used as long as it lives.
    """
    source = flow.remote[0]
    port = hop.port or (TLS_PORT if flow.transport == "TLS" else PORT)
    believed = seen_as == source
    try:
        there, here = ipaddress.ip_address(hop.address), ipaddress.ip_address(source)
    except ValueError:
        target = None
    else:
        believed = believed and there.version == here.version and (here.is_private or not there.is_private)
        target = (hop.address, port) if believed else None
    if flow.transport != "UDP":
        return flow._replace(dial=Dial(target or (source, port), hop.address))
    return flow._replace(remote=target) if target else flow
