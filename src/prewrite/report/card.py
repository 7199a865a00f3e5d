"""The model card of a run: what a saved or published folder says about itself, with the result as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prewrite.files import to_json
from prewrite.lm.embedded import HUB_ID, is_embedded
from prewrite.report.markdown import cell, fenced, render_markdown
from prewrite.report.page import build_page
from prewrite.report.page_notes import notes
from prewrite.report.read import RunData, read_run
from prewrite.run_folder import RunFolder

CONTROLS = ("same search before RL", "best of samples before RL")
"""Names of the test row of a control: the same choice among what an untrained rewriter wrote."""


def model_card(path: str | Path) -> str:
    """README.md for what a run made. Raises `RunFolderError` for a folder that holds no run, or no result yet."""
    folder = RunFolder.open(path)
    folder.read_json(folder.result)  # a run without a result has nothing to say
    run = read_run(path)
    result, settings = run.result or {}, run.config["config"]
    page = build_page(run)
    facts = []
    for name, value in page["facts"]:
        if name != "data":  # it has a heading of its own
            shown = value.partition("@")[0]  # an address is nobody's business
            facts.append((name, shared_name(shown) if name == "rewriter" else shown))
    page |= {"facts": facts, "notes": _notes(run, result)}
    page["setup"] = {"command": "", "resumed": []}  # a command line names folders of this machine
    measured = render_markdown(page).partition("\n\n")[2]
    trained = (folder.rewriter / "rewriter.json").is_file()
    base = str(settings.get("base_model") or settings.get("rewriter") or "")
    parts = [
        _head(base, trained=trained, adapter=(folder.rewriter / "adapter").is_dir()),
        f"# {cell(page['name'])}",
        _what(settings, base, trained=trained),
        "## Result",
        measured.strip(),
        _rewriter_alone(result) if trained else "",
        _control(result) if trained else "",
        "## Data",
        _data(run),
        *_shown_rows(result),
        "## Use",
        _use(trained=trained),
        "## Licence",
        _licence(base, trained=trained),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def shared_name(base: str) -> str:
    """What others call a base model: its hub id, or the last part of a folder's path."""
    if is_embedded(base):
        return HUB_ID
    return Path(base).name if Path(base).is_absolute() or base.count("/") != 1 or Path(base).is_dir() else base


def _head(base: str, *, trained: bool, adapter: bool) -> str:
    """The part that the hub reads. YAML is a superset of JSON, so that no name can break it."""
    values: dict[str, Any] = {"tags": ["prewrite", "prompt-optimization"]}
    if trained and (is_embedded(base) or (base.count("/") == 1 and not Path(base).is_absolute())):
        values["base_model"] = shared_name(base)
    if trained and adapter:
        values["library_name"] = "peft"
    if trained and is_embedded(base):
        values["license"] = "apache-2.0"
    return f"---\n{to_json(values)}\n---"


def _what(settings: Mapping[str, Any], base: str, *, trained: bool) -> str:
    if not trained:
        return "A prompt that was searched with prewrite, without training: `prompt.json`."
    algorithm = str(settings.get("algorithm", "")).upper()
    return (
        f"A rewriter: {cell(shared_name(base))}, trained by {algorithm} with prewrite to write other wordings of an "
        "instruction, so that a task model answers better. Beside it stands `prompt.json`, the prompt that was chosen."
    )


def _rewriter_alone(result: Mapping[str, Any]) -> str:
    """What the rewriter's own wording brings, where the verdict is on a whole prompt that may not even hold it."""
    found = ((result.get("test") or {}).get("differences") or {}).get("trained greedy")
    if not result.get("search"):
        return ""
    kept = result.get("rewrite") == result.get("instruction")
    none = ", which holds none of the rewriter's wordings" if kept else ""
    told = f"The result above is that of the whole prompt{none}."
    if found:
        told += f" **The rewriter's likeliest wording alone:** {_compared(found, 'the initial prompt')}"
    return told


def _compared(found: Mapping[str, Any], other: str) -> str:
    claim = "" if found["significant"] and found["mean"] > 0 else "no significant gain: "
    return (
        f"{claim}{100 * found['mean']:+.1f} points over {other}, interval {100 * found['low']:+.1f} to "
        f"{100 * found['high']:+.1f}."
    )


def _control(result: Mapping[str, Any]) -> str:
    """Whether training added anything to choosing, in a sentence."""
    gains = (result.get("test") or {}).get("gains_over") or {}
    name = next((name for name in CONTROLS if name in gains), None)
    if name is None:
        return (
            "**Control:** none was run, so this does not show that training added anything to choosing among the "
            "samples of an untrained rewriter."
        )
    return (
        f"**Control** ({name}: the same choice among what an untrained rewriter wrote): {_compared(gains[name], 'it')}"
    )


def _data(run: RunData) -> str:
    """Each data set by its name, without the folder that it lies in, and how many rows of it did what."""
    told = []
    for part in run.splits:
        source = str(part["train"].get("source") or "rows in memory")
        name = source if source.startswith("hf:") else Path(source).name
        counts = ", ".join(f"{part[split]['count']:,} {split}" for split in ("train", "dev", "test"))
        told.append(f"{cell(name)}: {counts} rows.")
    return " ".join([*(told or ["Not known."]), "Train rows teach, dev rows choose, test rows measure once."])


def _notes(run: RunData, result: Mapping[str, Any]) -> list[str]:
    """The notes of the report, without the rows that they quote."""
    found, left_out = notes(run.config, {**result, "left_out": []}), len(result.get("left_out") or [])
    if left_out:
        found.insert(0, f"{left_out:,} rows got no answer of the task model and are left out for every prompt alike.")
    return found


def _shown_rows(result: Mapping[str, Any]) -> list[str]:
    shown = len((result.get("prompt") or {}).get("exemplars") or [])
    return [f"`prompt.json` shows {shown} of the train rows as worked examples."] if shown else []


def _use(*, trained: bool) -> str:
    lines = ["from prewrite import load_prompt", "", 'print(load_prompt("FOLDER").render("an input"))']
    if trained:
        lines = [
            "from prewrite import Rewriter",
            "",
            'rewriter = Rewriter.from_pretrained("FOLDER or REPOSITORY")',
            'print(rewriter.rewrite("Sort the mail.", num_candidates=8))',
        ]
    return fenced("\n".join(lines), "python")


def _licence(base: str, *, trained: bool) -> str:
    if not trained:
        return "A prompt holds no weights. Whether its examples may be shared is for the owner of the data to say."
    if is_embedded(base):
        return (
            f"The base model {HUB_ID} is under Apache-2.0. This card names the same licence for what was trained on "
            "top of it; change it before you share under another."
        )
    return (
        f"The licence of the base model {cell(shared_name(base))} is not known to this run; see its own page "
        "before you share what was trained on top of it."
    )
