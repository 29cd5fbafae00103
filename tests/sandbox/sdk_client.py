"""`python -m tests.sandbox.sdk_client URL MODEL [WAV …]`: a phone call with the official OpenAI SDK.

Greets, then speaks each WAV (G.711 µ-law bytes) in real time and waits for the answer.
Every raw event is held against the SDK's types. Prints one JSON object per answer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
FORMAT: Any = {"type": "audio/pcmu"}
NUMBER = {"type": "number"}
TOOLS: Any = [
    {
        "type": "function",
        "name": "two_numbers",
        "description": "If the user wants to provide two numbers, ask for and process two numbers.",
        "parameters": {
            "type": "object",
            "required": ["number1", "number2"],
            "properties": {"number1": NUMBER, "number2": NUMBER},
        },
    },
    {"type": "function", "name": "end_call", "description": "Hang up."},
    {"type": "function", "name": "transfer_call", "description": "Transfer the caller."},
]


async def talk(url: str, model: str, sounds: list[bytes]) -> None:
    """One call."""
    client = AsyncOpenAI(api_key="none", websocket_base_url=url.rsplit("/", 1)[0])
    async with client.realtime.connect(model=model) as connection:
        stopped = first = 0.0
        audio = b""

        async def event() -> dict[str, Any]:
            nonlocal stopped, first, audio
            raw = await asyncio.wait_for(connection.recv_bytes(), 60)
            EVENT.validate_json(raw)
            found: dict[str, Any] = json.loads(raw)
            if found["type"] == "input_audio_buffer.speech_stopped":
                stopped = time.monotonic()
            if found["type"] == "response.output_audio.delta":
                first = first or time.monotonic()
                audio += base64.b64decode(found["delta"])
            return found

        async def until(kind: str) -> dict[str, Any]:
            while (found := await event())["type"] != kind:
                if found["type"] == "error":
                    raise AssertionError(found)
            return found

        async def answer() -> list[dict[str, Any]]:
            nonlocal first, audio
            first, audio = 0.0, b""
            response = (await until("response.done"))["response"]
            shown = {
                "status": response["status"],
                "said": [part.get("transcript") for item in response["output"] for part in item.get("content", ())],
                "called": [[i["name"], json.loads(i["arguments"])] for i in response["output"] if "arguments" in i],
                "latency": round(first - stopped, 3) if stopped else None,
                "audio": base64.b64encode(audio).decode(),
            }
            sys.stdout.write(json.dumps(shown) + "\n")
            return [item for item in response["output"] if item["type"] == "function_call"]

        await until("session.created")
        await connection.session.update(
            session={
                "type": "realtime",
                "instructions": "You are the voice of a shop.",
                "audio": {
                    "input": {"format": FORMAT, "transcription": {"model": "gpt-transcribe"}},
                    "output": {"format": FORMAT},
                },
                "tools": TOOLS,
            }
        )
        assert (await until("session.updated"))["session"]["audio"]["output"]["format"] == FORMAT
        await connection.response.create(response={"instructions": 'Say exactly: "Welcome to the shop."'})
        await answer()
        for sound in sounds:
            began = time.monotonic()

            async def speak(sound: bytes = sound + b"\xff" * 12000, began: float = began) -> None:
                for start in range(0, len(sound), 320):
                    await connection.input_audio_buffer.append(
                        audio=base64.b64encode(sound[start : start + 320]).decode()
                    )
                    await asyncio.sleep(max(began + start / 8000 - time.monotonic(), 0))

            speaking = asyncio.create_task(speak())
            calls = await answer()
            await speaking
            for call in calls:
                if call["name"] == "two_numbers":
                    await connection.conversation.item.create(
                        item={
                            "type": "function_call_output",
                            "call_id": call["call_id"],
                            "output": "The sum is twelve.",
                        }
                    )
                    await connection.response.create()
                    await answer()
        await connection.response.cancel()
        while (found := await event())["type"] != "error":
            pass
        assert found["error"]["code"] == "response_cancel_not_active", found


if __name__ == "__main__":
    asyncio.run(talk(sys.argv[1], sys.argv[2], [Path(name).read_bytes() for name in sys.argv[3:]]))
