"""An MCP server by the official SDK, as a process of its own: `python mcpserver.py KIND PORT [more tools]`.

KIND is "http", "stateless", "newer" or "sse". It prints a line when the slow tool begins, and when a use of it was
cancelled.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import anyio
import uvicorn
from mcp.server.mcpserver import Audio, Context, Image, MCPServer
from mcp_types import BlobResourceContents, EmbeddedResource, ResourceLink, TextResourceContents
from pydantic import BaseModel
from starlette.responses import JSONResponse

server = MCPServer("peer", log_level="CRITICAL")


class Weather(BaseModel):
    degrees: int
    sky: str


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool()
def weather(city: str) -> Weather:
    """Tells the weather."""
    return Weather(degrees=len(city), sky="blue")


@server.tool(structured_output=False)
def media() -> list[Image | Audio]:
    """A picture and a sound."""
    return [Image(data=b"png", format="png"), Audio(data=b"wav", format="wav")]


@server.tool(structured_output=False)
def resources() -> list[ResourceLink | EmbeddedResource]:
    """All kinds of resources."""
    bill = BlobResourceContents(uri="file:///bill.pdf", blob="cGRm", mime_type="application/pdf")
    return [
        ResourceLink(type="resource_link", name="menu", uri="https://peer.example/menu"),
        EmbeddedResource(type="resource", resource=TextResourceContents(uri="file:///note", text="Ring twice.")),
        EmbeddedResource(type="resource", resource=bill),
    ]


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("no such order")


@server.tool()
async def slow(seconds: float) -> str:
    """Takes its time."""
    sys.stdout.write("slow began\n")
    sys.stdout.flush()
    try:
        await anyio.sleep(seconds)
    except anyio.get_cancelled_exc_class():
        sys.stdout.write("slow was cancelled\n")
        sys.stdout.flush()
        raise
    return "At last."


@server.tool(structured_output=False)
def huge(size: int) -> str:
    """Says much."""
    return "x" * size


@server.tool()
async def grow(name: str, ctx: Context) -> str:
    """Gets one more tool, and says so."""
    server.add_tool(add, name=name, description="Adds, too.")
    await ctx.session.send_tool_list_changed()  # in this session
    await ctx.notify_tools_changed()  # to whoever listens, since 2026-07-28
    return "Grown."


class Newer:
    """Refuses the handshake of the versions before 2026-07-28."""

    REFUSAL: ClassVar = {"code": -32022, "message": "No.", "data": {"supported": ["2026-07-28"], "requested": "?"}}

    def __init__(self) -> None:
        self.app = server.streamable_http_app()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or b"mcp-protocol-version" in dict(scope["headers"]):
            await self.app(scope, receive, send)
        else:
            refusal = {"jsonrpc": "2.0", "id": None, "error": self.REFUSAL}
            await JSONResponse(refusal, status_code=400)(scope, receive, send)


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    for more in sys.argv[3:]:
        server.add_tool(add, name=more)
    if kind == "sse":
        anyio.run(lambda: server.run_sse_async(port=port))
    elif kind == "newer":
        uvicorn.run(Newer(), port=port, log_level="critical")
    else:
        anyio.run(lambda: server.run_streamable_http_async(port=port, stateless_http=kind == "stateless"))
