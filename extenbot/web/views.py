"""Values to HTML: the Jinja templates and static files, read once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from extenbot.web.timeline import tokens

_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class Static(NamedTuple):
    content: bytes
    kind: str
    version: str


def templates_folder() -> Path:
    """templates/: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    packaged = package / "templates"
    return packaged if packaged.is_dir() else package.parent / "templates"


@cache
def views() -> Views:
    """What all pages of this process are made with: templates are compiled once."""
    return Views()


class Views:
    def __init__(self) -> None:
        folder = templates_folder()
        self.static = {
            path.name: Static(content, _KINDS[path.suffix], hashlib.sha256(content).hexdigest()[:12])
            for path in sorted((folder / "static").iterdir())
            if path.suffix in _KINDS
            for content in (path.read_bytes(),)
        }
        self._templates = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals["static"] = self._static_url
        self._templates.filters |= {
            "clock": clock,
            "exactly": exactly,
            "length": length,
            "when": when,
            "iso": iso,
            "tokens": tokens,
            "usd": usd,
        }

    def render(self, name: str, values: Mapping[str, Any]) -> bytes:
        return self._templates.get_template(name).render(values).encode("utf-8", "replace")

    def _static_url(self, name: str) -> str:
        return f"/static/{name}?v={self.static[name].version}"


def clock(seconds: float) -> str:
    """A moment inside a call: 0:07.2."""
    minutes, rest = divmod(max(0.0, seconds), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def exactly(seconds: float) -> str:
    """The same to the millisecond: 00:07.213."""
    minutes, rest = divmod(round(max(0.0, seconds) * 1000), 60_000)
    return f"{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"


def usd(amount: float) -> str:
    """Money: $12.40, and what is less than a dollar to a hundredth of a cent: $0.0123."""
    if not 0 < amount < 1:
        return f"${amount:,.2f}"
    if amount < 0.0001:
        return "under $0.0001"
    whole, _, cents = f"{amount:.4f}".partition(".")
    return f"${whole}.{cents[:2]}{cents[2:].rstrip('0')}"


def length(seconds: float) -> str:
    """How long a call was: 1:07, or 1:02:03."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def when(seconds: float) -> str:
    return f"{_moment(seconds):%Y-%m-%d %H:%M:%S} UTC"


def iso(seconds: float) -> str:
    return f"{_moment(seconds):%Y-%m-%dT%H:%M:%SZ}"
