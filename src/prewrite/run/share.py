"""A run for others: its rewriter, its prompt and a model card, in a folder or on the hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from prewrite.errors import ConfigError, MissingDependencyError, RunFolderError, StorageError
from prewrite.files import whole_folder, write_atomic
from prewrite.report.card import model_card
from prewrite.run_folder import RunFolder
from prewrite.scoring.prompt import load_prompt


def save_run(path: str | Path, folder: str | Path) -> Path:
    """Write rewriter, `prompt.json` and `README.md` of a run into a new folder, whole or not at all.

    `Rewriter.from_pretrained` and `load_prompt` read it. Raises `ConfigError` for a folder that is there already,
    `RunFolderError` for a run without result, or without rewriter and prompt.
    """
    target = Path(folder)
    if target.exists():
        raise ConfigError(f"{str(target)!r} is there already; give a folder that is not")
    run = RunFolder.open(path)
    if not run.rewriter.is_dir() and not run.prompt.is_file():
        raise RunFolderError(f"{str(run.path)!r} holds neither a rewriter nor a prompt.json; was the run stopped?")
    card = model_card(path)
    with whole_folder(target, replace=False) as written:
        if run.rewriter.is_dir():
            shutil.copytree(run.rewriter, written, dirs_exist_ok=True)
        if run.prompt.is_file():
            load_prompt(run.prompt).save(written / "prompt.json")
        write_atomic(written / "README.md", card)
    return target


def push_run(path: str | Path, repo: str, *, public: bool) -> str:
    """Upload what `save_run` writes to a model repository of the hub, made where it is missing; its address.

    Raises `StorageError` where the hub cannot be reached or refuses, with what to do then.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise MissingDependencyError("the hub needs `pip install 'prewrite[train]'`") from None
    from prewrite.lm.hub import hub_errors, hub_reason, why_out_of_reach

    with tempfile.TemporaryDirectory() as temporary:
        folder = save_run(path, Path(temporary) / "run")  # first, so that a broken run is told before the hub is asked
        if trouble := why_out_of_reach():
            raise StorageError(
                f"the hub cannot be reached ({trouble}); `prewrite save {path} FOLDER` writes the same files, and "
                f"`hf upload {repo} FOLDER` sends them later"
            )
        try:
            api = HfApi()
            api.create_repo(repo, private=not public, exist_ok=True)
            told = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a run of prewrite")
        except hub_errors() as error:
            raise StorageError(
                f"the hub did not take {repo!r} ({hub_reason(error)}); check the name (OWNER/NAME) and that you are "
                "logged in with a token that may write (`hf auth login`)"
            ) from None
    return str(told.repo_url)


def say_what_is_shared(path: str | Path) -> list[str]:
    """What a user should know before others see a run; a sentence each."""
    run, told = RunFolder.open(path), []
    if run.prompt.is_file() and (shown := load_prompt(run.prompt).exemplars):
        told.append(f"prompt.json shows {len(shown)} rows of the training data as worked examples")
    if run.prompt.is_file() and (several := len(run.read_json(run.result).get("tasks") or [])):
        told.append(f"the run has {several} instructions, and prompt.json is the prompt of the first")
    settings = run.rewriter / "rewriter.json"
    if settings.is_file():
        base = run.read_json(settings, {"base_model": str})["base_model"]
        if Path(base).is_absolute() or Path(base).is_dir():
            told.append(
                f"the base model {base!r} is a folder of this machine; others load the rewriter with "
                "Rewriter.from_pretrained(..., base_model=...)"
            )
    return told
