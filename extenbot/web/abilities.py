"""The forms of a function and of an MCP server: what stands in them, and what comes back.

Secrets never stand in a form. Of headers only the names do: a line without a value keeps the one there was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from extenbot.abilities import shown_headers
from extenbot.interfaces import Function, McpServer
from extenbot.web.form import written

SECRETS = {Function: ("token", "secret"), McpServer: ("key",)}

EXAMPLE = {
    "name": "two_numbers",
    "description": """{
    "name": "two_numbers",
    "type": "function",
    "parameters": {
        "type": "object",
        "required": ["number1", "number2"],
        "properties": {
            "number1": {"type": "number", "description": "First number"},
            "number2": {"type": "number", "description": "Second number"}
        }
    },
    "description": "If the user wants to provide two numbers, ask for and process two numbers."
}""",
}
"""The description that exten.bot publishes as its example."""

EXAMPLES = {
    "webhook": {
        **EXAMPLE,
        "url": "https://example.org/webhook",
        "template": '{\n    "caller": "{user}",\n    "first": {number1},\n    "second": {number2}\n}',
    },
    "n8n": {
        "name": "book_table",
        "url": "https://n8n.example.org/webhook/book-table",
        "result": "reply",
        "waiting": "One moment, I am looking into the book.",
        "description": """{
    "name": "book_table",
    "type": "function",
    "parameters": {
        "type": "object",
        "required": ["date", "time", "guests"],
        "properties": {
            "date": {"type": "string", "format": "date"},
            "time": {"type": "string", "description": "Such as 19:30"},
            "guests": {"type": "integer", "minimum": 1, "maximum": 12}
        }
    },
    "description": "Books a table once date, time and number of guests are known."
}""",
    },
    "dify": {**EXAMPLE, "kind": "dify_workflow", "url": "https://api.dify.ai/v1"},
    "exten": {
        **EXAMPLE,
        "url": "https://api.dify.ai/v1/workflows/run",
        "template": """{
    "user": "{user}",
    "inputs": {
        "function_name": "{function_name}",
    },
    "response_mode": "blocking"
}""",
    },
}
"""Forms of new functions that are filled in already; `exten` is the body that exten.bot publishes, comma included."""

EXAMPLE_WORDS = {
    "webhook": "A webhook",
    "n8n": "A workflow of n8n",
    "dify": "A workflow of dify",
    "exten": "exten.bot’s example",
}


@dataclass(frozen=True)
class Form:
    """What the template asks of either form."""

    typed: Mapping[str, str]
    problems: Mapping[str, str]
    before: Mapping[str, str]

    def opened(self, *names: str) -> str:
        """The attribute of a <details> around these fields: open when something in it is set, or wrong."""
        opened = any(name in self.problems or self.typed.get(name, "") != self.before.get(name, "") for name in names)
        return " open" if opened else ""


def fresh(kind: type[Function] | type[McpServer]) -> dict[str, str]:
    """The form of one that is not there yet."""
    blank = kind("", "", "")
    return typed(blank) | dict.fromkeys(_forgets(kind), "")


def typed(ability: Function | McpServer) -> dict[str, str]:
    """The form as it was typed to get this one."""
    kind = type(ability)
    shown = {name: written(name, getattr(ability, name)) for name in _plain(kind)}
    shown["headers"] = shown_headers(ability.headers)
    if isinstance(ability, McpServer):
        shown["allowed"] = "\n".join(ability.allowed)
    return shown


def sent(form: Mapping[str, str], kind: type[Function] | type[McpServer]) -> dict[str, str]:
    """The values as the form wants them. A secret that was left empty stays as it is."""
    found = {name: form[name] for name in (*_plain(kind), "headers", "allowed") if name in form}
    for name in SECRETS[kind]:
        if form.get(name, "").strip():
            found[name] = form[name].strip()
        elif f"forget_{name}" in form:
            found[name] = ""
    return found


def form(kind: type[Function] | type[McpServer], shown: Mapping[str, str], problems: Mapping[str, str]) -> Form:
    """With every field in it, also those that were not sent."""
    return Form(fresh(kind) | dict(shown), problems, fresh(kind))


def _plain(kind: type[Any]) -> tuple[str, ...]:
    aside = {"id", "headers", "allowed", *SECRETS[kind]}
    return tuple(field.name for field in fields(kind) if field.name not in aside)


def _forgets(kind: type[Any]) -> tuple[str, ...]:
    return tuple(f"forget_{name}" for name in SECRETS[kind])
