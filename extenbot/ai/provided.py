"""Tools that the voice service itself calls on MCP servers: what it says of them, and what it wants allowed.

The service lists the tools, calls them and knows their results before we do. Of us it wants to hear whether a call is
allowed, where its server is set so, and sometimes to be asked to speak of the result (openai-realtime.md 3.6).

What belongs to a response is told twice, as its output and as an item of the conversation; a list of tools, and what
is called after a yes, may come as an item of the conversation alone.
"""

from __future__ import annotations

from collections.abc import Callable

from extenbot.ai import events
from extenbot.ai.events import section, text, word
from extenbot.errors import Malformed
from extenbot.interfaces import CallLog, Json, ToolCall, VoiceListener

SHOWN = 2000
"""Characters of a result in the timeline."""


class Provided:
    """Of one session."""

    def __init__(self, listener: VoiceListener, log: CallLog, tell: Callable[[Json], object], open_: set[str]) -> None:
        """`tell` makes an item of the conversation; `open_` has the requests of all its sessions."""
        self._listener = listener
        self._log = log
        self._tell = tell
        self._open = open_
        self._asked: set[str] = set()
        self._known: set[str] = set()
        self._labels: dict[str, str] = {}  # of servers whose tools are being listed, by item
        self._answers = 0

    def began(self, item: Json) -> None:
        """An item is there, and not complete yet."""
        if word(item, "type") == "mcp_list_tools":
            self._labels[word(item, "id")] = word(item, "server_label")

    def not_listed(self, item_id: str) -> None:
        """The service has no tools of a server: it is down, or will not have us."""
        label = self._labels.get(item_id, "")
        self._log.happened("mcp.listed", server=label, tools=0, trouble="Its tools could not be listed.")

    def came(self, item: Json) -> bool:
        """An item is complete; whether it is a result that the model should speak of. Told again it is none."""
        kind, name = word(item, "type"), word(item, "id")
        if name in self._known:
            return False
        if name:
            self._known.add(name)
        if kind == "mcp_list_tools":
            listed = item.get("tools")
            self._log.happened(
                "mcp.listed",
                server=word(item, "server_label"),
                tools=len(listed) if isinstance(listed, list) else 0,
                **_trouble(item),
            )
        elif kind == "mcp_call":
            self._log.happened(
                "mcp.called",
                server=word(item, "server_label"),
                name=word(item, "name"),
                arguments=word(item, "arguments")[:SHOWN],
                output=word(item, "output")[:SHOWN],
                **_trouble(item),
            )
        elif kind == "mcp_approval_request":
            self._ask(item)
        return kind == "mcp_call"

    def _ask(self, item: Json) -> None:
        name = text(item, "id")
        try:
            arguments = events.read_object(word(item, "arguments") or "{}")
        except Malformed:
            arguments = {}
        if name not in self._asked:
            self._asked.add(name)
            self._open.add(name)
            tool = f"{word(item, 'server_label')}.{word(item, 'name')}"
            self._log.happened("mcp.approval", name=tool, call=name, arguments=arguments)
            self._listener.approval(ToolCall(name, tool, arguments))

    def approved(self, call_id: str, yes: bool) -> bool:
        """Answer a request of this session; whether it was one."""
        if call_id not in self._asked:
            return False
        self._asked.discard(call_id)
        self._answers += 1
        name = f"approval_{self._answers}"
        self._tell({"type": "mcp_approval_response", "id": name, "approval_request_id": call_id, "approve": yes})
        return True


def _trouble(item: Json) -> dict[str, str]:
    error = section(item, "error")
    words = word(error, "message") or word(error, "type")
    return {"trouble": words[:SHOWN]} if words else {}
