"""How a conversation is written down for a model: the model's own chat template, or the Archangel one. Never a mix.

One path from messages to token ids serves training, sampling and ``mode=data``: messages → template → text → ids, with
no special token added on the way but a single BOS where the tokenizer puts one by itself.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from prospect.config.schema import Config
from prospect.errors import UserError
from prospect.model.control import ControlTokens

Turn = tuple[str, str]  # role, content
_SHIELD = re.compile("\ue000([0-9]+)\ue001")


def archangel(human: tuple[str, str], assistant: tuple[str, str], bos: bool) -> str:
    """The Archangel suite's format as a Jinja template: prefix and suffix of a human and of an assistant turn.

    The conversation's last answer is closed with EOS; earlier ones are not: the suite's models never saw it there.
    """
    (hp, hs), (ap, as_) = [[json.dumps(x, ensure_ascii=False) for x in pair] for pair in (human, assistant)]
    start = "{{ bos_token }}" if bos else ""
    return (
        f"{start}{{% for message in messages %}}"
        "{% if message['role'] == 'system' %}{{ '\\n<|system|>\\n' + message['content'] }}"
        f"{{% elif message['role'] == 'user' %}}{{{{ {hp} + message['content'] + {hs} }}}}"
        f"{{% else %}}{{{{ {ap} + message['content'] + {as_} }}}}"
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
    """A prompt and an answer as text; ``answer`` ends with the end-of-turn token. ``apart``: see ChatFormat.render."""

    prompt: str
    answer: str
    apart: bool


class ChatFormat:
    """Renders and tokenizes conversations with one tokenizer and its template.

    With control tokens every prompt ends with one: the desirable one, where an answer is asked for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: ControlTokens | None = None) -> None:
        self.tokenizer, self.control = tokenizer, control
        self.special = set(tokenizer.all_special_ids)
        self.shielded = {token: f"\ue000{i}\ue001" for i, token in enumerate(tokenizer.all_special_tokens)}
        self.turn_end = self._probe_turn_end()

    def prompt(self, turns: list[Turn], desirable: bool = True) -> str:
        """The text that asks the model for its next answer."""
        return self._apply(turns, add_generation_prompt=True) + self._announced(desirable)

    def render(self, turns: list[Turn], answer: str, desirable: bool = True) -> Rendered:
        """Prompt and answer as text.

        ``apart`` is true where the template writes the prompt otherwise once an answer follows (it drops earlier
        reasoning, say): the prompt is then what sampling gives, and the answer is appended to it.
        """
        bare = self._apply(turns, add_generation_prompt=True)
        prompt = bare + self._announced(desirable)
        full = self._apply([*turns, ("assistant", answer)], add_generation_prompt=False)
        if not full.startswith(bare):
            return Rendered(prompt, self._shield(answer) + self.turn_end, apart=True)
        rest = full[len(bare) :]
        # What some templates write after the end-of-turn token (a newline) belongs to the next turn: the model stops
        # at the token and never has to predict it.
        end = self.turn_end
        at = rest.rfind(end)
        rest = rest[: at + len(end)] if at >= 0 and not rest[at + len(end) :].strip() else rest + end
        return Rendered(prompt, rest, apart=False)

    def document(self, text: str) -> list[int]:
        """Token ids of a text as it is: BOS where the tokenizer puts one by itself, the text, EOS."""
        start = [self.tokenizer.bos_token_id] if _adds_bos(self.tokenizer) else []
        return [*start, *self.encode(self._shield(text)), int(self.tokenizer.eos_token_id)]

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; special tokens are what the template wrote, none is added."""
        ids: list[int] = []
        for i, part in enumerate(_SHIELD.split(text)):
            if i % 2:  # a special token's name that somebody wrote in a message: plain text
                name = self.tokenizer.all_special_tokens[int(part)]
                ids += self.tokenizer(name, add_special_tokens=False, split_special_tokens=True).input_ids
            elif part:
                ids += self.tokenizer(part, add_special_tokens=False).input_ids
        return ids

    def plain(self, text: str) -> str:
        """Rendered text as people read it."""
        return _SHIELD.sub(lambda found: str(self.tokenizer.all_special_tokens[int(found[1])]), text)

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
        }

    def _announced(self, desirable: bool) -> str:
        if self.control is None:
            return ""
        return self.control.desirable if desirable else self.control.undesirable

    def _apply(self, turns: list[Turn], add_generation_prompt: bool) -> str:
        messages = [{"role": role, "content": self._shield(content)} for role, content in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # templates raise what they like
            raise UserError(f"chat_template: refuses this conversation ({error}): {_short(turns)}") from error
        assert isinstance(text, str)
        return text

    def _shield(self, content: str) -> str:
        """A message in which the names of special tokens are marked as data: they must not become the tokens."""
        for token, mark in self.shielded.items():
            content = content.replace(token, mark)
        return content

    def _probe_turn_end(self) -> str:
        """What the template writes right after an answer: the end-of-turn token, or EOS where it writes none."""
        full = self._apply([("user", "question"), ("assistant", "@answer@")], add_generation_prompt=False)
        tail = full[full.rfind("@answer@") + len("@answer@") :]
        for i, token in enumerate(ids := self.encode(tail)):
            if token in self.special:
                return str(self.tokenizer.decode(ids[: i + 1], clean_up_tokenization_spaces=False))
        return str(self.tokenizer.eos_token)

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer: the template's end of turn and the tokenizer's end of sequence."""
        return sorted({self.encode(self.turn_end)[-1], int(self.tokenizer.eos_token_id)})


def _short(turns: list[Turn]) -> str:
    return " | ".join(f"{role}: {content[:40]}" for role, content in turns)[:160]
