"""Functions and MCP servers in memory, as the store keeps them: for tests of pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from extenbot.ai import tools
from extenbot.errors import Invalid
from extenbot.interfaces import Function, McpServer


class Kept:
    """Values as text in, things out, per account."""

    def __init__(self, make: Callable[[str, str, str], Any], name: str) -> None:
        self._make, self._name = make, name
        self._all: dict[str, tuple[str, Any]] = {}

    def all(self, account_id: str) -> list[Any]:
        return [one for owner, one in self._all.values() if owner == account_id]

    def get(self, one_id: str, account_id: str | None = None) -> Any:
        owner, one = self._all.get(one_id, (None, None))
        return one if account_id in (None, owner) else None

    def add(self, account_id: str, values: Mapping[str, str]) -> Any:
        one = self._changed(self._make(f"id{len(self._all) + 1}", "", ""), values)
        self._all[one.id] = account_id, one
        return one

    def edit(self, one_id: str, values: Mapping[str, str]) -> Any:
        if one_id not in self._all:
            return None
        owner, one = self._all[one_id]
        self._all[one_id] = owner, self._changed(one, values)
        return self._all[one_id][1]

    def remove(self, one_id: str) -> bool:
        return self._all.pop(one_id, None) is not None

    def _changed(self, one: Any, values: Mapping[str, str]) -> Any:
        problems: dict[str, str] = {}
        read: dict[str, Any] = {}
        for name, text in values.items():
            before = getattr(one, name)
            if name == "headers":
                lines = [line.partition(":") for line in text.splitlines() if line.strip()]
                read[name] = tuple((key.strip(), value.strip()) for key, _, value in lines)
            elif name == "allowed":
                read[name] = tuple(text.split())
            elif isinstance(before, bool):
                read[name] = text == "yes"
            elif isinstance(before, (int, float)):
                try:
                    read[name] = type(before)(text)
                except ValueError:
                    problems[name] = "A number, please."
            else:
                read[name] = text.replace("\r\n", "\n").strip()
        changed = replace(one, **read)
        if not getattr(changed, self._name):
            problems[self._name] = "This is needed."
        if isinstance(changed, Function):
            for check, text in (
                (tools.check_description, changed.description),
                (tools.check_template, changed.template),
            ):
                try:
                    if text:
                        check(text)
                except Invalid as error:
                    problems |= error.problems
        if problems:
            raise Invalid(problems)
        return changed


def functions() -> Kept:
    return Kept(Function, "name")


def servers() -> Kept:
    return Kept(McpServer, "label")
