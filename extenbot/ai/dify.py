"""The service API of dify's apps, as its documentation has it (docs.dify.ai, "Use Dify API").

A workflow gets inputs and gives outputs, at once (`blocking`) or as a stream of events of which the last one counts. A
chat app gets a query and the inputs that its prompt wants, and answers within a conversation; agents only stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from extenbot.ai import results, tools
from extenbot.ai.tools import SPOKEN
from extenbot.errors import ToolFailed
from extenbot.interfaces import Function, Json, Reply, ToolContext

WORKFLOW, CHAT = "/workflows/run", "/chat-messages"

QUERIES = ("query", "question", "message", "text")
"""Arguments that are what the caller asks of a chat app."""

_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)

_CODES = {
    "invalid_param": "its inputs are not what it expects",
    "not_workflow_app": "it is no workflow: a chat app or agent is a function of that kind",
    "not_chat_app": "it is no chat app: a workflow is a function of that kind",
    "app_unavailable": "its app is not published, or wrongly set up",
    "provider_not_initialize": "it has no credentials for its model",
    "provider_quota_exceeded": "the quota of its model is used up",
}
_STATUS = {
    401: "its API key is not accepted",
    403: "its API key may not do this",
    404: "there is no such app, or its conversation is gone",
    413: "what was sent is too large",
    429: "it has too much to do now",
}


class Answer(NamedTuple):
    """Of a chat app."""

    words: str
    conversation: str  # its id; empty: not said


def address(function: Function) -> str:
    """Where to post, from the base of the API, with or without /v1, or the whole address."""
    parts = urlsplit(function.url)
    path = parts.path.rstrip("/")
    end = CHAT if function.kind == "dify_chat" else WORKFLOW
    for each in (WORKFLOW, CHAT):
        path = path.removesuffix(each)
    return urlunsplit((parts.scheme, parts.netloc, f"{path or '/v1'}{end}", parts.query, ""))


def workflow(function: Function, arguments: Json, context: ToolContext) -> Any:
    """The body for a workflow: a template is the whole of it when it has `inputs` in it, else the inputs."""
    whole = _template(function, arguments, context)
    if isinstance(whole, dict) and "inputs" in whole:
        return {"response_mode": _mode(function), "user": _user(context), **whole}
    inputs = dict(arguments) if whole is None else whole
    return {"inputs": inputs, "response_mode": _mode(function), "user": _user(context)}


def chat(function: Function, arguments: Json, context: ToolContext) -> Any:
    """The body for a chat app; its conversation is that of the call."""
    whole = _template(function, arguments, context)
    query, inputs = _query(arguments)
    if isinstance(whole, dict):
        inputs = whole.get("inputs", whole) if "query" not in whole else whole.get("inputs", {})
        query = str(whole.get("query", query))
    body: dict[str, Any] = {
        "inputs": inputs,
        "query": query,
        "response_mode": "streaming",  # agents know nothing else, and chat apps know it, too
        "user": _user(context),
    }
    if conversation := context.kept.get(function.id):
        body["conversation_id"] = conversation
    return body


def _template(function: Function, arguments: Json, context: ToolContext) -> Any:
    return tools.body(function, arguments, context) if function.template.strip() else None


def _mode(function: Function) -> str:
    return "streaming" if function.streaming else "blocking"


def _user(context: ToolContext) -> str:
    """dify keeps apart what belongs to different users."""
    return context.caller or context.call_id


def _query(arguments: Json) -> tuple[str, dict[str, Any]]:
    """What is asked, and the other arguments."""
    texts = [name for name, value in arguments.items() if isinstance(value, str)]
    name = next((name for name in QUERIES if name in texts), texts[0] if len(texts) == 1 else "")
    if not name:
        return json.dumps(dict(arguments), ensure_ascii=False), {}
    return str(arguments[name]), {key: value for key, value in arguments.items() if key != name}


# -- Replies ----------------------------------------------------------------------------


def outputs(reply: Reply, path: str = "") -> str:
    """What a workflow has come to; `path` (JMESPath) chooses of its outputs. `ToolFailed` when it has failed."""
    _check(reply)
    data: Any = None
    if _streamed(reply):
        for event in _events(reply.body):
            if event.get("event") == "error":
                raise _refused(event)
            if event.get("event") in ("workflow_finished", "workflow_paused"):
                data = _data(event)
        if data is None:
            raise ToolFailed("dify broke off before the workflow had ended")
    else:
        document = _object(reply.body)
        data = _data(document) or document
    _ended(data)
    found = data.get("outputs")
    if path.strip():
        return results.told(Reply(reply.status, "application/json", json.dumps(found).encode()), path)
    if isinstance(found, dict) and len(found) == 1:
        (found,) = found.values()
    if found is None or found == {}:
        return "The workflow has ended without a result."
    return (_spoken(found) if isinstance(found, str) else json.dumps(found, ensure_ascii=False))[:SPOKEN]


def answer(reply: Reply) -> Answer:
    """What a chat app has said. `ToolFailed` when it has failed."""
    _check(reply)
    if not _streamed(reply):
        document = _object(reply.body)
        return Answer(_words(document.get("answer")), str(document.get("conversation_id") or ""))
    pieces: dict[str, str] = {}
    conversation, ended = "", False
    for event in _events(reply.body):
        kind = event.get("event")
        conversation = str(event.get("conversation_id") or conversation)
        if kind == "error":
            raise _refused(event)
        if kind in ("message", "agent_message"):
            pieces[kind] = pieces.get(kind, "") + str(event.get("answer") or "")
        elif kind == "message_replace":  # moderation
            pieces = {"message": str(event.get("answer") or "")}
        elif kind in ("workflow_finished", "workflow_paused"):  # of a chatflow
            _ended(_data(event))
        ended = ended or kind == "message_end"
    words = pieces.get("message") or pieces.get("agent_message", "")  # agents say all of it again in the end
    if not (words or ended):
        raise ToolFailed("dify broke off before it had answered")
    return Answer(_words(words), conversation)


def _data(document: Mapping[str, Any]) -> Mapping[str, Any]:
    data = document.get("data")
    return data if isinstance(data, dict) else {}


def _ended(data: Mapping[str, Any]) -> None:
    """`ToolFailed` unless a workflow has come to its end."""
    status = data.get("status", "paused" if "paused_nodes" in data else "succeeded")
    if status in ("paused", "running"):
        raise ToolFailed("the dify workflow is not done: it waits for somebody's input")
    if status not in ("succeeded", "partial-succeeded"):
        why = str(data.get("error") or "no reason given")[:300]
        raise ToolFailed(f"the dify workflow has {'been stopped' if status == 'stopped' else 'failed'}: {why}")


def _spoken(text: str) -> str:
    """Without what a model was thinking before it answered."""
    return _THOUGHTS.sub("", text).strip()


def _words(found: object) -> str:
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False) if found is not None else ""
    return _spoken(text)[:SPOKEN] or "The app has answered without a word."


def _check(reply: Reply) -> None:
    """An error is `{"code", "message", "status"}`."""
    if 200 <= reply.status < 300:
        return
    try:
        document = _object(reply.body)
    except ToolFailed:
        document = {}
    raise _refused({"status": reply.status, **document})


def _refused(error: Mapping[str, Any]) -> ToolFailed:
    status, code = error.get("status"), error.get("code")
    message = str(error.get("message") or "").strip()[:300]
    known = _CODES.get(str(code)) or (_STATUS.get(status) if isinstance(status, int) else None)
    told = ": ".join(filter(None, (known or f"it answered with {code or status}", message)))
    return ToolFailed(f"dify has refused: {told}")


def _streamed(reply: Reply) -> bool:
    return reply.kind.lower().startswith("text/event-stream") or reply.body.lstrip().startswith((b"data:", b"event:"))


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ToolFailed("dify's reply is not what it should be: it is no JSON object")
    return document


def _events(body: bytes) -> Iterator[Mapping[str, Any]]:
    """Of a stream (WHATWG HTML 9.2); what cannot be read, such as pings, is passed over."""
    for block in body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        data = "\n".join(line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:"))
        try:
            event = json.loads(data) if data else None
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            yield event
