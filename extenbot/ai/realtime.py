"""The Realtime protocol over a websocket: a conversation in the dialect of its server.

What is said in the session is the work of `conversation` and `talk`, what servers want differently of `dialects`.
"""

from __future__ import annotations

from extenbot.ai import dialects, extra
from extenbot.ai.conversation import Conversation
from extenbot.errors import BackendLost, Invalid
from extenbot.interfaces import VoiceOrder, VoiceSurroundings


def open_voice(order: VoiceOrder, surroundings: VoiceSurroundings, url: str, model: str = "") -> Conversation:
    """Start to open a session at `url` (ws or wss, query allowed); the listener hears `opened` or `lost`, later."""
    dialect = dialects.of(order, url)
    conversation = Conversation(order, surroundings, dialect)
    try:
        where = dialect.address(url, model)
        dialect.addition(order)
    except BackendLost as why:
        conversation.refuse(why)
    except Invalid as problem:
        conversation.refuse(extra.refused(problem))
    else:
        conversation.open(where, dialect.headers(order))
    return conversation
