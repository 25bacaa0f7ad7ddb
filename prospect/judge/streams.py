"""A reply's body as one JSON object: as it is, or put together from the pieces of a stream.

Some servers stream although nobody asked for it: lines of ``data: {…}`` with a delta each (server-sent events), ended
by ``data: [DONE]`` or a finish reason. A stream that broke off before is no reply.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def content_of(body: bytes) -> Mapping[str, Any] | None:
    """The object that a body holds; None where it holds none, or a stream that broke off."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return _assembled(body) if is_stream(body) else None
    return content if isinstance(content, dict) else None


def is_stream(body: bytes) -> bool:
    """Whether a body looks like server-sent events."""
    return body.lstrip()[:7].startswith((b"data:", b"event:", b": "))


def _assembled(body: bytes) -> Mapping[str, Any] | None:
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {"content": ""}
    choice: dict[str, Any] = {"message": message, "finish_reason": None}
    done = False
    for line in body.decode("utf-8", "replace").splitlines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            done = True
            break
        try:
            piece = json.loads(data)
        except ValueError:
            return None
        if not isinstance(piece, dict):
            return None
        whole |= {key: value for key, value in piece.items() if key != "choices" and value is not None}
        _add(choice, message, piece)
    if "error" in whole:
        return whole
    finished = done or choice["finish_reason"] is not None
    return whole | {"choices": [choice]} if finished and whole else None


def _add(choice: dict[str, Any], message: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Take one piece's first choice into the whole one."""
    choices = piece.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return
    for key, value in (choices[0].get("delta") or choices[0].get("message") or {}).items():
        if isinstance(value, str) and key != "role":
            message[key] = (message.get(key) or "") + value
    if choices[0].get("logprobs"):
        choice.setdefault("logprobs", choices[0]["logprobs"])  # the first token's are those that are read
    choice["finish_reason"] = choices[0].get("finish_reason") or choice["finish_reason"]
