"""The log: plain lines on the console from the main process, and with time and level in a file of each process."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

log = logging.getLogger("prospect")


def log_to(folder: Path | None, rank: int) -> None:
    """Send the log to the console (main process) and to this process's own file in ``folder``, and nowhere else."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / f"rank-{rank}.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
    if rank == 0:
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(console)
    log.setLevel(logging.INFO)
    log.propagate = False
