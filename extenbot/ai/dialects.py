"""What the servers of the Realtime family want differently: one `Dialect` each, found by `of`.

A dialect knows its address, its headers, the form of the session settings, of a response request and of an item, what
audio it takes, and which orders it understands. Under which names its events come is the business of `events`, which
takes all of them from everybody.

The settings of a session hold only what is documented of the server: OpenAI's refuses all of them for one key that it
does not know, and a call would go on with the defaults, in a codec of the server's own choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit, urlunsplit

from extenbot.ai import events, extra
from extenbot.ai.codec import Codec, Pcm
from extenbot.errors import BackendLost
from extenbot.interfaces import Bot, Json, Manner, VoiceOrder

# -- Presets for forms. Any other name works as well.

MODELS: Mapping[str, str] = {
    "gpt-realtime-2.1": "OpenAI, the best one for calls",
    "gpt-realtime-2.1-mini": "OpenAI, a third of the price",
    "gpt-realtime-2": "OpenAI",
    "gpt-realtime-1.5": "OpenAI, without reasoning",
    "gpt-live-1.1": "OpenAI GPT-Live: listens while it speaks, billed by the minute",
    "grok-voice-latest": "xAI, at wss://api.x.ai/v1/realtime",
    "sandbox": "the local voice, needs no key",
}
VOICES = ("marin", "cedar", "alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse")
TRANSCRIBERS = ("gpt-transcribe", "gpt-live-transcribe", "gpt-realtime-whisper")
LIVE = "gpt-live"
DIALECTS: Mapping[str, str] = {
    "openai": "OpenAI Realtime",
    "azure": "Azure OpenAI: the model is the name of the deployment",
    "xai": "xAI Grok Voice",
    "beta": "The flat form of the Realtime beta: speaches, StepFun and older servers of one's own",
    "qwen": "Qwen Omni (DashScope)",
    "localai": "LocalAI",
    "huggingface": "Hugging Face speech-to-speech",
    LIVE: "OpenAI GPT-Live",
}

#: models that refuse all settings when `reasoning` or `parallel_tool_calls` is among them
_PLAIN = re.compile(r"gpt-realtime(-1\.5|-mini.*|-\d{4}-.*)?|gpt-4o.*|gpt-audio.*")

_TOOL_KEYS = ("type", "name", "description", "parameters")

#: of each kind of turn detection
_DETECTION = {
    "server_vad": ("threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms"),
    "semantic_vad": ("eagerness",),
}
_RULES = ("type", "create_response", "interrupt_response")


@dataclass(frozen=True, slots=True)
class Dialect:
    """OpenAI's own form; others change what they must."""

    name: str = "openai"
    model: str = ""  # where the bot names none
    voice: str = ""
    transcriber: str = ""  # empty: the server's own choice
    rates: tuple[int, int] | None = None  # Hz of PCM to the server and from it; None: it takes G.711
    semantic: bool = False  # it has semantic_vad
    strict: bool = False  # it accepts nothing but what `extra.SESSION` says
    truncates: bool = True  # conversation.item.truncate
    deletes: bool = True  # conversation.item.delete
    cancels: bool = True  # response.cancel
    obeys: bool = True  # it leaves it to us, if asked to, when a turn interrupts the bot and when it is answered
    lasts: float = 0.0  # seconds of a session whose server does not say when it ends; 0: that is not known

    def address(self, url: str, model: str) -> str:
        """`url` with what the dialect adds to it; `BackendLost` when it is no websocket address."""
        return address(url, model or self.model)

    def headers(self, order: VoiceOrder) -> dict[str, str]:
        """What the handshake carries besides autobahn's own."""
        return authorization(order)

    def session(self, order: VoiceOrder) -> Json:
        """The whole session settings of one call, as `session.update` takes them, the owner's own among them."""
        return extra.merged(self.form(order), self.addition(order))

    def addition(self, order: VoiceOrder) -> Json:
        """What the owner adds; `Invalid` when it cannot be."""
        return extra.read(order.bot.manner.extra, self.strict)

    def form(self, order: VoiceOrder) -> dict[str, Any]:
        """The session settings without the owner's own."""
        manner = order.bot.manner
        heard: dict[str, Any] = {"format": self._format(order, 0)}
        spoken: dict[str, Any] = {"format": self._format(order, 1)}
        if manner.noise_reduction:
            heard["noise_reduction"] = {"type": manner.noise_reduction}
        if transcription := self.transcription(manner):
            heard["transcription"] = transcription
        heard["turn_detection"] = self.detection(manner)
        if voice := order.bot.voice or self.voice:
            spoken["voice"] = {"id": voice} if voice.startswith("voice_") else voice
        if manner.speed != 1.0:
            spoken["speed"] = manner.speed
        found: dict[str, Any] = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "audio": {"input": heard, "output": spoken},
            **self.mind(order),
        }
        if manner.max_output_tokens:
            found["max_output_tokens"] = manner.max_output_tokens
        if manner.reasoning:
            found["reasoning"] = {"effort": manner.reasoning}
        if manner.parallel_tools:
            found["parallel_tool_calls"] = manner.parallel_tools == "yes"
        return found

    def mind(self, order: VoiceOrder) -> dict[str, Any]:
        """The instructions and the tools."""
        found: dict[str, Any] = {}
        if order.bot.instruction:
            found["instructions"] = order.bot.instruction
        if order.tools:
            found["tools"] = [self.tool(tool) for tool in order.tools]
            found["tool_choice"] = "auto"
        return found

    def offer(self, order: VoiceOrder) -> Json:
        """Session settings that change nothing but the tools."""
        found = self.form(order)
        return {**{key: found[key] for key in ("type",) if key in found}, "tools": found.get("tools", [])}

    def tool(self, tool: Json) -> Json:
        """A function, described as the server takes it."""
        return function(tool)

    def transcription(self, manner: Manner) -> dict[str, Any]:
        """Which words of the caller are wanted; empty: as the server likes."""
        found = {"model": manner.transcription_model or self.transcriber, "language": manner.transcription_language}
        return {key: value for key, value in found.items() if value}

    def detection(self, manner: Manner) -> dict[str, Any]:
        """When a turn is over.

        The server interrupts only where a sound of the caller shall do that at once, and does not answer by itself
        where each turn is to be confirmed first: it would answer every cough.
        """
        rules = {
            "create_response": manner.barge_in != "confirmed",
            "interrupt_response": manner.barge_in == "immediate",
        }
        if manner.turn_detection == "semantic_vad" and self.semantic:
            return {"type": "semantic_vad", "eagerness": manner.vad_eagerness, **rules}
        return {
            "type": "server_vad",
            "threshold": manner.vad_threshold,
            "prefix_padding_ms": manner.vad_padding,
            "silence_duration_ms": manner.vad_silence,
            **rules,
        }

    def codec(self, order: VoiceOrder) -> Codec:
        """A new one for each session."""
        return Codec() if self.rates is None else Pcm(order.format, *self.rates)

    def confirms(self, order: VoiceOrder, session: Json) -> bool:
        """Whether what the server says is in force is what `session` asked for.

        A server that only knows PCM need not say so.
        """
        said = events.formats(session)
        if self.rates is None:
            return said == (order.format, order.format)
        pairs = zip(events.rates(session), self.rates, strict=True)
        return set(said) <= {"", "audio/pcm"} and all(rate in (0, asked) for rate, asked in pairs)

    def response(self, options: Json) -> Json:
        """The body of a `response.create`, from options under their names of today."""
        return options

    def item(self, item: Json) -> Json:
        """A conversation item, from its form of today."""
        return item

    def _format(self, order: VoiceOrder, side: int) -> Json:
        return {"type": order.format} if self.rates is None else {"type": "audio/pcm", "rate": self.rates[side]}


@dataclass(frozen=True, slots=True)
class OpenAI(Dialect):
    """The service itself: strict about every key."""

    model: str = "gpt-realtime-2.1"
    voice: str = "marin"
    transcriber: str = "gpt-transcribe"
    lasts: float = 3600.0
    semantic: bool = True
    strict: bool = True

    def headers(self, order: VoiceOrder) -> dict[str, str]:
        """The key, and who calls."""
        return headers(order)

    def session(self, order: VoiceOrder) -> Json:
        """Only what goes together: each kind of turn detection has its own keys, and so has each model."""
        found = Dialect.session(self, order)
        heard = found["audio"]["input"]
        detection = heard["turn_detection"]
        known = (*_RULES, *_DETECTION[detection["type"]])
        heard["turn_detection"] = {key: value for key, value in detection.items() if key in known}
        if _PLAIN.fullmatch(order.bot.model):
            found = {key: value for key, value in found.items() if key not in ("reasoning", "parallel_tool_calls")}
        return found


@dataclass(frozen=True, slots=True)
class Azure(OpenAI):
    """The same service in another house, with another header for its keys."""

    name: str = "azure"

    def headers(self, order: VoiceOrder) -> dict[str, str]:
        """A key of the resource, or a token of Entra, which is a JSON web token."""
        found = headers(order)
        key = key_of(order)
        if key and not key.startswith("eyJ"):
            del found["Authorization"]
            found["api-key"] = key
        return found


@dataclass(frozen=True, slots=True)
class Xai(Dialect):
    """Voice and turn detection at the top, no semantic_vad; reasoning would only make callers wait."""

    name: str = "xai"
    model: str = "grok-voice-latest"
    voice: str = "eve"
    transcriber: str = "grok-transcribe"
    obeys: bool = False
    lasts: float = 1800.0

    def form(self, order: VoiceOrder) -> dict[str, Any]:
        """The session settings without the owner's own."""
        manner = order.bot.manner
        spoken: dict[str, Any] = {"format": self._format(order, 1)}
        if manner.speed != 1.0:
            spoken["speed"] = manner.speed
        heard = {"format": self._format(order, 0), "transcription": self.transcription(manner)}
        return {
            "voice": order.bot.voice or self.voice,
            "turn_detection": {
                key: value for key, value in self.detection(manner).items() if key not in _RULES or key == "type"
            },
            "audio": {"input": heard, "output": spoken},
            **self.mind(order),
            "reasoning": {"effort": manner.reasoning or "none"},
        }

    def transcription(self, manner: Manner) -> dict[str, Any]:
        """The language is a hint here."""
        found = Dialect.transcription(self, manner)
        if language := found.pop("language", ""):
            found["language_hint"] = language
        return found

    def response(self, options: Json) -> Json:
        """It takes instructions, and nothing else that we ask for."""
        return {key: options[key] for key in ("instructions",) if key in options}


@dataclass(frozen=True, slots=True)
class Flat(Dialect):
    """The form that OpenAI's service had in its beta and others still have: all settings on one level, PCM by name."""

    name: str = "beta"
    rates: tuple[int, int] | None = (24000, 24000)
    truncates: bool = False  # servers that have it are few, and one that does not says so in an error each time
    pcm: str = "pcm16"
    options: tuple[str, ...] = ("instructions", "tool_choice", "tools", "conversation", "input", "metadata")

    def form(self, order: VoiceOrder) -> dict[str, Any]:
        """The session settings without the owner's own."""
        manner = order.bot.manner
        found: dict[str, Any] = {
            "modalities": ["text", "audio"],
            "input_audio_format": self.pcm,
            "output_audio_format": self.pcm,
            "turn_detection": self.detection(manner),
            **self.mind(order),
        }
        wanted = {
            "voice": order.bot.voice or self.voice,
            "input_audio_transcription": self.transcription(manner),
            "input_audio_noise_reduction": {"type": manner.noise_reduction} if manner.noise_reduction else None,
            "max_response_output_tokens": manner.max_output_tokens,
            "speed": manner.speed if manner.speed != 1.0 else None,
        }
        return found | {key: value for key, value in wanted.items() if value}

    def detection(self, manner: Manner) -> dict[str, Any]:
        """`interrupt_response` came late to the beta: it is only said where it is not as it always was."""
        found = Dialect.detection(self, manner)
        if found["interrupt_response"]:
            del found["interrupt_response"]
        return found

    def response(self, options: Json) -> Json:
        """Options under their old names; the rest is left out."""
        found = {key: options[key] for key in self.options if key in options}
        if "output_modalities" in options:
            found["modalities"] = ["text", "audio"] if "audio" in options["output_modalities"] else ["text"]
        return found

    def item(self, item: Json) -> Json:
        """What the bot said has parts of type `text` here."""
        if item.get("role") != "assistant":
            return item
        content = [{**part, "type": str(part["type"]).removeprefix("output_")} for part in item["content"]]
        return {**item, "content": content}


@dataclass(frozen=True, slots=True)
class Qwen(Flat):
    """DashScope: 16 kHz in, 24 kHz out, functions in the chat API's wrapper."""

    name: str = "qwen"
    model: str = "qwen3.5-omni-flash-realtime"
    rates: tuple[int, int] | None = (16000, 24000)
    deletes: bool = False
    pcm: str = "pcm"
    options: tuple[str, ...] = ("instructions",)

    def tool(self, tool: Json) -> Json:
        """In the wrapper."""
        inner = Dialect.tool(self, tool)
        return {"type": "function", "function": {key: value for key, value in inner.items() if key != "type"}}


_TABLE: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OpenAI(),
        Azure(),
        Xai(),
        Flat(),
        Qwen(),
        Dialect("localai", rates=(24000, 24000)),
        Dialect("huggingface", rates=(24000, 24000), truncates=False, deletes=False),
    )
}

_HOSTS = (
    (re.compile(r"(.*\.)?azure\.com"), "azure"),
    (re.compile(r"(.*\.)?x\.ai"), "xai"),
    (re.compile(r"dashscope.*\.aliyuncs\.com"), "qwen"),
    (re.compile(r"(.*\.)?(stepfun\.com|bigmodel\.cn)"), "beta"),
)
_MODEL_NAMES = (("grok-", "xai"), ("qwen", "qwen"), ("step", "beta"), (LIVE, LIVE))


def of(order: VoiceOrder, url: str) -> Dialect:
    """The dialect of the server at `url`: the one that the bot names, else by host and model."""
    return _TABLE.get(name_of(order.bot.manner.dialect, url, order.bot.model)) or _TABLE["openai"]


def name_of(wanted: str, url: str, model: str) -> str:
    """A name of `DIALECTS`: the wanted one when there is it, else by the host of `url` and the model."""
    if wanted in DIALECTS:
        return wanted
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    by_host = next((name for pattern, name in _HOSTS if pattern.fullmatch(host)), "")
    bare = model.rpartition("/")[2]  # gateways put the provider in front
    return by_host or next((name for prefix, name in _MODEL_NAMES if bare.startswith(prefix)), "openai")


def calls_mcp(bot: Bot, url: str) -> bool:
    """Whether the voice service at `url` can use MCP servers by itself for this bot; of others we do it."""
    if bot.model.startswith((LIVE, "sandbox")):
        return False
    host = urlsplit(url).hostname or ""
    return host.endswith("api.openai.com") or name_of(bot.manner.dialect, url, bot.model) == "azure"


def check_extra(text: str, dialect_name: str) -> None:
    """`Invalid` {"extra": …} unless it is empty or an object that a session of this dialect accepts.

    Empty `dialect_name`: OpenAI's. `name_of` says which it is where the bot does not.
    """
    if text.strip():
        extra.read(text, (_TABLE.get(dialect_name or "openai") or Dialect()).strict)


def function(tool: Json) -> dict[str, Any]:
    """A function tool, of the keys that services know; one of an MCP server as it is."""
    if tool.get("type") == "mcp":
        return dict(tool)
    return {key: tool[key] for key in _TOOL_KEYS if key in tool}


def headers(order: VoiceOrder) -> dict[str, str]:
    """What OpenAI's handshake carries: the key, and who calls without saying the number."""
    found = authorization(order)
    if order.caller:
        found["OpenAI-Safety-Identifier"] = caller_of(order)
    return found


def authorization(order: VoiceOrder) -> dict[str, str]:
    """The key, if there is one."""
    key = key_of(order)
    return {"Authorization": f"Bearer {key}"} if key else {}


def key_of(order: VoiceOrder) -> str:
    """The bot's key: a pasted one may bring blanks and line ends along, which would break the request apart."""
    return "".join(letter for letter in order.bot.token if "!" <= letter <= "~")


def caller_of(order: VoiceOrder) -> str:
    """Who calls, without saying the number."""
    return sha256(f"{order.bot.account_id}\n{order.caller}".encode()).hexdigest()


def address(url: str, model: str) -> str:
    """`url` with `model=` added unless its query has one; `BackendLost` when it is no websocket address."""
    parts = websocket(url)
    query = parts.query
    if model and "model" not in dict(parse_qsl(query, keep_blank_values=True)):
        query += ("&" if query else "") + "model=" + quote(model, safe="")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def websocket(url: str) -> SplitResult:
    """The parts of `url`; `BackendLost` when it is no websocket address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise BackendLost("refused_settings", "The address of the voice service must begin with ws:// or wss://.")
    return parts
