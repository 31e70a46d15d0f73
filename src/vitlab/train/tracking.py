"""Watchers that hand a run's numbers to other programs: TensorBoard, Weights & Biases."""

import importlib
import json
import logging
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitlab import files
from vitlab.errors import SettingsError
from vitlab.train.watcher import Quiet

log = logging.getLogger("vitlab")

WANDB_ID = "wandb.json"


def check_installed(*, tensorboard: bool, wandb: bool) -> None:
    """Check that the programs that are asked for can be reported to, before anything is begun.

    Raises:
        SettingsError: one is not installed.
    """
    for name, wanted in (("tensorboard", tensorboard), ("wandb", wandb)):
        if wanted and find_spec(name) is None:
            raise SettingsError(f"--{name}", "is not installed", f"pip install 'vitlab[{name}]'")


class TensorBoard(Quiet):
    """Writes event files below the run `folder`; events after `step` of an interrupted run are superseded."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Write an event a value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def noted(self, step: int, name: str, value: float) -> None:
        """Write an event."""
        self.logged(step, {name: value})

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Write an event a value."""
        self.logged(step, values)

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


class WeightsAndBiases(Quiet):
    """Sends metrics to the project of that name, as one run however often it is resumed: its id is in the run `folder`.

    Where they go, or that they stay on this disk, is said to wandb itself (`WANDB_MODE=offline`, `wandb login`). What fails
    there during the run is said once and does not end it.

    Raises:
        SettingsError: wandb refuses to start.
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        identity = folder / WANDB_ID
        try:
            run_id = str(json.loads(identity.read_text())["id"])
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged: begin a new one
            run_id = secrets.token_hex(4)
            files.write_atomic(identity, json.dumps({"project": project, "id": run_id}).encode() + b"\n")
        try:
            self._run: Any = wandb.init(
                project=project,
                name=folder.name,
                id=run_id,
                resume="allow",
                config=dict(config),
                dir=str(folder),
                settings=wandb.Settings(quiet=True),
            )
        except wandb.Error as error:
            what, remedy = str(error).rstrip("."), "set WANDB_MODE=offline to keep its files here; go on with --resume"
            raise SettingsError("--wandb", what, remedy) from None

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values of `step`."""
        self._try("log", dict(values), step=step)

    def noted(self, step: int, name: str, value: float) -> None:
        """Send the value."""
        self.logged(step, {name: value})

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values of `step`."""
        self.logged(step, values)

    def close(self) -> None:
        """Send what is left, and end."""
        self._try("finish")
        self._run = None

    def _try(self, what: str, *values: object, **options: object) -> None:
        if self._run is None:
            return
        try:
            getattr(self._run, what)(*values, **options)
        except Exception as error:  # whatever it is, the run matters more
            log.warning("wandb gets no more of this run: %s", error)
            self._run = None
