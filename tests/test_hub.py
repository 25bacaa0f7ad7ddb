"""Publishing: what arrives at a hub, a stand-in that speaks its protocol on this machine."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prospect.checkpoint.lineage import Base
from prospect.errors import UserError
from prospect.hub import push
from tests import runs, tiny
from tests.standins import Place

TOKEN = "hf_stand_in"


class Hub:
    """Makes repositories and takes commits of files that are sent inline."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.answer(200, {"sha": "0" * 40, "id": "org/run", "siblings": []})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.answer(401, {"error": "Invalid credentials"})
                self.answer(200, hub.post(self.path, body))

            def answer(self, code: int, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/api/repos/create":
            self.made = json.loads(body)
            return {"url": f"{self.url}/org/run", "name": "org/run", "id": "1"}
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        if "/commit/" in path:
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"success": True, "commitUrl": f"{self.url}/org/run/commit/{'0' * 40}", "commitOid": "0" * 40}
        return {"errors": [], "warnings": []}  # validate-yaml


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.server.shutdown()


def pushed(hub: Hub, run: Path, *words: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0"}
    place = Place(run.parent, env, warm=True)
    return place.run(shlex.join(["python", "eval.py", f"--config-path={run}", "mode=push", *words]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    assert runs.run(tiny.config(folder, n_examples=16)) == 0
    return folder / "sft"


@pytest.mark.long
def test_a_finished_run_goes_to_the_hub(hub: Hub, run: Path) -> None:
    done = pushed(hub, run, "repo=org/run")
    assert done.returncode == 0, done.stderr
    assert f"pushed: {hub.url}/org/run" in done.stdout
    assert (hub.made["name"], hub.made["organization"], hub.made["visibility"]) == ("run", "org", "private")
    sent = {p.name: p.read_bytes() for p in (run / "LATEST").iterdir() if p.name != "MANIFEST.json"}
    assert hub.files == {**sent, "config.yaml": (run / "config.yaml").read_bytes()}
    assert b"tags:\n- prospect" in hub.files["README.md"]
    refused = pushed(hub, run, "repo=org/run", token="hf_wrong")
    assert refused.returncode == 3
    assert refused.stderr.startswith(f"error: repo: org/run could not be pushed to {hub.url} (")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("repo", [None, "name", "org/name/more"])
def test_a_repository_must_be_named(repo: str | None, run: Path) -> None:
    with pytest.raises(UserError, match=r"repo: name the repository as \+\+repo=<org>/<name>"):
        push(run / "LATEST", run / "config.yaml", repo, True)


def test_an_adapter_whose_base_others_have_not_is_refused(tmp_path: Path) -> None:
    Base("/models/x", fingerprint="abc").write(tmp_path)
    with pytest.raises(UserError, match=r"is an adapter on a model of this machine .* merge it first"):
        push(tmp_path, tmp_path, "org/run", True)
