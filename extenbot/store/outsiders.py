"""What is good input for functions and MCP servers: the one place for pages and commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from extenbot import abilities
from extenbot.abilities import FUNCTION, SERVER, read_headers
from extenbot.ai.built_in import BUILT_IN
from extenbot.ai.results import check_path
from extenbot.ai.tools import check_description, check_template, name_of
from extenbot.interfaces import Function, McpServer
from extenbot.manner import Field
from extenbot.store.fields import Reading, document, line, secret, url

MOST_ALLOWED = 128


def checked_function(values: Mapping[str, Any], before: Function) -> Function:
    """`before` with these values, as they were typed, in their settled form; `Invalid` otherwise.

    Headers come as lines; one without a value keeps the one that it had. What is not there stays as it was.
    """
    read = Reading()

    def of(name: str, reader: Callable[[Any], Any]) -> Any:
        return read(name, reader, values.get(name, getattr(before, name)))

    options = {name: read(name, partial(_option, name, FUNCTION), values[name]) for name in FUNCTION if name in values}
    headers = before.headers
    if "headers" in values:
        headers = read("headers", lambda text: read_headers(text, before.headers), values["headers"])
    function = replace(
        before,
        name=of("name", line(100, required=True)),
        url=of("url", url("http", "https", required=True)),
        token=of("token", secret(4000)),
        secret=of("secret", secret(500)),
        description=of("description", document(check_description)),
        template=of("template", document(check_template)),
        headers=headers,
        **options,
    )
    if "name" not in read.problems and not function.description.strip() and name_of(function) in BUILT_IN:
        read.problems["name"] = f'The name "{name_of(function)}" is taken by the bot itself: choose another.'
    if "result" not in read.problems:
        read("result", document(check_path), function.result)
    return read.done(function)


def checked_server(values: Mapping[str, Any], before: McpServer) -> McpServer:
    """As `checked_function`; `allowed` comes as names separated by blanks, commas or lines."""
    read = Reading()
    options = {name: read(name, partial(_option, name, SERVER), values[name]) for name in SERVER if name in values}
    headers = before.headers
    if "headers" in values:
        headers = read("headers", lambda text: read_headers(text, before.headers), values["headers"])
    server = replace(
        before,
        label=read("label", _label, values.get("label", before.label)),
        url=read("url", url("http", "https", required=True), values.get("url", before.url)),
        key=read("key", secret(4000), values.get("key", before.key)),
        headers=headers,
        allowed=read("allowed", _allowed, values.get("allowed", " ".join(before.allowed))),
        **options,
    )
    return read.done(server)


def _option(name: str, table: Mapping[str, Field], raw: object) -> Any:
    return abilities.read(name, raw, table)


def _label(text: str) -> str:
    text = line(64)(text)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise ValueError("1 to 64 letters, digits, _ and -, please.")
    return text


def _allowed(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(re.split(r"[\s,]+", text.strip()))) if text.strip() else ()
    if len(names) > MOST_ALLOWED:
        raise ValueError(f"At most {MOST_ALLOWED} names, please.")
    if any(len(name) > 128 or not name.isprintable() for name in names):
        raise ValueError("Names of tools, please, separated by blanks.")
    return names
