"""Tokenizers and chat templates as models have them, small."""

from __future__ import annotations

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from prospect.config.schema import Config
from prospect.conversation import Conversation, Message, Speaker
from prospect.model.load import train_tokenizer
from prospect.model.template import ChatFormat, install

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|eot_id|>")
TEXTS = ["user assistant system answers answers answers what is one and two? it is three. red green blue"]

_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
TEMPLATES = {
    # a newline after the end-of-turn token
    "chatml": "{% for m in messages %}" + _TURN + "{% endfor %}" + _ASK,
    # Llama 3: BOS, content trimmed, nothing after the end-of-turn token
    "llama3": "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}",
    # Mistral: no mark before an answer, EOS after it
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
    # Qwen3: an empty thought before the last answer, and earlier thoughts dropped
    "thinking": "{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}<|im_start|>assistant\n"
    "<think>\n\n</think>\n\n{{ m['content'] }}<|im_end|>\n{% else %}" + _TURN + "{% endif %}{% endfor %}" + _ASK,
    # writes a question otherwise once it has been answered
    "unstable": "{% for m in messages %}{% if loop.last and m['role'] == 'user' %}<|im_start|>user\n"
    "now: {{ m['content'] }}<|im_end|>\n{% else %}" + _TURN + "{% endif %}{% endfor %}" + _ASK,
}


def talk(*turns: tuple[Speaker, str]) -> Conversation:
    """A conversation of plain turns."""
    return Conversation(tuple(Message(role, content) for role, content in turns))


def tokenizer(adds_bos: bool = False) -> PreTrainedTokenizerBase:
    """Byte-level BPE with BOS, EOS and marks of turns; ``adds_bos``: puts BOS before every text by itself."""
    made = train_tokenizer(TEXTS, 400)
    assert isinstance(made, PreTrainedTokenizerFast)
    made.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": list(SPECIAL)})
    if adds_bos:
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", made.bos_token_id)]
        )
        assert made("a").input_ids[0] == made.bos_token_id
    return made


def chat(template: str, adds_bos: bool = False, **changes: str) -> ChatFormat:
    """A format by name; ``archangel`` is the shipped one. ``changes`` are keys of Config."""
    made = tokenizer(adds_bos)
    made.chat_template = TEMPLATES.get(template)
    install(made, Config(**changes))  # type: ignore[arg-type]
    return ChatFormat(made)
