"""What is good input for accounts, bots and functions: the one place for pages and commands.

Each `checked_…` gives the value in its settled form or raises `Invalid` with one sentence
for every field that is wrong.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from extenbot import prompt
from extenbot.ai.dialects import DIALECTS, check_extra, name_of
from extenbot.errors import Invalid
from extenbot.interfaces import Bot, Destination
from extenbot.manner import MANNER, Field

T = TypeVar("T")

KINDS = ("registrar", "registrant")
TRANSPORTS = ("udp", "tcp", "tls")  # by which a registrant can reach its PBX
TRANSFERS = ("blind", "attended")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": KINDS,
    "transport": ("", *TRANSPORTS),
    "transfer_mode": TRANSFERS,
    "dialect": ("", *DIALECTS),
    **{name: field.choices for name, field in MANNER.items() if field.choices},
}
"""What the fields of a bot that have a fixed choice may be, the default first unless there is none."""

BOT_FIELDS = frozenset(field.name for field in fields(Bot)) - {"id", "account_id", "functions", "servers", "manner"}
EDITABLE = BOT_FIELDS | MANNER.keys()
"""The fields of a bot that forms and commands may set: its own, and flat beside them those of its manner."""

USUAL_EXPIRES = 600  # seconds
WIDEST = {4: 8, 6: 19}  # the shortest prefix that may be trusted, by IP version: the largest that anybody was given
RESERVED = frozenset({"openai", "70000000000"})  # every bot answers to these request users
LONGEST_INSTRUCTION = 30_000
LONGEST_WELCOME = 2_000
MOST_DESTINATIONS = 20
MOST_URIS = 5  # of one destination
LONGEST_WHEN = 500

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_PORT = r"(?::[0-9]{1,5})?"
_REST = r"(?:[;?][^\s<>\"]*)?"
_SIP_URI = re.compile(rf"[sS][iI][pP][sS]?:(?:[^\s<>\"@]+@)?{_HOST}{_PORT}{_REST}")
_TEL_URI = re.compile(rf"[tT][eE][lL]:\+?[0-9A-Fa-f*#().-]+{_REST}")
_NUMBER = re.compile(r"\+?[0-9*#]{1,32}")
_EMAIL = re.compile(r"[^@\s<>\"(),:;\[\]\\]{1,64}@[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")  # no dot needed: demo@localhost
_LETTERS = string.ascii_letters + string.digits


def new_username() -> str:
    """Ten digits: also a phone's keypad can type it."""
    return secrets.choice("123456789") + "".join(secrets.choice(string.digits) for _ in range(9))


def new_password() -> str:
    """24 letters and digits, 142 random bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(24))


def new_id() -> str:
    return secrets.token_hex(8)


# -- Readers: a text to a value, or ValueError with a sentence ---------------------------


def line(longest: int, *, required: bool = False) -> Callable[[str], str]:
    def read(text: str) -> str:
        text = text.strip()
        if required and not text:
            raise ValueError("This is needed.")
        if len(text) > longest:
            raise ValueError(f"At most {longest} characters, please; these are {len(text)}.")
        if not text.isprintable():
            raise ValueError("One line without control characters, please.")
        return text

    return read


def _lines(longest: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
        if len(text) > longest:
            raise ValueError(f"At most {longest} characters, please; these are {len(text)}.")
        if not all(character.isprintable() or character in "\n\t" for character in text):
            raise ValueError("No control characters other than new lines and tabs, please.")
        return text

    return read


def _prompt(longest: int) -> Callable[[str], str]:
    """Text with variables."""

    def read(text: str) -> str:
        text = _lines(longest)(text)
        try:
            prompt.check(text, "")
        except Invalid as error:
            raise ValueError(*error.problems.values()) from None
        return text

    return read


def document(check: Callable[[str], None]) -> Callable[[str], str]:
    """JSON that people write, kept as it is; an empty one is good."""

    def read(text: str) -> str:
        if not text.strip():
            return ""
        try:
            check(text)
        except Invalid as error:
            raise ValueError(*error.problems.values()) from None
        if "\0" in text:
            raise ValueError("No NUL characters, please.")
        return text

    return read


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError("Choose registrar or registrant.")
    return text


def secret(longest: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        text = line(longest)(text)
        if any(character.isspace() for character in text):
            raise ValueError("No spaces, please.")
        return text

    return read


def _issued_username(text: str) -> str:
    text = line(64, required=True)(text)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", text):
        raise ValueError("Letters, digits and . _ + - only, beginning with a letter or digit.")
    if text.lower() in RESERVED:
        raise ValueError(f"Every bot answers to {text}: choose another username.")
    return text


def _given_username(text: str) -> str:
    text = line(128)(text)
    if not text:
        raise ValueError("A registrant needs the username that its PBX gave out.")
    if not re.fullmatch(r"[^\s\"<>\\:@]+", text):
        raise ValueError('No spaces and none of " < > \\ : @, please.')
    return text


def _proxy(text: str) -> str:
    text = _domain(text)
    port = text.rpartition("]")[2].partition(":")[2]
    if port and not 0 < int(port) < 65536:
        raise ValueError("A port is a number from 1 to 65535.")
    return text


def _auth_id(text: str) -> str:
    text = line(128)(text)
    if text and not re.fullmatch(r"[^\s\"\\]+", text):
        raise ValueError('No spaces and none of " \\, please.')
    return text


def _given_domain(text: str) -> str:
    text = line(253)(text)
    if not text:
        raise ValueError("A registrant needs the domain of its PBX.")
    text = _domain(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    if not re.fullmatch(_HOST, text):
        raise ValueError("A host name or address; its port has a field of its own.")
    return text.strip("[]")


def _domain(text: str) -> str:
    text = line(253)(text).lower()
    if text and not re.fullmatch(_HOST + _PORT, text):
        raise ValueError("A host name or address, with :port when it is not 5060.")
    return text


def url(*schemes: str, required: bool = False) -> Callable[[str], str]:
    def read(text: str) -> str:
        text = line(1000, required=required)(text)
        if not text:
            return text
        try:
            parts = urlsplit(text)
            good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and " " not in text
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"A whole URL, please: it begins with {' or '.join(f'{s}://' for s in schemes)}.")
        return text

    return read


def _transfer_uri(text: str) -> str:
    if "\r" in text or "\n" in text:
        raise ValueError("One line, please.")
    text = line(255)(text)
    if text and not _SIP_URI.fullmatch(text) and not _TEL_URI.fullmatch(text):
        raise ValueError("A SIP or telephone URI, please, such as sip:100@10.8.0.1 or tel:+4930123456.")
    return text


def _callee(text: str) -> str:
    """Whom a call can be sent to: as a transfer, or a plain number at the PBX."""
    text = line(255)(text)
    return text if _NUMBER.fullmatch(text) else _transfer_uri(text)


def _destinations(raw: object) -> tuple[Destination, ...]:
    """Destinations, or mappings with the same names; rows in which nothing is said are left out."""
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise ValueError("A list of destinations, please, each with a name, uris and when.")
    found: dict[str, Destination] = {}
    for position, row in enumerate(raw, 1):
        one = _destination(row, position)
        if one is None:
            continue
        if one.name in found:
            raise ValueError(f"Two destinations are called {one.name}: the model could not tell them apart.")
        found[one.name] = one
    if len(found) > MOST_DESTINATIONS:
        raise ValueError(f"At most {MOST_DESTINATIONS} destinations, please.")
    return tuple(found.values())


def _destination(row: object, position: int) -> Destination | None:
    values: Mapping[str, object] = (
        row._asdict() if isinstance(row, Destination) else row if isinstance(row, Mapping) else {"name": row}
    )
    name, uris, when = (values.get(name, "") for name in Destination._fields)
    if not (isinstance(name, str) and isinstance(uris, str) and isinstance(when, str)):
        raise ValueError(f"Destination {position}: a name, uris and when, please, each a text.")
    if not (name.strip() or uris.strip() or when.strip()):
        return None
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name.strip()):
        raise ValueError(f"Destination {position}: a name of 1 to 32 letters, digits, _ and -, please.")
    try:
        callees = [_callee(uri) for uri in uris.split()]
        if not 1 <= len(callees) <= MOST_URIS:
            raise ValueError(f"One to {MOST_URIS} numbers or URIs, please, separated by blanks.")
        return Destination(name.strip(), " ".join(callees), line(LONGEST_WHEN)(when))
    except ValueError as error:
        raise ValueError(f"Destination {name.strip()}: {error}") from None


def _dialect(text: str) -> str:
    text = text.lower()
    if text and text not in DIALECTS:
        raise ValueError(f"Choose one of {', '.join(DIALECTS)}, or nothing.")
    return text


def _language(text: str) -> str:
    if text and not re.fullmatch(r"[a-z]{2}", text.lower()):
        raise ValueError("Two letters, please, such as en or de (ISO 639-1), or nothing for any language.")
    return text.lower()


#: beyond what `extenbot.manner` knows: read after it
_MANNERS: Mapping[str, Callable[[str], str]] = {
    "dialect": _dialect,
    "transcription_language": _language,
    "refusal_uri": _callee,
    "failure_uri": _transfer_uri,
}


def _mannerly(name: str, field: Field) -> Callable[[object], Any]:
    further = _MANNERS.get(name)
    return (lambda raw: further(field.read(raw))) if further else field.read


def _enabled(raw: object) -> bool:
    return bool(_ENABLED.read(raw))


_ENABLED = Field("", "", True, "flag")


def _port(text: str) -> int:
    if not text.strip():
        return 0
    return _whole(text, 0, 65535)


def _expires(text: str) -> int:
    return _whole(text, 60, 86400) if text.strip() else USUAL_EXPIRES


def _whole(text: str, low: int, high: int) -> int:
    text = text.strip()
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ValueError(f"A whole number from {low} to {high}, please.")
    return int(text)


def _transport(text: str) -> str:
    text = line(10)(text).lower()
    if text and text not in TRANSPORTS:
        raise ValueError(f"Choose {', '.join(TRANSPORTS[:-1])} or {TRANSPORTS[-1]}, or nothing for what DNS says.")
    return text


def _networks(text: str) -> str:
    """Addresses and networks, separated by blanks or commas, written out."""
    found = []
    for word in re.split(r"[\s,]+", text.strip()):
        if not word:
            continue
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise ValueError(f"Addresses or networks such as 10.8.0.1 or 10.8.0.0/24, please: not {word!r}.") from None
        if network.prefixlen == 0:
            raise ValueError(f"{word} is everybody: then anybody could use the bot.")
        found.append(str(network))
    if len(found) > 50:
        raise ValueError("At most 50 networks, please.")
    return " ".join(dict.fromkeys(found))


def _trusted(text: str) -> str:
    """As `_networks`; nobody is an empty text or the word none."""
    if text.strip().lower() == "none":
        return ""
    text = _networks(text)
    for word in text.split():
        if (network := ipaddress.ip_network(word)).prefixlen < WIDEST[network.version]:
            widest = f"a /{WIDEST[4]}, or a /{WIDEST[6]} of IPv6, at the most"
            raise ValueError(f"{word} is too wide to be trusted: {widest}.")
    return text


def _transfer_mode(text: str) -> str:
    if text not in TRANSFERS:
        raise ValueError(f"Choose {' or '.join(TRANSFERS)}.")
    return text


class Reading:
    """Reads fields one after the other and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    def __call__(self, field: str, read: Callable[[Any], T], raw: object) -> T:
        """The value; after a mistake what was given, which goes no further."""
        try:
            str(raw).encode()
            return read(raw)
        except UnicodeEncodeError:
            self.problems[field] = "This is not readable text."
        except ValueError as error:
            self.problems[field] = str(error)
        return cast(T, raw)

    def done(self, value: T) -> T:
        if self.problems:
            raise Invalid(self.problems)
        return value


# -- Whole things --------------------------------------------------------------------------


def with_values(bot: Bot, values: Mapping[str, Any]) -> Bot:
    """The bot with flat values (`EDITABLE`) as they were typed: for `checked_bot`, and for nothing else before it."""
    own = {name: value for name, value in values.items() if name not in MANNER}
    manner = {name: value for name, value in values.items() if name in MANNER}
    return replace(bot, **own, manner=replace(bot.manner, **manner))


def checked_bot(bot: Bot) -> Bot:
    """The bot with every field in its settled form; `Invalid` otherwise."""
    read = Reading()
    registrant = bot.kind == "registrant"
    if registrant and not str(bot.port).strip("0 "):  # people write domain:port
        domain, colon, port = bot.domain.strip().rpartition(":")
        if colon and port.isdigit() and (":" not in domain or domain.endswith("]")):
            bot = replace(bot, domain=domain, port=cast(int, port))
    bot = replace(
        bot,
        name=read("name", line(100, required=True), bot.name),
        kind=read("kind", _kind, bot.kind),
        username=read("username", _given_username if registrant else _issued_username, bot.username),
        password=read("password", line(128), bot.password),
        domain=read("domain", _given_domain if registrant else _domain, bot.domain),
        model=read("model", line(100), bot.model),
        voice=read("voice", line(100), bot.voice),
        token=read("token", secret(500), bot.token),
        ai_url=read("ai_url", url("ws", "wss"), bot.ai_url),
        instruction=read("instruction", _prompt(LONGEST_INSTRUCTION), bot.instruction),
        welcome=read("welcome", _prompt(LONGEST_WELCOME), bot.welcome),
        transfer_uri=read("transfer_uri", _transfer_uri, bot.transfer_uri),
        transfer_mode=read("transfer_mode", _transfer_mode, bot.transfer_mode),
        auth_id=read("auth_id", _auth_id, bot.auth_id),
        outbound_proxy=read("outbound_proxy", _proxy, bot.outbound_proxy),
        port=read("port", _port, str(bot.port)),
        transport=read("transport", _transport, bot.transport),
        expires=read("expires", _expires, str(bot.expires)),
        allowed=read("allowed", _networks, bot.allowed),
        trusted=read("trusted", _trusted, bot.trusted),
        enabled=read("enabled", _enabled, bot.enabled),
        destinations=read("destinations", _destinations, bot.destinations),
        before_url=read("before_url", url("http", "https"), bot.before_url),
        after_url=read("after_url", url("http", "https"), bot.after_url),
        hook_token=read("hook_token", secret(4000), bot.hook_token),
        hook_secret=read("hook_secret", secret(500), bot.hook_secret),
        manner=replace(
            bot.manner,
            **{name: read(name, _mannerly(name, field), getattr(bot.manner, name)) for name, field in MANNER.items()},
        ),
    )
    if bot.manner.refusal == "302" and not bot.manner.refusal_uri:
        read.problems.setdefault("refusal_uri", "A 302 needs a number or URI to send callers to.")
    if not read.problems.keys() & {"extra", "dialect", "ai_url", "model"}:
        try:
            check_extra(bot.manner.extra, name_of(bot.manner.dialect, bot.ai_url, bot.model))
        except Invalid as error:
            read.problems |= error.problems
    if registrant and not bot.password:
        read.problems.setdefault("password", "A registrant needs the password that its PBX gave out.")
    if not registrant and (len(bot.password) < 6 or bot.password == bot.username):
        read.problems.setdefault("password", "At least 6 characters, and not the username: strangers try such ones.")
    return read.done(bot)


def checked_account(email: str, password: str) -> tuple[str, str]:
    """The email in lower case and the password; `Invalid` otherwise."""
    read = Reading()
    return read.done((read("email", _email, email), read("password", _account_password, password)))


def checked_cap(raw: object) -> float:
    """What the bots of an account may cost a day, USD, as typed; `Invalid` otherwise."""
    read = Reading()
    cap: float = read("cap_day", MANNER["cap_day"].read, raw)
    return read.done(cap)


def _email(text: str) -> str:
    text = line(254)(text).lower()
    if not _EMAIL.fullmatch(text) or ".." in text:
        raise ValueError("An email address, please, such as you@example.org.")
    return text


def _account_password(text: str) -> str:
    if len(text) < 8:
        raise ValueError("At least 8 characters, please.")
    if len(text) > 200:
        raise ValueError("At most 200 characters, please.")
    return text
