"""Run by transformers 4.57, which knows nothing of this project: whether it reads what export.py has written.

python check.py FOLDER READ.json compares logits and tokens, and writes down which settings it has read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

ROTARY = (
    *("rope_theta", "rope_scaling", "partial_rotary_factor", "rotary_pct", "rotary_emb_base", "rope_local_base_freq"),
    "num_experts",
)
TOLERANCE = 1e-5


def problems(folder: Path) -> list[str]:
    """What is other than it must be."""
    found = []
    if (folder / "logits.pt").is_file():
        options: dict[str, Any] = {"attn_implementation": "eager", "dtype": torch.float32}
        model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
        with torch.no_grad():
            logits = model(torch.arange(3, 103)[None]).logits
        worst = float((logits - torch.load(folder / "logits.pt", weights_only=True)).abs().max())
        found += [f"a logit differs by {worst:.3g}"] if worst > TOLERANCE else []
        found += [] if GenerationConfig.from_pretrained(folder).eos_token_id == [0, 311] else ["other stop tokens"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts, ids, plain, spelled = json.loads((folder / "texts.json").read_text())
    found += [] if [tokenizer(text).input_ids for text in texts] == ids else ["other ids"]
    own = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    found += [] if own == plain else ["other ids without special tokens"]
    found += [] if [tokenizer.decode(some) for some in ids] == spelled else ["other texts"]
    return found


def read(folder: Path) -> dict[str, Any]:
    """The settings of positions and experts as this version has read them; a key it does not know is left out."""
    config = AutoConfig.from_pretrained(folder)
    return {key: getattr(config, key) for key in ROTARY if hasattr(config, key)}


def main(root: Path, file: Path) -> int:
    """One line a folder; 1 where anything is wrong."""
    logging.set_verbosity_error()
    wrong = 0
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        found = problems(folder)
        wrong += bool(found)
        print(f"{folder.name}: {'; '.join(found) or 'as it must be'}")
    known = {folder.parent.name: read(folder.parent) for folder in sorted(root.glob("*/config.json"))}
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    print(f"{wrong} folders are read otherwise; what was read: {file}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
