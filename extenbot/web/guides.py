"""The values to paste into a PBX for one bot (product words of each PBX's own pages)."""

from __future__ import annotations

from typing import NamedTuple

from extenbot.interfaces import Bot
from extenbot.web.seams import Connection


class Value(NamedTuple):
    label: str
    text: str
    copied: bool = True  # whether it is a value to copy, or only something to choose


class Guide(NamedTuple):
    name: str
    where: str
    values: tuple[Value, ...]


def host(domain: str) -> str:
    """The domain as it stands in a URI: IPv6 addresses in brackets."""
    return f"[{domain}]" if ":" in domain else domain


def values(bot: Bot, connection: Connection) -> tuple[Value, ...]:
    """What every PBX and every phone needs to know."""
    domain, ports = host(connection.domain), connection.rtp_ports
    return (
        Value("Server address", connection.domain),
        Value("Port", f"{connection.sip_port} {connection.sip_transport}", copied=False),
        Value("Username", bot.username),
        Value("Password", bot.password),
        Value("Domain and realm", connection.domain),
        Value("Contact user", bot.username),
        Value("SIP URI of the bot", f"openai@{domain}"),
        Value("SIP URI, digits only", f"70000000000@{domain}"),
        Value("Codecs", "G.711 µ-law (PCMU) and A-law (PCMA)", copied=False),
        Value("RTP ports", f"{ports.start}–{ports.stop - 1} UDP", copied=False),
        Value("Contacts", "at most 5 at one time", copied=False),
    )


def guides(bot: Bot, connection: Connection) -> tuple[Guide, ...]:
    domain = host(connection.domain)
    proxy = f"{domain}:{connection.sip_port}"
    freepbx = (
        Value("Trunk Name", f"extenbot-{bot.username}"),
        Value("Username", bot.username),
        Value("Auth username", bot.username),
        Value("Secret", bot.password),
        Value("Authentication", "Outbound", copied=False),
        Value("Registration", "Send", copied=False),
        Value("SIP Server", connection.domain),
        Value("SIP Server Port", str(connection.sip_port)),
        Value("Context", "from-internal"),
        Value("Contact User", bot.username),
        Value("From Domain", connection.domain),
        Value("From User", bot.username),
        Value("Codecs", "ulaw, alaw", copied=False),
        Value("Outbound route dials", "70000000000"),
    )
    fusionpbx = (
        Value("Gateway", f"extenbot-{bot.username}"),
        Value("Username", bot.username),
        Value("Password", bot.password),
        Value("From Domain", connection.domain),
        Value("Proxy", proxy),
        Value("Register", "True", copied=False),
        Value("Profile", "external", copied=False),
        Value("Bridge over the gateway to", f"openai@{domain}"),
        Value("Outbound route, for example", "500"),
    )
    phone = (
        Value("User or auth ID", bot.username),
        Value("Password", bot.password),
        Value("Domain, registrar", proxy if connection.sip_port != 5060 else connection.domain),
        Value("Transport", connection.sip_transport, copied=False),
        Value("Then dial", "openai"),
    )
    return (
        Guide("FreePBX", "Connectivity → Trunks → Add Trunk → PJSIP trunk", freepbx),
        Guide("FusionPBX", "Accounts → Gateways → Add, then a bridge and an outbound route", fusionpbx),
        Guide("Softphone", "A new SIP account in the phone", phone),
    )
