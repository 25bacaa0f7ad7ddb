"""What an endpoint takes for a model: parameters, their names and values, a system role; and the requests that fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prospect.judge.own import NOTHING, Own
from prospect.judge.prompt import Form, JudgePrompt

_NO_SYSTEM = re.compile(
    r"system (?:role|message|prompt)|(?:role|message)s?\W+(?:\w+ )?system|developer instruction|roles must alternate"
    r"|only user and assistant roles",
    re.IGNORECASE,
)
_FEW_LOGPROBS = 5
_PLAIN_TOKENS = 64  # a label in words, or JSON, where one token was asked for in vain


@dataclass(frozen=True, slots=True)
class Wants:
    """What a prompt would like to use: the weights of a first token, JSON by a schema, so many tokens for a reply, a
    system role."""

    limit: int
    logprobs: bool = False
    schema: bool = False
    system: bool = False

    @classmethod
    def of(cls, prompt: JudgePrompt) -> Wants:
        """A prompt's."""
        weighs, structured = prompt.verdict is Form.weights, prompt.verdict is not Form.words
        return cls(prompt.max_tokens, weighs, structured, bool(prompt.system.strip()))


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an endpoint accepts for a model, and does not ignore: the name and value of the token limit, how many
    log-probabilities, JSON by a schema, and optional parameters. Without ``system``, a system message is put before the
    user's words, as for models that have no such role (Gemma)."""

    limit_name: str
    limit: int
    temperature: bool = True
    seed: bool = True
    logprobs: int = 0
    json_schema: bool = False
    low_effort: bool = False
    system: bool = True
    shutdown_date: str | None = None

    def request(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        seed: int,
        temperature: float = 0.0,
        schema: Mapping[str, Any] | None = None,
        own: Own = NOTHING,
    ) -> dict[str, Any]:
        """The body of a chat completion; ``own`` are the user's parameters, which have the last word."""
        said = list(messages) if self.system else _merged(messages)
        body: dict[str, Any] = {"model": model, "messages": said, self.limit_name: self.limit}
        if self.temperature:
            body["temperature"] = int(temperature) if temperature == int(temperature) else temperature
        if self.seed:
            body["seed"] = seed
        if self.logprobs:
            body |= {"logprobs": True, "top_logprobs": self.logprobs}
        if self.json_schema and schema is not None:
            spec = {"name": "verdict", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": spec}
        if self.low_effort:
            body["reasoning_effort"] = "low"
        return own.added_to(body)

    def without(self, refusal: str, wants: Wants) -> Capabilities | None:
        """These, less the parameter that a refusal names; None where it names none that can go."""
        if self.system and wants.system and _NO_SYSTEM.search(refusal):
            return replace(self, system=False)
        if self.low_effort and "reasoning_effort" in refusal:
            return replace(self, low_effort=False)
        if self.logprobs and "logprobs" in refusal:
            if self.logprobs > _FEW_LOGPROBS and re.search(r"\btop_logprobs\b", refusal):
                return replace(self, logprobs=_FEW_LOGPROBS)
            return self.without_weights(wants)
        if self.json_schema and re.search(r"response_format|json_schema|schema", refusal):
            return replace(self, json_schema=False)
        if re.search(rf"\b{self.limit_name}\b", refusal):
            other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[self.limit_name]
            return replace(self, limit_name=other)
        if self.temperature and "temperature" in refusal:
            return replace(self, temperature=False)
        if self.seed and re.search(r"\bseed\b", refusal):
            return replace(self, seed=False)
        return None

    def without_weights(self, wants: Wants) -> Capabilities:
        """These for a judge whose first token says nothing: its text or JSON counts, and has room."""
        return replace(self, logprobs=0, json_schema=wants.schema, limit=max(self.limit, _PLAIN_TOKENS))


def _merged(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The messages with system messages put before the words of the next one."""
    said: list[Mapping[str, str]] = []
    before: list[str] = []
    for message in messages:
        if message["role"] == "system":
            before.append(message["content"])
            continue
        said.append({**message, "content": "\n\n".join((*before, message["content"]))})
        before = []
    return said
