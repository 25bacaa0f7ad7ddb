"""The text of ``python train.py --help``: how to begin, every choice, every key. It is read from config/ itself."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

CONFIG = Path(__file__).resolve().parents[2] / "config"

_BEGIN = """\
Train a language model from human feedback.

    python train.py loss=sft model=llama7b datasets=[shp,hh,oasst] exp_name=llama7b_sft
    python train.py loss=kto model=llama7b model.load_from=llama7b_sft          start from that run's policy
    python train.py -m loss=dpo,kto model=llama7b loss.beta=0.05,0.1,0.2        a sweep: six runs, one after another
    python train.py chain=medical model=llama7b pt.datasets.files.path=…        stages that start from one another
    python train.py experiment=demo loss=sft                                    minutes, on any computer, offline
    python train.py loss=dpo model=llama7b mode=data                            show what the trainer would see

The same command again continues an unfinished run. --cfg job prints the composed configuration, --info defaults where
it comes from. Sample, evaluate: python eval.py --help. Compare: python compare.py --help.
"""


def help_text() -> str:
    """Examples, choices with what they are, and the annotated keys."""
    groups = [_choices(folder) for folder in sorted(CONFIG.iterdir()) if folder.is_dir()]
    keys = (CONFIG / "config.yaml").read_text(encoding="utf-8").split("\n\n", 1)[1].partition("\nhydra:")[0].rstrip()
    model = (CONFIG / "model" / "_base.yaml").read_text(encoding="utf-8").partition("\n")[2].rstrip()
    peft = (CONFIG / "peft" / "none.yaml").read_text(encoding="utf-8").partition("\n")[2].rstrip()
    nested = [f"{name}:\n{indent(own, '  ')}" for name, own in (("model", model), ("peft", peft))]
    return "\n".join(
        [
            *(_BEGIN, "CHOICES (group=name; several as datasets=[a,b])", *groups, ""),
            *("KEYS (key=value; nested ones as model.batch_size=64)", "", keys, *nested),
        ]
    )


def _choices(folder: Path) -> str:
    lines = [f"  {folder.name}"]
    for file in sorted(folder.glob("[!_]*.yaml")):
        comments = [x[2:] for x in file.read_text(encoding="utf-8").splitlines() if x.startswith("# ")]
        about = next((x for x in comments if not x.startswith("@")), "")
        lines.append(f"    {file.stem:22} {about}")
    return "\n".join(lines)
