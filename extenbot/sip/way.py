"""How a request outside a dialog leaves us: by a registration at a PBX, or to a PBX that registered here."""

from __future__ import annotations

from dataclasses import dataclass, field

from extenbot.interfaces import Flow


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
