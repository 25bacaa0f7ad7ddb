"""Reading a raw chat completion. Kept apart from asking, so that a better reader costs nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prospect.judge import streams

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")
_TAGS = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)"
_OPENS, _ENDS = rf"(?:<{_TAGS}>|\[{_TAGS}\]|◁think▷)", rf"(?:</{_TAGS}>|\[/{_TAGS}\]|◁/think▷)"
_THOUGHT = re.compile(rf"{_OPENS}.*?{_ENDS}", re.DOTALL | re.IGNORECASE)
_OPEN_THOUGHT = re.compile(_OPENS, re.IGNORECASE)
_END_OF_THOUGHT = re.compile(_ENDS, re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>(\w+)[^<]*<\|message\|>")  # gpt-oss, where a server leaves its marks in
_SPECIAL = re.compile(r"<\|\w+\|>")
_REFUSES = re.compile(
    r"\W*(?:(?:i'm |i am |we're )?(?:very |so )?(?:sorry|apolog\w+)|unfortunately|as an ai[^.,]*)?\W*(?:but )?"
    r"(?:i|we)\s*(?:'m|am|are)?\s*(?:can ?not|can't|won't|will not|unable to|not able to|must decline to|decline to)\s+"
    r"(?:assist|help|comply|fulfil|provide|engage|continue|participate|evaluate|judge|compare|rate|support|do th)",
    re.IGNORECASE,
)
_STRAIGHT = str.maketrans("\u2018\u2019", "''")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply, as its server counted them; 0 where it did not."""

    prompt: int
    completion: int
    cached: int
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply of a judge. ``text`` is without its thoughts; ``fault`` says why it can hold no verdict; ``top`` are
    the log-probabilities of the first token's alternatives."""

    text: str
    fault: str
    model: str
    fingerprint: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasons: bool
    top: Mapping[str, float] | None
    decision: bool = False  # typed (systemone.py): ``top`` are its options, not tokens

    @property
    def usage(self) -> Usage:
        """What it took."""
        return Usage(self.prompt_tokens, self.completion_tokens, self.cached_tokens)


def read(body: bytes) -> Completion | None:
    """A chat completion's body as text and counts; None where it is none, or an error."""
    content = streams.content_of(body)
    if content is None or error_in(body) is not None:
        return None
    try:
        if "answers" in content:
            return _decision(content)
        choice = content["choices"][0]
        message = choice["message"]
        raw, thoughts = _said(message.get("content"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    text, cut = strip_thoughts(raw)
    finish = choice.get("finish_reason")
    thoughts = thoughts or message.get("reasoning_content") or message.get("reasoning") or text != raw.strip()
    used = usage(content)
    return Completion(
        text=text,
        fault=_fault(text, finish, message.get("refusal"), cut),
        model=str(content.get("model") or ""),
        fingerprint=str(content.get("system_fingerprint") or ""),
        prompt_tokens=used.prompt,
        completion_tokens=used.completion,
        cached_tokens=used.cached,
        reasons=bool(thoughts or cut or used.reasoning),
        top=_top(choice),
    )


def usage(content: Mapping[str, Any]) -> Usage:
    """The tokens that a reply took, by OpenAI's names or Anthropic's."""
    found = _mapping(content.get("usage"))
    return Usage(
        prompt=_count(found.get("prompt_tokens", found.get("input_tokens"))),
        completion=_count(found.get("completion_tokens", found.get("output_tokens"))),
        cached=_count(_mapping(found.get("prompt_tokens_details")).get("cached_tokens")),
        reasoning=_count(_mapping(found.get("completion_tokens_details")).get("reasoning_tokens")),
    )


def error_in(body: bytes) -> Mapping[str, Any] | None:
    """The error that stands in a reply with status 200 in place of a completion, or in its choice; it has a
    ``message``."""
    content = streams.content_of(body)
    if content is None:
        return None
    choices = content.get("choices")
    first = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    error = content.get("error") or first.get("error")
    if not error:
        return {"message": "finish_reason is error"} if first.get("finish_reason") == "error" else None
    if not isinstance(error, Mapping):
        return {"message": str(error), "code": content.get("code")}
    return {**error, "message": str(error.get("message") or error.get("code") or error)}


def instead(body: bytes) -> str:
    """What a body holds that should be a chat completion, in a few words."""
    text = body.decode("utf-8", "replace").strip()
    if re.match(r"<(?:!doctype|html|\?xml|head|body)", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        return f"a page of HTML{f' ({title[1].strip()})' if title and title[1].strip() else ''}"
    content = streams.content_of(body)
    if content is not None:
        return "no choices" if not content.get("choices") else f"a choice that holds no message: {text[:100]}"
    if streams.is_stream(body):
        return "a stream that broke off"
    return f"no JSON: {text[:100]}" if text else "nothing"


def _said(content: Any) -> tuple[str, bool]:
    """The text of a message's content, and whether thoughts stood beside it. A list of parts is the text of its text
    parts; thinking parts are thoughts."""
    if content is None or isinstance(content, str):
        return content or "", False
    texts, thoughts = [], False
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") in ("text", "output_text") or "type" not in part:
            texts.append(str(part["text"]))
        else:
            thoughts = thoughts or part["type"] in ("thinking", "reasoning", "redacted_thinking")
    return "".join(texts), thoughts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _decision(content: Mapping[str, Any]) -> Completion:
    """A typed decision: the probabilities of the options take the place of a first token's."""
    answer, used = content["answers"]["winner"], usage(content)
    top = {str(option): math.log(max(float(p), 1e-300)) for option, p in answer["probabilities"].items()}
    tokens = (used.prompt, used.completion, 0)
    return Completion(
        str(answer["choice"]), "", str(content.get("model") or ""), "", *tokens, False, top, decision=True
    )


def refuses(text: str) -> bool:
    """Whether a judge's words decline to judge."""
    return _REFUSES.match(text.translate(_STRAIGHT)) is not None


def is_completion(body: bytes) -> bool:
    """Whether a body with status 200 is a chat completion at all."""
    return read(body) is not None


def plain(text: str) -> str:
    """Without control and direction characters, which could rewrite what a terminal shows."""
    return _CONTROL.sub(" ", text)


def strip_thoughts(text: str) -> tuple[str, bool]:
    """The text after its thoughts, and whether they were cut off before their end."""
    channels = list(_CHANNEL.finditer(text))
    if channels:
        text, open_end = _SPECIAL.sub("", text[channels[-1].end() :]), channels[-1][1] != "final"
        return ("", True) if open_end else (text.strip(), False)
    text = _THOUGHT.sub("", text)
    text = _END_OF_THOUGHT.split(text)[-1]  # templates that open the thought in the prompt leave only its end
    cut = _OPEN_THOUGHT.search(text)
    return (text[: cut.start()].strip(), True) if cut else (text.strip(), False)


def _fault(text: str, finish: Any, refusal: Any, cut: bool) -> str:
    if refusal:
        return "refusal"
    if finish == "content_filter":
        return "content filter"
    if cut or finish == "length":  # "Response 1 is more detailed, but" must not count for Response 1
        return "truncated"
    return "" if text else "empty"


def _top(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """The first token's alternatives; None where the server gave none."""
    try:
        first = choice["logprobs"]["content"][0]
        found: dict[str, float] = {}
        for entry in first.get("top_logprobs") or [first]:
            logprob = float(entry["logprob"])
            if logprob == logprob:
                found[str(entry["token"])] = logprob
        return found or None
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _count(value: Any) -> int:
    """A number of tokens, also as a float or as text."""
    try:
        return max(0, int(float(value)))
    except (TypeError, ValueError, OverflowError):
        return 0


def json_objects(text: str) -> list[Mapping[str, Any]]:
    """The outermost JSON objects in a text, in order."""
    found: list[Mapping[str, Any]] = []
    end = 0
    for match in re.finditer(r"\{", text):
        if match.start() < end:
            continue
        try:
            content, end = json.JSONDecoder().raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            found.append(content)
    return found
