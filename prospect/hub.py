"""A finished run on the hub: its model folder with the card, and the configuration that made it."""

from __future__ import annotations

import re
from pathlib import Path

from prospect.checkpoint.commit import MANIFEST
from prospect.checkpoint.lineage import FILE, base_of
from prospect.errors import MachineError, UserError

_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def push(folder: Path, settings: Path, repo: str | None, private: bool) -> str:
    """Upload ``folder`` as the model repository ``repo``, which is made if there is none; its address.

    HF_ENDPOINT says which hub, HF_TOKEN who asks.

    Raises:
        UserError: no repository is named, or the folder is an adapter on a model that others do not have.
        MachineError: the hub cannot be reached, or it refuses.
    """
    if repo is None or not _REPO.fullmatch(repo):
        raise UserError(f"repo: name the repository as ++repo=<org>/<name>{f', not {repo}' if repo else ''}")
    if (folder / FILE).is_file() and base_of(folder).fingerprint is not None:
        raise UserError(
            f"{folder} is an adapter on a model of this machine ({base_of(folder).name}): merge it first "
            "(++mode=merge ++out=<folder>) and push that (++saved_policy=<folder>)"
        )
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_file(path_or_fileobj=settings, path_in_repo="config.yaml", repo_id=repo)
        api.upload_folder(
            folder_path=folder, repo_id=repo, ignore_patterns=[MANIFEST], commit_message=f"{folder.parent.name}"
        )
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        first = " ".join(str(error).split())[:300]
        raise MachineError(
            f"repo: {repo} could not be pushed to {api.endpoint} ({first}; HF_TOKEN is needed)"
        ) from error
    return str(address)
