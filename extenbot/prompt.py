"""Instructions and welcome messages with variables in them: `{{caller}}`, `{% if customer.vip %}…{% endif %}`.

Jinja in its sandbox, and of that only what fills a text in: values, conditions and a few filters. No loops, calls or
arithmetic, by which an owner could hold up everybody's calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import ChainableUndefined, Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from extenbot.errors import Invalid
from extenbot.interfaces import Json

LONGEST = 30_000
"""Characters of a text that has been filled in."""

MOST = 1000
"""Words and signs within braces, blanks included: more would take too long to read, in which all audio waits."""

VARIABLES = ("caller", "caller_name", "called", "time", "headers", "bot", "call")
"""What every call has; the webhook before the call may add to them."""

_FILTERS = (
    "capitalize", "default", "d", "first", "float", "int", "last", "length", "lower", "string", "title", "trim",
    "truncate", "upper",
)  # fmt: skip
_GOOD = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Const,
    nodes.If, nodes.CondExpr, nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Filter, nodes.Test,
    nodes.List, nodes.Tuple, nodes.Keyword,
)  # fmt: skip


class Headers(dict[str, str]):
    """SIP headers by name, in any letters: `headers["X-Order"]` and `headers.x_order`."""

    def __getitem__(self, name: str) -> str:
        return dict.get(self, _plain(name), "")

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, _plain(str(name)))

    @classmethod
    def of(cls, found: Mapping[str, str]) -> Headers:
        return cls({_plain(name): text for name, text in found.items()})


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def check(text: str, field: str) -> None:
    """`Invalid` with a sentence unless `text` can be filled in."""
    try:
        _template(text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        raise Invalid({field: f"Its variables cannot be read: {str(error).rstrip('.')}{where}."}) from None


def filled(text: str, variables: Json) -> str:
    """`text` with its variables; what there is no value for becomes nothing. As it stands when it cannot be read."""
    if "{{" not in text and "{%" not in text and "{#" not in text:
        return text
    try:
        return _beginning(_template(text).generate(variables))
    except Exception:  # noqa: BLE001  a value of the owner's webhook may be anything, and the caller waits
        return text


def _beginning(pieces: Iterable[str]) -> str:
    said, length = [], 0
    for piece in pieces:
        said.append(piece)
        length += len(piece)
        if length >= LONGEST:
            break
    return "".join(said)[:LONGEST]


# These filters of Jinja's make more than they are given, and more of that when they follow each other, or take an
# owner's number for how much. In front of them stands what they would make.


def _bounded(length: int) -> None:
    if length > LONGEST:
        raise ValueError("it would become too long")


def _replace(value: object, old: str, new: str) -> str:
    text = str(value)
    _bounded(len(text) + text.count(str(old)) * len(str(new)))
    return text.replace(str(old), str(new))


def _join(value: Iterable[object], between: str = "") -> str:
    pieces = [str(each) for each in value]
    _bounded(sum(map(len, pieces)) + len(pieces) * len(between))
    return between.join(pieces)


def _tojson(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    _bounded(len(text))
    return text


def _round(value: float, digits: int = 0) -> float:
    return round(float(value), digits)


class _Environment(ImmutableSandboxedEnvironment):
    def __init__(self) -> None:
        super().__init__(undefined=ChainableUndefined, keep_trailing_newline=True)
        self.globals.clear()
        ours = {"join": _join, "replace": _replace, "round": _round, "tojson": _tojson}
        self.filters = {name: self.filters[name] for name in _FILTERS} | ours

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What stands in an object of JSON; what Python's objects have is nobody's business."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping) or (isinstance(obj, Sequence) and isinstance(argument, int)):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        return self.undefined(obj=obj, name=argument)


_ENVIRONMENT = _Environment()


@lru_cache(maxsize=512)
def _template(text: str) -> Template:
    if sum(kind != "data" for _, kind, _ in _ENVIRONMENT.lex(text)) > MOST:
        raise TemplateError("there are too many of them")
    try:
        for node in _ENVIRONMENT.parse(text).find_all(nodes.Node):
            if not isinstance(node, _GOOD):
                raise _refused(node)
        return _ENVIRONMENT.from_string(text)
    except (RecursionError, SyntaxError, MemoryError):  # the latter two are what Python says of what Jinja makes of it
        raise TemplateError("they stand too deep within each other") from None


def _refused(node: Any) -> TemplateError:
    what = type(node).__name__.lower()
    words = {"for": "loops", "call": "calls", "mul": "sums", "pow": "sums", "add": "sums"}.get(what, f'"{what}"')
    error = TemplateError(f"{words} cannot be used here")
    error.lineno = node.lineno  # type: ignore[attr-defined]
    return error
