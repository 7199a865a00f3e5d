"""Checkpoints: everything that the next update depends on, so that stop and resume gives a straight run's numbers.

Random numbers are drawn from generators keyed by seed and step (`draws.step_rng`), so no generator state is
stored. Files are safetensors and JSON; the optimiser state is a torch file that is read back with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from prewrite.errors import RunFolderError
from prewrite.files import whole_folder, write_checksums
from prewrite.run_folder import RunFolder, check_there
from prewrite.train.cost import RunCost
from prewrite.train.dev_stopping import DevStopping
from prewrite.train.health import Health
from prewrite.train.kl import KLController

if TYPE_CHECKING:
    from trl.trainer.utils import OnlineTrainerState


class SharedState(Protocol):
    """What is in the checkpoint of every algorithm."""

    dev: DevStopping
    kl_controller: KLController
    cost: RunCost
    health: Health


class PPOState(SharedState, Protocol):
    """What is in a checkpoint of PPO; TRL saves its own trainers itself."""

    run_folder: RunFolder
    save_total_limit: int
    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler
    state: OnlineTrainerState


def trainable_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every trainable tensor, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def load_trainable_state(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Copy tensors back. Raises `RunFolderError` if they are not this model's."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if parameters.keys() != state.keys():
        odd = sorted(parameters.keys() ^ state.keys())[0]
        raise RunFolderError(f"the checkpoint's weights do not fit this model ({odd}); resume with the same settings")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def save(trainer: PPOState) -> None:
    """Write a checkpoint of `trainer`; the folder appears whole or not at all, the oldest are removed after it."""
    run_folder, step = trainer.run_folder, trainer.state.global_step
    check_there(run_folder.path)
    with whole_folder(run_folder.checkpoint(step)) as folder:
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_file(trainable_state(model), folder / "policy.safetensors")
        torch.save(trainer.optimizer.state_dict(), folder / "optimizer.pt")
        torch.save(trainer.lr_scheduler.state_dict(), folder / "scheduler.pt")
        save_record(trainer, folder, {"step": step, "episode": trainer.state.episode})
        write_checksums(folder)
    remove_older(run_folder, step, keep=trainer.save_total_limit)


def save_record(trainer: SharedState, folder: Path, record: dict[str, Any]) -> None:
    """Write `trainer.json`, which holds `record` and every algorithm's state, and the best policy on dev so far.

    What is remembered from update to update is in it: in bf16 a model says something slightly else about a text in
    other company, so what is asked again after a resume would differ.
    """
    dev = trainer.dev
    if dev.best_state is not None:
        save_file(dev.best_state, folder / "best.safetensors")
    fidelity = dev.reward.fidelity
    shared = {
        "kl_coefficient": trainer.kl_controller.coefficient,
        "dev": dev.state(),
        "fidelity": None if fidelity is None else fidelity.state(),
        "health": trainer.health.state(),
        "cost": trainer.cost.state(),
        "left_out": dev.reward.evaluator.left_out.state(),
    }
    RunFolder.write_json(folder / "trainer.json", record | shared)


def load_record(trainer: SharedState, folder: Path) -> dict[str, Any]:
    """Put back what `save_record` wrote; returns `trainer.json`."""
    record = RunFolder.read_json(folder / "trainer.json")
    dev = trainer.dev
    with reading(folder):
        trainer.kl_controller.coefficient = record["kl_coefficient"]
        trainer.health.restore(record["health"])
        trainer.cost.add(record["cost"])
        dev.reward.evaluator.left_out.restore(record["left_out"])
        dev.restore(record["dev"])
        if dev.reward.fidelity is not None and record["fidelity"] is not None:
            dev.reward.fidelity.restore(record["fidelity"])
        if record["dev"]["best"] is not None:
            dev.best_state = load_file(folder / "best.safetensors")
    return record


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """What goes wrong in here with a checkpoint's files is a `RunFolderError` that names the folder."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OSError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise RunFolderError(
            f"checkpoint {folder} cannot be read ({error!r}): it was changed, or is of another version of prewrite; "
            "start again with --overwrite, answers are in the cache"
        ) from None


def remove_older(run_folder: RunFolder, step: int, *, keep: int) -> None:
    """Delete all but the last `keep` checkpoints up to the one of update `step`, which is whole."""
    folders = [folder for earlier, folder in run_folder.checkpoints_by_step().items() if earlier <= step]
    for folder in folders[:-keep]:
        shutil.rmtree(folder)


def load(trainer: PPOState, path: Path) -> None:
    """Put `trainer` into the state of the checkpoint at `path`."""
    if not (path / "policy.safetensors").is_file():
        raise RunFolderError(f"{path} is no checkpoint of PPO; resume with the --algorithm that the run began with")
    record = load_record(trainer, path)
    load_optimizer(path, trainer.optimizer, trainer.lr_scheduler)
    with reading(path):
        policy = load_file(path / "policy.safetensors")
        trainer.state.global_step, trainer.state.episode = record["step"], record["episode"]
    load_trainable_state(trainer.accelerator.unwrap_model(trainer.model), policy)


def load_optimizer(
    folder: Path, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> None:
    """Put the states of optimiser and learning-rate schedule back; both move to their parameters' device."""
    with reading(folder):
        optimizer.load_state_dict(_load_torch(folder / "optimizer.pt"))
        scheduler.load_state_dict(_load_torch(folder / "scheduler.pt"))


def _load_torch(file: Path) -> dict[str, Any]:
    """A state dict. Raises `ValueError` for a file that is cut off, for which torch raises a plain RuntimeError."""
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except RuntimeError as error:
        raise ValueError(f"{file.name}: {error}") from None
    return state
