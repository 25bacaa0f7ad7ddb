"""Reference log-probabilities on disk, per token, keyed by content: model weights, precision, token ids.

One pass over the data serves every loss, beta, order and epoch that has the same reference model; a changed row
computes only itself. SQLite in WAL mode: written by several processes, never half-written.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prospect.model.adapter import reference_state

Values = NDArray[np.float32]


class ReferenceStore:
    """Token log-probabilities of one reference model. Keys are those of ``Batch.keys``."""

    def __init__(self, cache: Path, digest: str) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self.file = cache / f"{digest}.sqlite"
        self.db = sqlite3.connect(self.file, timeout=60)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS logps (key BLOB PRIMARY KEY, tokens BLOB NOT NULL) WITHOUT ROWID")

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions of the keys that are not stored."""
        return [i for i, key in enumerate(keys) if not self.db.execute(_HAS, (key,)).fetchone()]

    def get(self, keys: Iterable[bytes]) -> list[Values]:
        """Stored values, in order.

        Raises:
            KeyError: a key that is not stored.
        """
        found = []
        for key in keys:
            row = self.db.execute("SELECT tokens FROM logps WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise KeyError(key.hex())
            found.append(np.frombuffer(row[0], dtype="<f4"))
        return found

    def put(self, items: Iterable[tuple[bytes, Values]]) -> None:
        """Store values in one transaction; a key that another process stored meanwhile keeps its value."""
        rows = [(key, values.astype("<f4").tobytes()) for key, values in items]
        with self.db:
            self.db.executemany("INSERT OR IGNORE INTO logps VALUES (?, ?)", rows)


_HAS = "SELECT 1 FROM logps WHERE key = ?"


def weights_digest(model: nn.Module, precision: str) -> str:
    """Hash of all weights and buffers of a model, without its adapter, and of the precision it computes in."""
    digest = hashlib.sha256(precision.encode())
    for name, tensor in sorted(reference_state(model.state_dict()).items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
