"""What a rendering leaves out of a conversation: templates drop without a word what they do not know.

A template that knows no reasoning, tools or system turns renders all the same, and a model would be trained on less
than its row holds. So each text of the conversation is looked for in what was rendered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prospect.conversation import Conversation, Message
from prospect.errors import UnwrittenError

_OPENS = re.compile(r"\s*(?:<think>|\[THINK\])")
_THINKS = re.compile(r"\s*(?:<think>|\[THINK\])(.*?)(?:</think>|\[/THINK\])", re.DOTALL)
_GOES_ON = re.compile(r"(.*?)(?:</think>|\[/THINK\])", re.DOTALL)  # behind a prompt that opens reasoning
_SWITCH = re.compile(r"/(?:no_?)?think\b")  # by which users switch reasoning on and off: templates act on it


@dataclass(frozen=True, slots=True)
class Parted:
    """An answer's reasoning, from a field of its own or from the beginning of its text, and the text that it says."""

    thought: str
    said: str

    @classmethod
    def of(cls, answer: Message, opened: bool = False) -> Parted:
        """``opened``: the prompt opens reasoning, so that an answer's text may begin in the middle of it.

        Raises:
            UnwrittenError: the text opens reasoning that it never closes.
        """
        found = _THINKS.match(answer.content)
        if found is None and opened and not answer.reasoning and "<think>" not in answer.content:
            found = _GOES_ON.match(answer.content)
        if found is None and _OPENS.match(answer.content):
            raise UnwrittenError("the answer opens reasoning and never closes it")
        if found is None or answer.reasoning:
            return cls(answer.reasoning, answer.content)
        return cls(found[1], answer.content[found.end() :])


def left_out(
    prompt: str, rest: str, conversation: Conversation, answer: Message, parted: Parted, put: Callable[[str], str]
) -> Iterator[str]:
    """Notes on what is missing, for people. ``prompt`` and ``rest`` are rendered; ``put`` shields a text as they are.

    Raises:
        UnwrittenError: what is missing is the last turn before the answer, the answer, or what the answer calls.
    """

    def has(text: str, *wanted: str) -> bool:
        return all(shows(text, put(said)) or shows(text, put(_SWITCH.sub("", said))) for said in wanted)

    if not has(rest, parted.said):
        raise UnwrittenError("the chat template leaves out the answer")
    if not has(rest, *answer.called()):
        raise UnwrittenError("the chat template writes no tool calls")
    if not has(rest, parted.thought):
        yield "answer whose reasoning the chat template leaves out"
    for message in conversation.messages:
        if not has(prompt, _spoken(message.content)):
            if message is conversation.messages[-1]:
                raise UnwrittenError(f"the chat template leaves out the {message.role} turn before the answer")
            yield f"conversation in which the chat template leaves out the content of a {message.role} turn"
        if not has(prompt, *message.called()):
            yield "conversation in which the chat template leaves out an earlier tool call"
    if not has(prompt, *_tool_names(conversation.tools)):
        yield "conversation whose tools the chat template leaves out"


def shows(text: str, said: str) -> bool:
    """Whether a rendering has a text, as it is, as JSON, or line by line (templates trim)."""
    wanted = said.strip()
    if wanted in text or json.dumps(wanted, ensure_ascii=False)[1:-1] in text:
        return True
    return all(line.strip() in text or json.dumps(line.strip())[1:-1] in text for line in wanted.splitlines())


def _spoken(content: str) -> str:
    """An earlier turn's text without the reasoning before it, which most templates drop."""
    found = _THINKS.match(content) or _GOES_ON.match(content)
    return content[found.end() :] if found else content


def _tool_names(tools: str) -> list[str]:
    found = [tool.get("function", tool) for tool in json.loads(tools or "[]")]
    return [str(tool["name"]) for tool in found if isinstance(tool, dict) and tool.get("name")]
