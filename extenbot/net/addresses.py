"""What this machine is called on the network, and whether a place to listen is free."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from functools import lru_cache

from extenbot.errors import CannotStart
from extenbot.interfaces import Address
from extenbot.settings import Advertised, Endpoint

ANY = frozenset({"", "0.0.0.0", "::"})
#: TEST-NET-1 (RFC 5737): never routed specially, so the way to it is the way to the internet
_OUTSIDE = "192.0.2.1"


@lru_cache(maxsize=4096)
def local_toward(host: str) -> str:
    """The address of ours that packets to `host` leave from; 127.0.0.1 when there is no way. Sends nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            address: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
    return address


def outward() -> str:
    """This machine's own outward address, without asking anybody; 127.0.0.1 on a machine without a network."""
    return local_toward(_OUTSIDE)


def nearest(places: Iterable[Address], peer: str) -> Address | None:
    """Of the places where we listen the one that suits a peer: where packets to it leave from, or a wild card.

    One of the right IP version that is neither is better than none.
    """
    six = ":" in peer
    fitting = [place for place in places if (":" in place[0]) == six]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    toward = local_toward(peer)
    return min(fitting, key=lambda place: 0 if place[0] == toward else 1 if place[0] in ANY else 2)


def advertised(rules: Advertised, interface: str, peer: str) -> str:
    """What the peer at the address `peer` is told to reach us by: what the settings say, else our address toward it.

    `interface` is what we are bound to; a wild card, or one of the other IP version, is of no use to the peer.
    """
    told = rules.toward(peer)
    if told or (interface not in ANY and (":" in interface) == (":" in peer)):
        return told or interface
    return local_toward(peer)


def listening_error(endpoint: Endpoint, error: OSError | None) -> CannotStart:
    """The one line an operator needs when `endpoint` cannot be listened on."""
    words = (
        {
            errno.EADDRINUSE: "another program uses this port",
            errno.EACCES: "this port needs root",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(error.errno or 0, os.strerror(error.errno or 0))
        if error
        else "not possible"
    )
    return CannotStart(f"cannot listen on {endpoint}: {words}")


def bound(endpoint: Endpoint, kind: socket.SocketKind) -> socket.socket:
    """A socket bound for `endpoint`, of IPv6 alone when that is what it names; `CannotStart` with the reason."""
    family = socket.AF_INET6 if ":" in endpoint.interface else socket.AF_INET
    handle: socket.socket | None = None
    try:
        handle = socket.socket(family, kind)
        if family == socket.AF_INET6:  # otherwise [::] would take 0.0.0.0 as well, and see IPv4 in disguise
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind((endpoint.interface, endpoint.port))
        if kind == socket.SOCK_STREAM:
            handle.listen(128)
        handle.setblocking(False)
    except OSError as error:
        if handle is not None:
            handle.close()
        raise listening_error(endpoint, error) from None
    return handle
