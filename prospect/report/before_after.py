"""The same prompts answered by two policies, side by side: python -m prospect.report.before_after BEFORE AFTER."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from prospect.errors import UserError


def before_after(before: Path, after: Path, count: int = 5) -> str:
    """The first ``count`` prompts that both sample files answer, with both answers.

    Raises:
        UserError: a file that is missing or no sample file, or no prompt in both.
    """
    first, second = _answers(before), _answers(after)
    shared = [key for key in second if key in first][:count]
    if not shared:
        raise UserError(f"{before} and {after} have no prompt in common")
    return side_by_side([(*first[key], second[key][1]) for key in shared])


def side_by_side(rows: Sequence[tuple[str, str, str]], notes: Sequence[str] = ()) -> str:
    """Prompts, each with its answer before and after, and a note on it where there are any."""
    blocks = [f"prompt  {_line(x)}\nbefore  {_line(old)}\nafter   {_line(new)}" for x, old, new in rows]
    added = [f"\n        {note}" for note in notes] or [""] * len(blocks)
    return "\n\n".join(map("".join, zip(blocks, added, strict=True)))


def _answers(file: Path) -> dict[str, tuple[str, str]]:
    """(last user turn, first answer) by prompt id."""
    try:
        samples = json.loads(file.read_text(encoding="utf-8"))["samples"]
        return {
            row["prompt_id"]: (_line(row["messages"][-1]["content"]), row["policy"])
            for row in samples
            if row["sample"] == 0
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a sample file of eval.py ({error})") from error


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text.strip())


if __name__ == "__main__":
    try:
        print(before_after(Path(sys.argv[1]), Path(sys.argv[2])))
    except UserError as error:
        sys.exit(f"error: {error}")
