"""Make what bench/run.py needs: rows of texts, a tokenizer trained on them, and a model with random weights.

python bench/prepare.py --pairs dpo_en_demo.json --labelled kto_en_demo.json --out runs/bench --shapes d8k,s128k

writes dpo.jsonl, kto.jsonl and a folder for each shape there. Conversations become one text in the Archangel format,
and the model's chat template writes prompt and answer as they stand: every framework gets the same token ids.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from dataloaders import load_examples  # noqa: E402
from dataloaders.example import Drops, Example  # noqa: E402
from prospect.config.schema import DatasetConfig, Split  # noqa: E402
from prospect.errors import ProspectError  # noqa: E402
from prospect.model.load import train_tokenizer  # noqa: E402

# d8k: 32M parameters; the head is 18% of the multiplications a token, as in models of 1.5B
# s128k: 69M, nearly all of them rows of the vocabulary; for memory
SHAPES: dict[str, dict[str, Any]] = {
    "d8k": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1408, "vocab_size": 8192},
    "s128k": {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 704, "vocab_size": 128256},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 512},
}
_MOST_TOKENS = 8192  # of a tokenizer; rows beyond them are never looked up, and cost what others do
_AS_IT_STANDS = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def texts(example: Example) -> dict[str, str | bool]:
    """One row of bench/run.py's file. Answers lose outer white space, so that no token spans prompt and answer."""
    prompt = "".join(f"\n<|{turn.role}|>\n{turn.content}" for turn in example.prompt) + "\n<|assistant|>\n"
    answers = [answer.content.strip() for answer in example.answers]
    if example.pairs:
        better, worse = example.pairs[0]
        return {"prompt": prompt, "chosen": answers[better], "rejected": answers[worse]}
    return {"prompt": prompt, "completion": answers[0], "label": example.desirable[0]}


def rows(file: Path) -> list[dict[str, str | bool]]:
    """All rows of a data file in any shape that Prospect reads."""
    examples = load_examples(file.stem, DatasetConfig(path=str(file)), Split.all, 0, Drops())
    return [texts(example) for example in examples]


def make_model(shape: str, found: list[dict[str, str | bool]], folder: Path) -> None:
    """A Llama of random weights (the same ones each time) and its tokenizer."""
    tokenizer = train_tokenizer(_strings(found), min(SHAPES[shape]["vocab_size"], _MOST_TOKENS))
    tokenizer.chat_template = _AS_IT_STANDS
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape],
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _strings(found: list[dict[str, str | bool]]) -> Iterator[str]:
    for row in found:
        yield from (value for value in row.values() if isinstance(value, str))


def main() -> int:
    """Write everything; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--labelled", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shapes", default="d8k", help=f"of {', '.join(SHAPES)}, separated by commas")
    arguments = parser.parse_args()
    shapes = arguments.shapes.split(",")
    if unknown := set(shapes) - SHAPES.keys():
        parser.error(f"--shapes: no {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    everything = []
    try:
        for name, file in (("dpo", arguments.pairs), ("kto", arguments.labelled)):
            found = rows(file)
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
            (arguments.out / f"{name}.jsonl").write_text(lines, encoding="utf-8")
            everything += found
    except ProspectError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for shape in shapes:
        make_model(shape, everything, arguments.out / shape)
    print(f"written: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
