"""The voice of `bench/latency.py`: notes when marked audio of callers comes, and sends marked audio of its own.

    python bench/marking_voice.py FILE

Prints its URL. At SIGTERM it writes the ms that callers' audio took to come here into FILE, as a JSON list of pairs:
of the first and the second packet of a message.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from base64 import b64decode, b64encode
from itertools import count
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.marks import marked, times

EVERY = 1.0
"""Seconds between two utterances."""

GREETING, UTTERANCE = 400, 100
"""Their length, ms."""


class Voice:
    """All sessions."""

    def __init__(self) -> None:
        self.took: list[tuple[float, float]] = []
        self._sessions = count()

    async def session(self, link: ServerConnection) -> None:
        """One call."""
        number = next(self._sessions)
        await self._say(link, "session.created", session={"type": "realtime"})
        speaking: asyncio.Task[None] | None = None
        try:
            async for text in link:
                if text.startswith('{"type":"input_audio_buffer.append"'):  # type: ignore[arg-type]
                    now = time.time_ns()
                    audio = b64decode(json.loads(text)["audio"])
                    found = list(times(audio))
                    if len(found) == 2:  # one message: the packet that waited, and the one that completed it
                        self.took.append(((now - found[0]) / 1e6, (now - found[1]) / 1e6))
                    continue
                event = json.loads(text)
                if event["type"] == "session.update":
                    await self._say(link, "session.updated", session=event["session"])
                elif event["type"] == "response.create" and speaking is None:
                    await self._utter(link, f"g{number}", GREETING, event["response"].get("metadata"))
                    speaking = asyncio.create_task(self._speak(link, number))
        finally:
            if speaking is not None:
                speaking.cancel()

    async def _speak(self, link: ServerConnection, number: int) -> None:
        await asyncio.sleep(EVERY + number * 0.0137 % EVERY)
        for turn in count():
            await self._utter(link, f"{number}u{turn}", UTTERANCE)
            await asyncio.sleep(EVERY)

    async def _utter(self, link: ServerConnection, name: str, length: int, metadata: Any = None) -> None:
        await self._say(link, "response.created", response={"id": name, "status": "in_progress", "metadata": metadata})
        where = {"response_id": name, "item_id": f"i{name}", "output_index": 0, "content_index": 0}
        await self._say(link, "response.output_audio.delta", **where, delta=b64encode(marked(8 * length)).decode())
        await self._say(link, "response.output_audio.done", **where)
        done = {"id": name, "status": "completed", "metadata": metadata, "output": [{"type": "message"}]}
        await self._say(link, "response.done", response=done)

    async def _say(self, link: ServerConnection, kind: str, **fields: Any) -> None:
        await link.send(json.dumps({"type": kind, "event_id": "e", **fields}))


async def main() -> list[tuple[float, float]]:
    voice, over = Voice(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with serve(voice.session, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"ws://127.0.0.1:{port}/v1/realtime", flush=True)
        await over.wait()
    return voice.took


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(asyncio.run(main())))
