"""OpenAI's Batch API: half the price, done within a day. Uploaded as a file, polled, collected into the ledger.

A batch is written into the ledger before it is created and carries the ledger's own mark in its metadata. A process
that is killed at any point is followed by one that finds it: by its number, or by its mark among the endpoint's batches
where the number never arrived. Answers are recorded like any other, once. A batch that was created stays under way when
its maker is stopped; the same command collects it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import httpx2

from prospect.errors import MachineError, ProspectError, UserError
from prospect.judge.batchbook import Batch, BatchBook
from prospect.judge.calls import Caller, Interrupted, Request, refusal
from prospect.judge.client import Next, Response
from prospect.judge.ledger import Fate, Reply
from prospect.judge.reply import is_completion
from prospect.progress import Progress

_MOST_REQUESTS, _MOST_BYTES = 50_000, 150_000_000  # of one batch
_MARK = "prospect_batch"
_OVER = {"completed", "failed", "expired", "cancelled", "gone"}
_GONE = "gone"
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_PAGES = 20  # of the endpoint's list of batches


async def ask_batch(caller: Caller, requests: Mapping[str, Request], bar: Progress) -> dict[str, str]:
    """Have every request answered by batches, those of an earlier run first; what failed, with the reason.

    Raises:
        ProspectError: the endpoint refuses batches, or the run was stopped; batches that were created go on.
    """
    book = BatchBook(caller.ledger, caller.endpoint.base_url)
    failures: dict[str, str] = {}
    missing = dict(requests)
    with caller.signals():
        while missing:
            caller.check()
            for batch in await caller.scribe.do(book.open_ones):
                failures |= await _collect(caller, book, batch, bar)
            answered = await caller.scribe.do(partial(caller.ledger.answers, list(missing)))
            missing = {key: body for key, body in missing.items() if key not in answered and key not in failures}
            part = _part({key: body for key, body in missing.items() if caller.admits(key)})
            if missing and not part:
                caller.check()
            elif part:
                batch = await caller.scribe.do(partial(book.open, uuid.uuid4().hex, part))
                body = {key: part[key] for key in batch.keys}
                failures |= await _collect(caller, book, batch, bar, body)
                if not body:
                    await caller.pause()  # another process is at all of them
    return {key: why for key, why in failures.items() if key in requests}


async def _collect(
    caller: Caller, book: BatchBook, batch: Batch, bar: Progress, requests: Mapping[str, Request] | None = None
) -> dict[str, str]:
    """Create a batch that is not yet, wait for it, and record what it brought; what failed."""
    number = batch.number
    if requests:
        try:
            number = await _create(caller, batch, requests)
        except UserError:  # refused, so there is none
            await caller.scribe.do(partial(book.close, batch, {}))
            raise
    elif number is None:
        if requests is None and caller.ledger.lives(batch.owner):
            await caller.pause()  # its maker is about to
            return {}
        number = await _found(caller, batch)
        if number is None:  # its maker was stopped before the endpoint had it: nothing was billed
            await caller.scribe.do(partial(book.close, batch, {}))
            return {}
    await caller.scribe.do(partial(book.tell_number, batch, number))
    state = await _over(caller, number, bar)
    replies = await _replies(caller, batch, state)
    await caller.scribe.do(partial(book.close, batch, replies))
    for key, reply in replies.items():
        caller.meter.landed(key, reply.body, billed=False)
    caller.answered += sum(reply.fate is Fate.answered for reply in replies.values())
    if state["status"] == "failed":
        raise MachineError(f"{caller.endpoint.base_url}: the batch {number} failed: {_errors(state)}")
    return {key: reply.note for key, reply in replies.items() if reply.fate in (Fate.refused, Fate.lost)}


async def _replies(caller: Caller, batch: Batch, state: Mapping[str, Any]) -> dict[str, Reply]:
    """What the batch's files say of each key; those without a line were not done."""
    found: dict[str, Reply] = {}
    for name in ("output_file_id", "error_file_id"):
        if state.get(name):
            text = await _sent(caller, "GET", f"/files/{state[name]}/content")
            found |= dict(_lines(text.content))
    fate = Fate.lost if state["status"] == _GONE else Fate.refused
    missing = Reply(fate, note=f"the batch is {state['status']}")
    return {key: found.get(key, missing) for key in batch.keys}


async def _create(caller: Caller, batch: Batch, requests: Mapping[str, Request]) -> str:
    """Upload the requests and start; the batch's number."""
    lines = [
        json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body})
        for key, body in requests.items()
    ]
    file = {"file": (f"{batch.mark}.jsonl", "\n".join(lines).encode(), "application/jsonl")}
    uploaded = await _sent(caller, "POST", "/files", data={"purpose": "batch"}, files=file)
    content = {
        "input_file_id": uploaded.json()["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {_MARK: batch.mark},
    }
    return str((await _sent(caller, "POST", "/batches", json=content)).json()["id"])


async def _found(caller: Caller, batch: Batch) -> str | None:
    """The number of a batch that carries our mark, where the endpoint has it."""
    after = ""
    for _ in range(_PAGES):
        page = (await _sent(caller, "GET", f"/batches?limit=100{after}")).json()
        for entry in page.get("data", []):
            if (entry.get("metadata") or {}).get(_MARK) == batch.mark:
                return str(entry["id"])
        if not page.get("has_more") or not page["data"]:
            return None
        after = f"&after={page['data'][-1]['id']}"
    return None


async def _over(caller: Caller, number: str, bar: Progress) -> Mapping[str, Any]:
    """The batch's last state; meanwhile its progress is shown."""
    wait, shown = _FIRST_WAIT, 0
    while True:
        state = await _state(caller, number)
        done = int((state.get("request_counts") or {}).get("completed") or 0)
        bar.advance(max(done - shown, 0), f"batch {number}: {state['status']}")
        shown = max(done, shown)
        if state["status"] in _OVER:
            return state
        await caller.pause(wait)
        caller.check()
        wait = min(2 * wait, _LONGEST_WAIT)


async def _state(caller: Caller, number: str) -> Mapping[str, Any]:
    """A batch as the endpoint describes it; an endpoint that has forgotten it may have billed it."""
    response = await _tried(caller, "GET", f"/batches/{number}")
    if isinstance(response, Response):
        if response.reply.status == 404:
            return {"status": _GONE}
        raise _refusal(caller, f"/batches/{number}", response)
    found: Mapping[str, Any] = response.json()
    return found


async def _sent(caller: Caller, method: str, path: str, **content: Any) -> httpx2.Response:
    """A reply about batches."""
    response = await _tried(caller, method, path, **content)
    if isinstance(response, Response):
        raise _refusal(caller, path, response)
    return response


async def _tried(caller: Caller, method: str, path: str, **content: Any) -> httpx2.Response | Response:
    """A request about batches, retried; what creates a batch is not: it might be created twice."""
    once = method == "POST" and path == "/batches"
    response = await caller.endpoint.send(method, path, **content)
    for attempt in range(0 if once else caller.patience.tries - 1):
        if not isinstance(response, Response) or response.next is not Next.retry:
            break
        await caller.pause(caller.patience.wait(attempt) if response.wait is None else response.wait)
        caller.check()
        response = await caller.endpoint.send(method, path, **content)
    return response


def _refusal(caller: Caller, path: str, response: Response) -> ProspectError:
    note = response.reply.note
    if response.next is Next.retry:
        return Interrupted(f"{caller.endpoint.base_url}{path}: {note}; the same command continues")
    if response.reply.status in (404, 405):
        return UserError(f"--batch: {caller.endpoint.base_url} has no Batch API ({note})")
    return refusal(caller.endpoint, None, response.reply)


def _lines(content: bytes) -> Iterator[tuple[str, Reply]]:
    """What an output or error file says of each request."""
    for line in content.splitlines():
        if not line.strip():
            continue
        entry = json.loads(line)
        response = entry.get("response") or {}
        body = json.dumps(response.get("body")).encode()
        status = response.get("status_code")
        if status == 200:
            fate = Fate.answered if is_completion(body) else Fate.garbled
            yield entry["custom_id"], Reply(fate, 200, body, response.get("request_id"), "")
        else:
            error = entry.get("error") or (response.get("body") or {}).get("error") or {}
            yield entry["custom_id"], Reply(Fate.refused, status, note=f"status {status}: {error.get('message')}"[:300])


def _part(requests: Mapping[str, Request]) -> dict[str, Request]:
    """As many requests as one batch takes."""
    part: dict[str, Request] = {}
    size = 0
    for key, body in requests.items():
        size += len(json.dumps(body)) + 200
        if part and (len(part) >= _MOST_REQUESTS or size > _MOST_BYTES):
            break
        part[key] = body
    return part


def _errors(state: Mapping[str, Any]) -> str:
    found: Sequence[Mapping[str, Any]] = (state.get("errors") or {}).get("data") or [{}]
    return str(found[0].get("message") or "no reason given")
