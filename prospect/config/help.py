"""``python train.py --help``: what can be chosen and the keys that matter, read from config/ itself."""

from __future__ import annotations

from prospect.config.choices import CONFIG_DIR, described

_HEAD = """Train a language model from human feedback.

  python train.py loss=<loss> model=<model> [datasets=[a,b]] [key=value …]

  python train.py loss=sft model=tiny datasets=[demo]            a first run on a CPU, no network
  python train.py loss=kto model=llama7b exp_name=my_run          everything else has defaults
  python train.py loss=kto model=llama7b model.load_from=llama7b_sft   start from an earlier run
  python train.py -m loss=dpo,kto model=llama7b loss.beta=0.05,0.1    a sweep: one run for each combination
  python train.py mode=data datasets=[hh] loss=dpo model=tiny out=pairs.jsonl   see the data, train nothing
  python train.py … --cfg job                                     print the configuration and stop

The same command again continues an unfinished run. Results: <cache_dir>/<exp_name>/ (default: runs/…)."""


def train_help() -> str:
    """The help text."""
    parts = [_HEAD]
    for group in ("loss", "model", "datasets", "logger", "experiment", "sweep"):
        rows = described(group)
        width = max(len(name) for name, _ in rows)
        parts.append(f"{group}=\n" + "\n".join(f"  {name:<{width}}  {text}" for name, text in rows))
    parts.append("Keys (default  # meaning)\n" + _keys("config.yaml", ""))
    parts.append("Keys of the model\n" + _keys("model/_base.yaml", "model."))
    return "\n\n".join(parts)


def _keys(file: str, prefix: str) -> str:
    """The commented keys of a YAML file, as they stand there."""
    lines = (CONFIG_DIR / file).read_text(encoding="utf-8").splitlines()
    if "defaults:" in lines:
        lines = lines[lines.index("defaults:") + 1 :]
        lines = [line for line in lines if not line.startswith("  - ")]
    shown = [line for line in lines if line.strip() and not line.startswith("# What every")]
    return "\n".join(f"  {line if line.startswith(('#', ' ')) else prefix + line}" for line in shown)
