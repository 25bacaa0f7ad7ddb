"""How a conversation is written down for a model: the model's own chat template, or the Archangel one. Never a mix.

One path from messages to token ids serves training, sampling and ``mode=data``: messages → template → text → ids, with
no special token added on the way but a single BOS where the tokenizer puts one by itself.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from prospect.config.schema import Config
from prospect.conversation import Conversation, Message, answered, asked, spoken
from prospect.errors import RefusedError, UnwrittenError, UserError
from prospect.model.answer_part import AnswerPart
from prospect.model.control import ControlTokens
from prospect.model.left_out import Parted, left_out
from prospect.model.shield import Shield, token_id
from prospect.model.turn_marks import SOME_TOOL, find, special_tokens, takes_parts

_ARCHANGELS = "{{ '\\n<|system|>\\n' + message['content'] }}"  # of no other template; its marks are text by design
_MARK = re.compile(r"<\|[^|<>\s]+\|>|<(?:start|end)_of_\w+>")


def archangel(human: tuple[str, str], assistant: tuple[str, str], bos: bool) -> str:
    """The Archangel suite's format as a Jinja template: prefix and suffix of a human and of an assistant turn.

    The conversation's last answer is closed with EOS; earlier ones are not: the suite's models never saw it there. Nor
    did they see tools, which are not written.
    """
    (hp, hs), (ap, as_) = [[json.dumps(x, ensure_ascii=False) for x in pair] for pair in (human, assistant)]
    start = "{{ bos_token }}" if bos else ""
    return (
        f"{start}{{% for message in messages %}}"
        f"{{% if message['role'] == 'system' %}}{_ARCHANGELS}"
        f"{{% elif message['role'] == 'user' %}}{{{{ {hp} + message['content'] + {hs} }}}}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ {ap} + message['content'] + {as_} }}}}"
        "{% if loop.last %}{{ eos_token }}{% endif %}{% endif %}{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {ap} }}}}{{% endif %}}"
    )


def install(tokenizer: PreTrainedTokenizerBase, config: Config) -> str:
    """Give the tokenizer the run's chat template, and say which it is.

    Raises:
        UserError: a template file that is missing, or a tokenizer without an end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("model.tokenizer_name_or_path: the tokenizer has no end-of-sequence token")
    if config.chat_template not in ("auto", "archangel"):
        file = Path(config.chat_template)
        if not file.is_file():
            raise UserError(f"chat_template: no such file {file} (or one of auto, archangel)")
        tokenizer.chat_template = file.read_text(encoding="utf-8")
        return f"chat template of {file}"
    if config.chat_template == "auto" and tokenizer.chat_template:
        return "the model's own chat template"
    human = (config.human_prefix, config.human_suffix)
    assistant = (config.assistant_prefix, config.assistant_suffix)
    tokenizer.chat_template = archangel(human, assistant, bos=_adds_bos(tokenizer))
    return "the Archangel chat template"


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and bool(ids) and ids[0] == tokenizer.bos_token_id


def doubts(chat: ChatFormat) -> Iterator[str]:
    """What of a template should be known before it is trained with, for people."""
    try:
        written = chat.render(asked("?"), answered("!"))
    except RefusedError:  # it takes conversations with tools alone
        return
    text = f"{written.prompt}{written.answer}"
    known, unk = chat.tokenizer.convert_tokens_to_ids, chat.tokenizer.unk_token_id
    unknown = dict.fromkeys(name for name in _MARK.findall(text) if known(name) in (None, unk))
    if unknown and _ARCHANGELS not in str(chat.tokenizer.chat_template):
        names = ", ".join(unknown)
        yield f"writes {names}, which the tokenizer has not as tokens: they are text, which a message can forge"
    header = [name for name in chat.marks.around if name in chat.marks.lead]
    if header and not chat.marks.asks:
        yield f"has no generation prompt: each answer begins with its header {chat.marks.lead!r}"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and an answer as text; ``answer`` ends with the end of turn.

    ``apart`` is true where the template writes the prompt otherwise once an answer follows (it opens reasoning for
    sampling only, say, or drops earlier reasoning): the prompt is then what sampling gives, and the answer is appended
    to it. ``notes``: what of the conversation the template leaves out, for people.
    """

    prompt: str
    answer: str
    apart: bool
    notes: tuple[str, ...] = ()


class ChatFormat:
    """Renders and tokenizes conversations with one tokenizer and its template.

    The rule for every template: the prompt's ids are those of its generation prompt; trained is what it writes after
    that, up to and with the first end of turn after the answer; sampling asks with the same ids and stops there.

    With control tokens every prompt ends with one: the desirable one, where an answer is asked for. ``kept`` names
    tokens that messages may hold as tokens, though the template writes them around turns; ``stops`` are further ids
    that end an answer (of the model's generation config); ``day`` is what a template takes for today.

    Raises:
        UserError: the template refuses a question and an answer, or writes nothing of one of them.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        control: ControlTokens | None = None,
        kept: Sequence[str] = (),
        stops: Sequence[int] = (),
        day: date | None = None,
    ) -> None:
        self.tokenizer, self.control = tokenizer, control
        self.day = day or date.today()
        self._templates = {tools: self._dated(tools) for tools in (False, True)}  # some models have one for tools
        self.special = set(special_tokens(tokenizer).values())
        self.shield = Shield(tokenizer, ())
        self.as_parts = False
        self.as_parts = takes_parts(self._probe, self._write_parts)
        self.marks = find(self._probe, tokenizer)
        listed = {str(tokenizer.convert_ids_to_tokens(i)) for i in stops}
        announced = set(control.names if control else ())
        self.shield = Shield(tokenizer, (self.marks.around | listed | announced) - set(kept))
        ends = [name for name in (self.marks.turn_end, self.marks.call_end) if name is not None]
        own = [token_id(tokenizer, name) for name in ends]
        self.stop_ids = sorted({*own, int(tokenizer.eos_token_id), *stops})
        names = [str(tokenizer.convert_ids_to_tokens(i)) for i in self.stop_ids]
        self._part = AnswerPart(self.shield, self.marks, tuple(names))
        structure = [token_id(tokenizer, name) for name in self.shield.tokens]
        self._unread = {*structure, *self.stop_ids} & self.special

    @property
    def turn_end(self) -> str:
        """The token that ends an answer."""
        return self.marks.turn_end

    @property
    def uses_date(self) -> bool:
        """Whether the template may write the current date."""
        return any(_NOW.search(_template(self.tokenizer, tools)) for tools in self._templates)

    def prompt(self, conversation: Conversation, desirable: bool = True) -> str:
        """The text that asks the model for its next answer."""
        return self._write(conversation, ask=True) + self._announced(desirable)

    def render(self, conversation: Conversation, answer: Message, desirable: bool = True) -> Rendered:
        """Prompt and answer as text.

        Raises:
            UserError: the template refuses the conversation.
            UnwrittenError: it writes nothing of the question or of the answer, or not what the answer calls.
        """
        prompt = self._write(conversation, ask=True)
        full = self._write(conversation.then(answer), ask=False)
        parted, part = Parted.of(answer, opened=self.marks.opened is not None), self._part
        apart = not full.startswith(prompt)
        rest = full[len(prompt) :]
        if apart:
            rest = part.apart(prompt, self._write(conversation, ask=False), full, answer, parted)
        rest, remarks = part.reasoned(prompt, rest, parted)
        rest, more = part.ended(rest, answer, parted)
        shown = (self.shield.blank(prompt), self.shield.blank(rest))
        spelled = self.shield.spelled((*conversation.messages, answer))
        notes = (*remarks, *more, *spelled, *left_out(*shown, conversation, answer, parted, self.shield.put))
        return Rendered(prompt + self._announced(desirable), rest, apart, notes)

    def document(self, text: str) -> list[int]:
        """Token ids of a text as it is: BOS where the tokenizer puts one by itself, the text, EOS."""
        start = [self.tokenizer.bos_token_id] if _adds_bos(self.tokenizer) else []
        return [*start, *self.encode(self.shield.put(text)), int(self.tokenizer.eos_token_id)]

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; control tokens are what the template wrote, none is added."""
        return self.shield.encode(text)

    def plain(self, text: str) -> str:
        """Rendered text as people read it."""
        return self.shield.lift(text)

    def read(self, ids: Sequence[int]) -> str:
        """A sampled answer as text: what stands between the marks that the template writes around each answer's text.

        Marks of turns are left out; those that belong into answers (of reasoning, of calls) are text.
        """
        lead, closing = self.marks.lead, self.marks.closing
        around = [token_id(self.tokenizer, name) for name in self.shield.tokens if name in lead + closing]
        kept = [i for i in ids if i not in self._unread or i in around]
        text = str(self.tokenizer.decode(kept, clean_up_tokenization_spaces=False))
        has_parts = lead in text and any(name in lead for name in self.shield.tokens)  # reasoning before it, say
        text = text.rpartition(lead)[2] if has_parts else text.removeprefix(lead)
        text = text.removesuffix(closing)
        return self.shield.without(text) if around else text  # what is left of marks of turns belongs to no answer

    def answer_text(self, conversation: Conversation, answer: Message) -> str:
        """An answer as sampling would give it: its content, or what the template writes of reasoning and calls."""
        if answer.is_plain:
            return answer.content
        try:
            written = self.plain(self.render(conversation, answer).answer)
        except UnwrittenError:
            return spoken(answer)
        return written.removesuffix(self.turn_end).rstrip("\n")

    def encode_pair(self, rendered: Rendered) -> tuple[list[int], list[int], bool]:
        """Ids of prompt and answer such that their concatenation is what training and sampling both see.

        The third value is true where the tokens of the whole do not begin with the prompt's tokens (a merge across
        the boundary): the two are then tokenized apart.
        """
        prompt = self.encode(rendered.prompt)
        whole = self.encode(rendered.prompt + rendered.answer)
        if whole[: len(prompt)] == prompt:
            return prompt, whole[len(prompt) :], rendered.apart
        return prompt, self.encode(rendered.answer), True

    def digest_parts(self) -> dict[str, Any]:
        """All that decides which ids come out; part of the key of every token cache."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return {
            "tokenizer": backend.to_str() if backend is not None else self.tokenizer.get_vocab(),
            "template": self.tokenizer.chat_template,
            "special": self.tokenizer.special_tokens_map,
            "control": self.control and asdict(self.control),
            "shielded": self.shield.names,
            "day": self.day.isoformat() if self.uses_date else None,
        }

    def _announced(self, desirable: bool) -> str:
        if self.control is None:
            return ""
        return self.control.desirable if desirable else self.control.undesirable

    def _dated(self, tools: bool) -> str:
        return _NOW.sub(lambda now: json.dumps(self.day.strftime(now[2])), _template(self.tokenizer, tools))

    def _probe(self, conversation: Conversation, ask: bool) -> str:
        """As ``_write``; with a tool where the template refuses a conversation without any."""
        try:
            return self._write(conversation, ask)
        except UserError:
            if not conversation.tools:
                with contextlib.suppress(UserError):
                    return self._write(Conversation(conversation.messages, SOME_TOOL), ask)
            raise

    def _write_parts(self, conversation: Conversation, ask: bool) -> str:
        self.as_parts = True
        try:
            return self._write(conversation, ask)
        finally:
            self.as_parts = False

    def _write(self, conversation: Conversation, ask: bool) -> str:
        """The template's text, shielded; ``ask``: with the generation prompt.

        Raises:
            UserError: the template refuses the conversation.
        """
        given = [call.arguments for message in conversation.messages for call in message.calls if call.as_text]
        try:
            text = self._rendered(conversation, ask)
            if any(_is_python(self.shield.put_all(_parsed(arguments)), text) for arguments in given):
                return self._rendered(conversation, ask, arguments_as_text=True)
            return text
        except Exception as error:  # templates raise what they like
            if given:
                with contextlib.suppress(Exception):  # templates of arguments that are text
                    return self._rendered(conversation, ask, arguments_as_text=True)
            reason = " ".join(str(error).split())[:200]
            if isinstance(error, TemplateSyntaxError):
                raise UserError(f"chat_template: is no valid Jinja (line {error.lineno}: {reason})") from error
            says = f"chat_template: refuses this conversation ({reason}): {_short(conversation)}"
            raise RefusedError(says, f"the chat template refuses ({reason})") from error

    def _rendered(self, conversation: Conversation, ask: bool, arguments_as_text: bool = False) -> str:
        rows = [message.row() for message in conversation.messages]
        for row in rows:
            row.pop("weight", None)
            for call in row.get("tool_calls", ()):
                if not arguments_as_text:
                    call["function"]["arguments"] = _parsed(call["function"]["arguments"])
            if self.as_parts:
                row["content"] = [{"type": "text", "text": row["content"]}] if row["content"] else []
        tools = json.loads(conversation.tools) if conversation.tools else None
        text = self.tokenizer.apply_chat_template(
            [
                {key: value if key == "role" else self.shield.put_all(value) for key, value in row.items()}
                for row in rows
            ],
            tools=self.shield.put_all(tools),
            tokenize=False,
            add_generation_prompt=ask,
            chat_template=self._templates[bool(tools)],
        )
        assert isinstance(text, str)
        return text


_NOW = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


def _template(tokenizer: PreTrainedTokenizerBase, tools: bool) -> str:
    """The template for conversations with or without tools."""
    return str(tokenizer.get_chat_template(tools=[{}] if tools else None))


def _parsed(arguments: Any) -> Any:
    """Arguments given as JSON text become what they say: templates write them as JSON themselves."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return arguments


def _is_python(arguments: Any, text: str) -> bool:
    """Whether a template has written arguments as Python does, with single quotes: it takes them for text."""
    is_value = isinstance(arguments, dict | list)
    return is_value and str(arguments) in text and str(arguments) != json.dumps(arguments, ensure_ascii=False)


def _short(conversation: Conversation) -> str:
    return " | ".join(f"{m.role}: {' '.join(m.content[:40].split())}" for m in conversation.messages)[:160]
