"""How a conversation is written down for a model: the model's own chat template, or the Archangel one. Never a mix.

One path from messages to token ids serves training, sampling and ``mode=data``: messages → template → text → ids, with
no special token added on the way but a single BOS where the tokenizer puts one by itself.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from prospect.config.schema import Config
from prospect.conversation import Conversation, Message, spoken
from prospect.errors import UnwrittenError, UserError
from prospect.model.control import ControlTokens
from prospect.model.left_out import left_out, shows, spoken_part
from prospect.model.shield import Shield, token_id
from prospect.model.turn_marks import alike, closed_by, find, special_tokens, takes_parts


def archangel(human: tuple[str, str], assistant: tuple[str, str], bos: bool) -> str:
    """The Archangel suite's format as a Jinja template: prefix and suffix of a human and of an assistant turn.

    The conversation's last answer is closed with EOS; earlier ones are not: the suite's models never saw it there. Nor
    did they see tools, which are not written.
    """
    (hp, hs), (ap, as_) = [[json.dumps(x, ensure_ascii=False) for x in pair] for pair in (human, assistant)]
    start = "{{ bos_token }}" if bos else ""
    return (
        f"{start}{{% for message in messages %}}"
        "{% if message['role'] == 'system' %}{{ '\\n<|system|>\\n' + message['content'] }}"
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
        self._template = _NOW.sub(lambda now: json.dumps(self.day.strftime(now[2])), str(tokenizer.chat_template))
        self.special = set(special_tokens(tokenizer).values())
        self.shield = Shield(tokenizer, ())
        self.as_parts = False
        self.as_parts = takes_parts(self._write, self._write_parts)
        self.marks = find(self._write, tokenizer)
        listed = {str(tokenizer.convert_ids_to_tokens(i)) for i in stops}
        announced = set(control.names if control else ())
        self.shield = Shield(tokenizer, (self.marks.around | listed | announced) - set(kept))
        ends = [name for name in (self.marks.turn_end, self.marks.call_end) if name is not None]
        own = [token_id(tokenizer, name) for name in ends]
        self.stop_ids = sorted({*own, int(tokenizer.eos_token_id), *stops})
        structure = [token_id(tokenizer, name) for name in self.shield.tokens]
        self._unread = {*structure, *self.stop_ids} & self.special

    @property
    def turn_end(self) -> str:
        """The token that ends an answer."""
        return self.marks.turn_end

    @property
    def uses_date(self) -> bool:
        """Whether the template may write the current date."""
        return self._template != str(self.tokenizer.chat_template)

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
        apart = not full.startswith(prompt)
        rest = self._after(prompt, full, conversation, answer) if apart else full[len(prompt) :]
        rest, remarks = self._reasoned(prompt, rest, answer, apart)
        rest = self._ended(rest, answer)
        shown = (self.shield.blank(prompt), self.shield.blank(rest))
        notes = (*remarks, *left_out(*shown, conversation, answer, self.shield.put))
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
        """A sampled answer as text: without the marks of turns, with those that belong into answers."""
        kept = [i for i in ids if i not in self._unread]
        return str(self.tokenizer.decode(kept, clean_up_tokenization_spaces=False))

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

    def _after(self, prompt: str, full: str, conversation: Conversation, answer: Message) -> str:
        """What the template writes for an answer, though not after the prompt of sampling.

        Where both texts agree beyond the last question, it is all that follows the tokens that they share; else the
        answer's own part, from what it says or thinks on.
        """
        unasked = self._write(conversation, ask=False)
        shared = self._shared(prompt, full)
        if shared >= alike(prompt, unasked):
            return full[shared:]
        first = answer.reasoning or answer.content
        header = prompt[alike(prompt, unasked) :]
        at = self.shield.blank(full).rfind(self.shield.put(first).strip()) if first.strip() else -1
        if (at < 0 or answer.calls) and header and header in full:
            at = full.rfind(header) + len(header)
        return full[at:] if at >= 0 else ""

    def _shared(self, one: str, other: str) -> int:
        """How many characters of ``other`` its first tokens have that ``one`` begins with, too."""
        count = alike(self.encode(one), self.encode(other))
        if not self.tokenizer.is_fast:  # it does not tell where its tokens end
            return alike(one, other)
        return self.shield.ends(other)[count - 1] if count else 0

    def _reasoned(self, prompt: str, rest: str, answer: Message, apart: bool) -> tuple[str, list[str]]:
        """An answer behind a prompt that opens its reasoning: without a second opening, closed where there is none."""
        opened, shut = self.marks.opened, closed_by(prompt)
        if apart and shut is not None and shut in rest:  # the prompt has closed what the template writes of reasoning
            return rest.partition(shut)[2].lstrip(), []
        if opened is None or not prompt.endswith(opened.opening):
            return rest, []
        (opening, closing), content = opened.marks, self.shield.put(answer.content)
        if rest.lstrip().startswith(opening):
            rest = rest.lstrip().removeprefix(opening).lstrip()
        thought = self.shield.put(answer.reasoning) or _before(content, opening, closing)
        if closing in rest and (not thought or thought.strip() in rest):
            return rest, [] if thought else [_UNREASONED]
        if thought:  # the template has cut what sampling would give
            return thought.strip("\n") + opened.closing + rest.lstrip(), []
        return opened.closing + rest.lstrip(), [_UNREASONED]

    def _ended(self, rest: str, answer: Message) -> str:
        """An answer up to and with the first end of turn after what it says and calls; the end is added if missing.

        What some templates write after it (a newline, another end) belongs to what follows: the model stops at the
        token and never has to predict it.
        """
        said = [self.shield.put(text) for text in (spoken_part(answer.content), *answer.called())]
        blank, names = self.shield.blank(rest), [str(self.tokenizer.convert_ids_to_tokens(i)) for i in self.stop_ids]
        called = [self.marks.call_end] if answer.calls and self.marks.call_end else []
        for name in dict.fromkeys((self.turn_end, *called, *names)):
            ends = [found.end() for found in re.finditer(re.escape(name), rest)]
            whole = [at for at in ends if all(shows(blank[: at - len(name)], text) for text in said)]
            if whole or (ends and name == self.turn_end):
                return rest[: min(whole, default=ends[0])]
        return rest + self.turn_end

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
        try:
            return self._rendered(conversation, ask)
        except Exception as error:  # templates raise what they like
            if any(call.as_text for message in conversation.messages for call in message.calls):
                with contextlib.suppress(Exception):  # templates of arguments that are text
                    return self._rendered(conversation, ask, arguments_as_text=True)
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"chat_template: refuses this conversation ({reason}): {_short(conversation)}") from error

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
            chat_template=self._template,
        )
        assert isinstance(text, str)
        return text


_NOW = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_UNREASONED = "answer without reasoning behind a prompt that opens it: the reasoning is closed empty"


def _before(text: str, opening: str, closing: str) -> str:
    """What a text thinks before a closing mark; what was sampled behind an opening one has none of its own."""
    return text.lstrip().removeprefix(opening).partition(closing)[0] if closing in text else ""


def _parsed(arguments: Any) -> Any:
    """Arguments given as JSON text become what they say: templates write them as JSON themselves."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return arguments


def _short(conversation: Conversation) -> str:
    return " | ".join(f"{m.role}: {' '.join(m.content[:40].split())}" for m in conversation.messages)[:160]
