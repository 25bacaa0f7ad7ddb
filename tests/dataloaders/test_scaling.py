"""Memory does not follow the data: opening a store, planning the order and reading steps, at two sizes."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dataloaders import loader, store
from dataloaders.loader import Data
from dataloaders.records import RecordKind
from dataloaders.store import Report, TokenStore
from tests import tiny
from tests.model.formats import chat
from tests.planted import plant

FORK = multiprocessing.get_context("fork")
SMALL, LARGE = 20_000, 200_000
ALLOWED = 50 * 2**20 / 990_000  # bytes a record: 50 MiB from 10k records to 1M


def write_store(folder: Path, count: int) -> None:
    """A store of ``count`` short pairs, written as a build writes it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with pa.OSFile(str(folder / "tokens.arrow"), "wb") as sink, pa.ipc.new_file(sink, store._SCHEMA) as writer:
        for start in range(0, count, store._ROWS):
            n = min(store._ROWS, count - start)
            tokens = pa.array(rng.integers(0, 300, 6 * n), pa.int32())
            threes = pa.ListArray.from_arrays(np.arange(0, 6 * n + 1, 3, dtype=np.int32), tokens)
            masks = pa.ListArray.from_arrays(threes.offsets, pa.array(np.ones(6 * n, bool)))
            twos = np.arange(0, 2 * n + 1, 2, dtype=np.int32)
            none = pa.array(np.zeros(n), pa.int32())
            ids = [f"row-{start + i}" for i in range(n)]
            keys = np.arange(start, start + n)
            columns = [
                pa.array(ids),
                pa.array(["pairs"] * n),
                pa.array(keys, pa.int64()),
                threes.slice(0, n),
                pa.ListArray.from_arrays(twos, threes),
                pa.ListArray.from_arrays(twos, masks),
                pa.ListArray.from_arrays(twos, pa.array([0, 1] * n, pa.int8())),
                *[none] * 3,
                pa.ListArray.from_arrays(np.zeros(n + 1, np.int32), pa.array([], pa.float64())),
                none,
                pa.ListArray.from_arrays(np.zeros(n + 1, np.int32), pa.array([], pa.string())),
            ]
            writer.write_batch(pa.record_batch(columns, schema=store._SCHEMA))
            values = (keys, rng.integers(0, 2**64, n, dtype=np.uint64), np.ones(n, bool), np.zeros(n, bool))
            for (name, kind), column in zip(store._COLUMNS.items(), values, strict=True):
                with (folder / f"{name}.bin").open("ab") as file:
                    file.write(column.astype(kind).data)
    (folder / "report.json").write_text(json.dumps(asdict(Report(records=count, examples=count))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaling")
    for count in (SMALL, LARGE):
        write_store(folder / str(count), count)
    return folder


def opened(folder: Path, count: int) -> Data:
    """What a run does with its data before its first step."""
    config = tiny.config(folder, "dpo", count=1, batch_size=32, n_epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "open_store", lambda *args: TokenStore(folder / str(count)))
        data = loader.load(config, RecordKind.pairs, False, chat("chatml"))
    data.step(0), data.step(data.n_steps // 2), data.kinds(), data.eval_chunks(), data.shown()
    return data


def anonymous_memory() -> int:
    """What this process holds for itself, without what malloc keeps to give out again."""
    ctypes.CDLL(None).malloc_trim(0)
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def measure(folder: Path, count: int, tell) -> None:
    opened(folder, SMALL)  # what is allocated once
    before = anonymous_memory()
    data = opened(folder, count)
    tell(anonymous_memory() - before)
    assert len(data.train) == count


def growth(folder: Path) -> float:
    """Bytes of host memory that a further record costs."""
    found = []
    for count in (SMALL, LARGE):
        receiver, sender = FORK.Pipe(duplex=False)
        child = FORK.Process(target=measure, args=(folder, count, sender.send))
        child.start()
        assert receiver.poll(60)
        found.append(receiver.recv())
        child.join(60)
        assert child.exitcode == 0
    return (found[1] - found[0]) / (LARGE - SMALL)


def test_a_million_examples_need_no_memory_worth_speaking_of(folder: Path) -> None:
    assert growth(folder) <= ALLOWED


def test_planted_list_of_all_records_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = "pa.ipc.open_file(str(folder / 'tokens.arrow')).read_all()['id'].to_pylist()"
    plant(monkeypatch, TokenStore.__init__, "self.key = folder.name", f"self.key = folder.name; self.listed = {ids}")
    assert growth(folder) > ALLOWED


def test_every_record_is_shown_once_however_long_the_run(folder: Path) -> None:
    data = opened(folder, SMALL)
    assert data.n_examples == 2 * SMALL
    assert np.array_equal(data.shown(), np.arange(SMALL))
    assert data.train[SMALL - 1].id == f"row-{SMALL - 1}"
