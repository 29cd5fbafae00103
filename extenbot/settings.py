"""The settings: frozen dataclasses read from one TOML file, with `EXTENBOT_*` above it.

`load` reports all mistakes at once, each with its key. Nothing here opens a socket or
asks the machine for its address: an empty `domain` or `advertise` means "find out when
you start". Relative paths in the file are relative to the file, others to the working
directory. docs/settings.md lists every key.
"""

from __future__ import annotations

import ipaddress
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from extenbot.errors import SettingsError
from extenbot.interfaces import Price
from extenbot.networks import Network

T = TypeVar("T")
ENVIRONMENT = "EXTENBOT_"
DIGESTS = ("SHA-256", "SHA-512-256", "MD5")


class Endpoint(NamedTuple):
    """A place to listen, from a Twisted-style string such as `udp:5060:interface=0.0.0.0`."""

    kind: str
    port: int
    interface: str = ""

    def __str__(self) -> str:
        interface = self.interface.replace(":", "\\:")
        return f"{self.kind}:{self.port}" + (f":interface={interface}" if interface else "")


@dataclass(frozen=True, slots=True)
class Advertised:
    """What we call ourselves to others, each peer by its address. The rule is one for SIP and for RTP:

    the first of `networks` that the peer is in decides; else the first of `hosts` that is of use to it, which is
    an address of its own IP version, or a name.
    """

    networks: tuple[tuple[Network, str], ...] = ()
    hosts: tuple[str, ...] = ()

    def toward(self, peer: str) -> str:
        """Our address or name for the peer at the address `peer`; empty when nothing here is meant for it."""
        if self.networks:
            try:
                address = ipaddress.ip_address(peer)
            except ValueError:
                address = None
            for network, host in self.networks:
                if address is not None and address in network:
                    return host
        six = ":" in peer
        return next((host for host in self.hosts if not _numeric(host) or (":" in host) == six), "")


def _numeric(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


# -- Readers: a raw value (from TOML, or text from the environment) to a value, or ValueError with a sentence --


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"must be text, not {raw!r}")
    return raw.strip()


def _domain(raw: object) -> str:
    text = _text(raw)
    if text and not re.fullmatch(r"[A-Za-z0-9.\-]+|[0-9A-Fa-f:]+|\[[0-9A-Fa-f:]+\]", text):
        raise ValueError(f"must be a host name or an address without a port, not {text!r}")
    return text.strip("[]").lower()


def _address(raw: object) -> str:
    text = _text(raw).strip("[]")
    if text:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f"must be an IP address, not {text!r}") from None
    return text


def _advertised(host: Callable[[object], str]) -> Callable[[object], Advertised]:
    """One of `HOST` and `NETWORK=HOST`, or a list of them; `host` reads a host."""

    def read(raw: object) -> Advertised:
        texts = re.split(r"[,\s]+", raw) if isinstance(raw, str) else raw
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"must be an address or a list of them, not {raw!r}")
        networks, hosts = [], []
        for text in filter(None, (text.strip() for text in texts)):
            before, equals, after = text.rpartition("=")
            told = host(after)
            if not told:
                raise ValueError(f"must name an address after the equals sign, not {text!r}")
            if not equals:
                hosts.append(told)
                continue
            try:
                network = ipaddress.ip_network(before.strip())
            except ValueError:
                raise ValueError(f"must be a network such as 10.0.0.0/8 before the equals sign, not {text!r}") from None
            if _numeric(told) and (":" in told) != (network.version == 6):
                raise ValueError(f"must tell a network an address of its own IP version, not {text!r}")
            networks.append((network, told))
        return Advertised(tuple(networks), tuple(hosts))

    return read


_MOST = 100_000.0  # USD, of any price
_NO_PRICE = 'must be like {"text": [4, 0.4, 24], "audio": [32, 0.4, 64]} or {"minute": 0.05}'


def _prices(raw: object) -> tuple[tuple[str, Price], ...]:
    """Tables of the file, or JSON of the same form."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw) if raw.strip() else {}
        except ValueError:
            raise ValueError(f"must be JSON, not {raw!r}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"must be a table for each model, not {raw!r}")
    return tuple((model, _price(model, told)) for model, told in raw.items())


def _price(model: str, told: object) -> Price:
    if not isinstance(told, dict) or not told or not told.keys() <= {"text", "audio", "minute"}:
        raise ValueError(f"of {model} {_NO_PRICE}, not {told!r}")
    values: dict[str, Any] = {}
    for name, value in told.items():
        numbers = value if isinstance(value, list) else [value]
        good = all(isinstance(n, (int, float)) and not isinstance(n, bool) and 0 <= n <= _MOST for n in numbers)
        if not good or isinstance(value, list) != (name != "minute") or len(numbers) != (1 if name == "minute" else 3):
            raise ValueError(f"of {model} {_NO_PRICE}, in USD, not {name} = {value!r}")
        values[name] = float(numbers[0]) if name == "minute" else tuple(float(n) for n in numbers)
    return Price(**values)


def _path(raw: object) -> Path:
    return Path(_text(raw)).expanduser()


def _whole(low: int, high: int) -> Callable[[object], int]:
    def read(raw: object) -> int:
        try:
            number = int(raw) if isinstance(raw, str) else raw
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {raw!r}")
        return number

    return read


def _seconds(low: float, high: float) -> Callable[[object], float]:
    def read(raw: object) -> float:
        try:
            number = float(raw) if isinstance(raw, (str, int, float)) and not isinstance(raw, bool) else None
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ValueError(f"must be seconds from {low:g} to {high:g}, not {raw!r}")
        return number

    return read


def _session_expires(raw: object) -> int:
    seconds = _whole(0, 86400)(raw)
    if 0 < seconds < 90:  # RFC 4028 5
        raise ValueError(f"must be 0 or a whole number from 90 to 86400, not {raw!r}")
    return seconds


def _flag(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
    if isinstance(raw, str) and raw.strip().lower() in words:
        return words[raw.strip().lower()]
    raise ValueError(f"must be true or false, not {raw!r}")


def _url(*schemes: str) -> Callable[[object], str]:
    def read(raw: object) -> str:
        text = _text(raw)
        if not text:
            return text
        try:
            parts = urlsplit(text)
            good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"must be a URL that begins with {' or '.join(s + '://' for s in schemes)}, not {text!r}")
        return text

    return read


def _database(raw: object) -> str:
    text = _text(raw)
    if text and not re.match(r"(sqlite|postgresql)(\+\w+)?://", text):
        raise ValueError(f"must begin with sqlite:// or postgresql://, not {text.split('@')[-1]!r}")
    return text


def endpoint(text: str, kinds: tuple[str, ...]) -> Endpoint:
    """Read one endpoint string; a colon inside a value is written `\\:`. Raises ValueError with a sentence."""
    parts = [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", text.strip())]
    example = f"{kinds[0]}:5060:interface=127.0.0.1"
    if parts[0] not in kinds or len(parts) < 2:
        raise ValueError(f"must look like {example} ({' or '.join(kinds)} first), not {text!r}")
    port = _whole(0, 65535)(parts[1])
    interface = ""
    for part in parts[2:]:
        key, _, value = part.partition("=")
        if key != "interface":
            raise ValueError(f"knows only interface=, not {part!r}")
        interface = _address(value)
    return Endpoint(parts[0], port, interface)


def _listen(*kinds: str, optional: bool = False) -> Callable[[object], tuple[Endpoint, ...]]:
    def read(raw: object) -> tuple[Endpoint, ...]:
        texts = re.split(r"[,\s]+", raw.strip()) if isinstance(raw, str) else raw
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"must be a list of endpoints, not {raw!r}")
        found = tuple(endpoint(text, kinds) for text in texts if text)
        if not found and not optional:
            raise ValueError("must name at least one endpoint")
        return found

    return read


def _digests(raw: object) -> tuple[str, ...]:
    words = re.split(r"[,\s]+", raw.strip()) if isinstance(raw, str) else raw
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"must be a list of digest algorithms, not {raw!r}")
    found = tuple(dict.fromkeys(word.strip().upper() for word in words if word.strip()))
    if not found or not set(found) <= set(DIGESTS):
        raise ValueError(f"must name one or more of {', '.join(DIGESTS)}, not {raw!r}")
    return found


def _words(raw: object) -> tuple[str, ...]:
    """A list of words; as text they are separated by commas."""
    texts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"must be a list of words, not {raw!r}")
    return tuple(text.strip() for text in texts if text.strip())


def _networks(raw: object) -> tuple[Network, ...]:
    """A list of addresses and networks; as text they are separated by commas or blanks."""
    words = re.split(r"[,\s]+", raw.strip()) if isinstance(raw, str) else raw
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"must be a list of addresses or networks, not {raw!r}")
    found = []
    for word in words:
        if word:
            try:
                found.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                raise ValueError(f"must name addresses or networks such as 10.0.0.0/8, not {word!r}") from None
    return tuple(found)


def _ports(raw: object) -> range:
    """`10000-20000`: both ends included. RTP takes the even ports, RTCP the odd ones above."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*", _text(raw))
    low, high = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1024 <= low < high <= 65535:
        raise ValueError(f'must look like "10000-20000" within 1024-65535, not {raw!r}')
    return range(low, high + 1)


def _setting(default: Any, read: Callable[[object], Any], says: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"read": read, "says": says})


@dataclass(frozen=True, slots=True)
class Sip:
    listen: tuple[Endpoint, ...] = _setting(
        (Endpoint("udp", 5060, "0.0.0.0"),), _listen("udp", "tcp", "tls"), "where SIP is answered"
    )
    certificate: Path | None = _setting(None, _path, "TLS certificate with its chain, PEM; needed for tls: endpoints")
    key: Path | None = _setting(None, _path, "the private key of `certificate`, PEM")
    trust: Path | None = _setting(
        None, _path, "more authorities, or PBXs' own certificates, that a PBX we connect to by TLS may show, PEM"
    )
    advertise: Advertised = _setting(
        Advertised(), _advertised(_domain), "hosts for Via and Contact; none: the address of the interface used"
    )
    expires: int = _setting(3600, _whole(60, 86400), "longest time a registration lasts, seconds")
    min_expires: int = _setting(60, _whole(1, 3600), "shortest registration accepted, seconds (else 423)")
    nonce_life: int = _setting(300, _whole(10, 86400), "how long a digest nonce is good, seconds")
    session_expires: int = _setting(
        1800, _session_expires, "a call is refreshed twice in so many seconds, so that a dead one is noticed; 0: never"
    )
    digest: tuple[str, ...] = _setting(("SHA-256", "MD5"), _digests, "digest algorithms, in the order they are offered")
    keepalive: float = _setting(
        30.0, _seconds(0, 3600), "a registrant shows so often that its way to the PBX is in use, seconds; 0: never"
    )


@dataclass(frozen=True, slots=True)
class Rtp:
    ports: range = _setting(range(10000, 20001), _ports, "UDP ports for RTP and RTCP")
    interface: str = _setting("0.0.0.0", _address, "address the RTP sockets are bound to")
    advertise: Advertised = _setting(
        Advertised(), _advertised(_address), "addresses written into SDP; none: that of the interface used"
    )
    timeout: float = _setting(
        60.0, _seconds(1, 3600), "a call without any RTP from the caller ends after this, seconds"
    )


@dataclass(frozen=True, slots=True)
class Web:
    listen: tuple[Endpoint, ...] = _setting(
        (Endpoint("tcp", 8080, "127.0.0.1"),), _listen("tcp", optional=True), "where the pages are served; [] for none"
    )
    url: str = _setting("", _url("http", "https"), "the address by which browsers reach the pages")
    sign_up: bool = _setting(True, _flag, "whether strangers may make an account in the pages")


@dataclass(frozen=True, slots=True)
class Database:
    url: str = _setting("", _database, "SQLAlchemy URL; empty: SQLite in `data`", secret=True)  # holds a password


@dataclass(frozen=True, slots=True)
class Ai:
    url: str = _setting("wss://api.openai.com/v1/realtime", _url("ws", "wss"), "Realtime service of bots without one")
    open_timeout: float = _setting(10.0, _seconds(0.1, 120), "a voice session not ready by then is refused")
    prices: tuple[tuple[str, Price], ...] = _setting(
        (), _prices, "what models cost, above the built-in table: USD per million tokens or per minute"
    )


@dataclass(frozen=True, slots=True)
class Sandbox:
    listen: tuple[Endpoint, ...] = _setting(
        (Endpoint("tcp", 0, "127.0.0.1"),), _listen("tcp"), "where the local voice listens; port 0: any free one"
    )
    scripts: Path | None = _setting(None, _path, "folder of voice scripts; NAME.txt serves the model sandbox-NAME")
    whisper: Path | None = _setting(None, _path, "folder of a faster-whisper model; empty: the installed one")
    piper: Path | None = _setting(None, _path, "a Piper voice, the .onnx file; empty: the installed one")


@dataclass(frozen=True, slots=True)
class Recordings:
    folder: Path | None = _setting(None, _path, "where recordings of calls are kept; empty: `recordings` in `data`")
    days: int = _setting(0, _whole(0, 36500), "recordings are deleted after so many days; 0: never")


@dataclass(frozen=True, slots=True)
class Tools:
    allow: tuple[Network, ...] = _setting(
        (), _networks, "private networks that functions, MCP servers and webhooks of bots may be in"
    )
    in_flight: int = _setting(
        8, _whole(1, 1000), "requests of one bot, and uses of one MCP server, at one time; more wait"
    )
    redirects: int = _setting(3, _whole(0, 20), "redirects that are followed, each to an allowed address")
    reply: int = _setting(256, _whole(1, 10240), "longest reply, KiB; a stream of events may be eight times that")
    trust: Path | None = _setting(None, _path, "more authorities that their servers' certificates may be of, PEM")


@dataclass(frozen=True, slots=True)
class Console:
    listen: tuple[Endpoint, ...] = _setting(
        (Endpoint("tcp", 2222, "127.0.0.1"),), _listen("tcp"), "where the SSH console listens"
    )
    authorized_keys: Path | None = _setting(None, _path, "who may use the console; empty: no console")


@dataclass(frozen=True, slots=True)
class Limits:
    calls: int = _setting(400, _whole(1, 100000), "calls at one time, all bots")
    connections: int = _setting(
        1000, _whole(1, 100000), "TCP and TLS connections for SIP that are taken at one time; as many are made"
    )
    calls_per_bot: int = _setting(50, _whole(1, 100000), "calls at one time, one bot")


#: what scanners call themselves; a part of the User-Agent, in any letters
SCANNERS = (
    "friendly-scanner",
    "friendly-request",
    "sipvicious",
    "sipcli",
    "sip-scan",
    "sipscan",
    "siparmyknife",
    "sundayddr",
    "VaxSIPUserAgent",
    "VaxIPUserAgent",
    "pplsip",
    "iWar",
    "sivus",
    "Gulp/",
    "smap ",
)


@dataclass(frozen=True, slots=True)
class Guard:
    enabled: bool = _setting(True, _flag, "whether strangers are limited and banned")
    messages: int = _setting(30, _whole(1, 100000), "messages a second from one source that is not known")
    burst: int = _setting(100, _whole(1, 1000000), "so many may come at once")
    failures: int = _setting(10, _whole(1, 10000), "wrong passwords that ban a source")
    ban: int = _setting(
        60, _whole(1, 86400), "how long the first ban lasts, seconds; the next are 5, 30, 240 times that"
    )
    scanners: tuple[str, ...] = _setting(
        SCANNERS, _words, "parts of a User-Agent that is answered once and then no more"
    )


@dataclass(frozen=True, slots=True)
class Settings:
    domain: str = _setting("", _domain, "the name PBXs know us by; empty: this machine's outward address")
    data: Path = _setting(Path("var"), _path, "folder of the database and the keys")
    sip: Sip = field(default_factory=Sip)
    rtp: Rtp = field(default_factory=Rtp)
    web: Web = field(default_factory=Web)
    database: Database = field(default_factory=Database)
    ai: Ai = field(default_factory=Ai)
    sandbox: Sandbox = field(default_factory=Sandbox)
    recordings: Recordings = field(default_factory=Recordings)
    tools: Tools = field(default_factory=Tools)
    console: Console = field(default_factory=Console)
    limits: Limits = field(default_factory=Limits)
    guard: Guard = field(default_factory=Guard)

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database.url or f"sqlite:///{self.data.absolute() / 'extenbot.sqlite3'}"

    @property
    def recordings_folder(self) -> Path:
        """Where recordings are kept."""
        return self.recordings.folder or self.data / "recordings"

    @property
    def key_file(self) -> Path:
        """The keys that secrets in the database are encrypted with."""
        return self.data / "keys"


SECTIONS: dict[str, type[Any]] = {
    "sip": Sip,
    "rtp": Rtp,
    "web": Web,
    "database": Database,
    "ai": Ai,
    "sandbox": Sandbox,
    "recordings": Recordings,
    "tools": Tools,
    "console": Console,
    "limits": Limits,
    "guard": Guard,
}


def load(config: Path | None, environment: Mapping[str, str]) -> Settings:
    """The settings in force; `SettingsError` with every mistake when there is one.

    Without `config`, `EXTENBOT_CONFIG` names the file, else `extenbot.toml` in the
    working directory is taken when it is there.
    """
    named = config or (Path(environment["EXTENBOT_CONFIG"]) if environment.get("EXTENBOT_CONFIG") else None)
    problems: list[tuple[str, str]] = []
    document: dict[str, Any] = {}
    path = named or Path("extenbot.toml")
    if named or path.exists():
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            problems.append((str(path), f"cannot be read: {error.strerror}"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problems.append((str(path), f"is not TOML: {error}"))
    raw = _flatten(document, problems)
    for key, value in raw.items():  # a path in the file is meant from where the file is
        if key in _PATHS and isinstance(value, str) and value:
            raw[key] = str(path.parent / Path(value).expanduser())
    raw |= _keys_of(environment, problems)
    settings = _build(raw, problems)
    problems += _at_odds(settings.sip)
    if problems:
        raise SettingsError(problems)
    return settings


Key = tuple[str, str]  # section ("" for the top) and name


def _readers() -> dict[Key, Callable[[object], Any]]:
    found = {("", f.name): f.metadata["read"] for f in fields(Settings) if "read" in f.metadata}
    for section, kind in SECTIONS.items():
        found |= {(section, f.name): f.metadata["read"] for f in fields(kind)}
    return found


_READERS = _readers()
_PATHS = frozenset(key for key, read in _READERS.items() if read is _path)


def _label(key: Key) -> str:
    return f"[{key[0]}] {key[1]}" if key[0] else key[1]


def variable(key: Key) -> str:
    """The environment variable of a key: `EXTENBOT_SECTION_KEY`."""
    return (ENVIRONMENT + "_".join(part for part in key if part)).upper()


def _at_odds(sip: Sip) -> list[tuple[str, str]]:
    """What is wrong only in combination."""
    tls = any(endpoint.kind == "tls" for endpoint in sip.listen)
    files = {"certificate": sip.certificate, "key": sip.key}
    return [
        (_label(("sip", name)), "is needed for a tls: endpoint" if tls else f"is needed beside {other}")
        for name, other in (("certificate", "key"), ("key", "certificate"))
        if files[name] is None and (tls or files[other] is not None)
    ]


def _flatten(document: dict[str, Any], problems: list[tuple[str, str]]) -> dict[Key, object]:
    raw: dict[Key, object] = {}
    for name, value in document.items():
        if name in SECTIONS:
            if not isinstance(value, dict):
                problems.append((name, f"is a section: write [{name}] above its keys"))
                continue
            raw |= {(name, key): inner for key, inner in value.items()}
        else:
            raw["", name] = value
    for key in list(raw):
        if key not in _READERS:
            problems.append((_label(key), "is not a setting"))
            del raw[key]
    return raw


def _keys_of(environment: Mapping[str, str], problems: list[tuple[str, str]]) -> dict[Key, str]:
    names = {variable(key): key for key in _READERS}
    found: dict[Key, str] = {}
    for name, value in environment.items():
        if name in names:
            found[names[name]] = value
        elif name.startswith(ENVIRONMENT) and name != "EXTENBOT_CONFIG":
            problems.append((name, "is not a setting"))
    return found


def _build(raw: dict[Key, object], problems: list[tuple[str, str]]) -> Settings:
    values: dict[str, dict[str, Any]] = {}
    for key, value in raw.items():
        if value == "" and key in _PATHS and key != ("", "data"):
            continue
        try:
            values.setdefault(key[0], {})[key[1]] = _READERS[key](value)
        except ValueError as error:
            problems.append((_label(key), str(error)))
    sections = {name: kind(**values.get(name, {})) for name, kind in SECTIONS.items()}
    return Settings(**values.get("", {}), **sections)
