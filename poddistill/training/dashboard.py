"""Runs on the W&B dashboard, one a run folder."""

import secrets
from pathlib import Path

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only


class Dashboard(WandbLogger):
    """Lightning's W&B logger, tied to a run folder: a resumed or tested run goes on as the W&B run that it was.

    Files go to ``<run>/wandb``; offline ones are sent later by ``wandb sync``.

    Args:
        run: The run folder.
        project: W&B project.
        group: W&B group, such as the profile.
        name: Name of the run, such as the stage.
        offline: Write files only, send nothing.
    """

    def __init__(
        self, run: str, project: str = "poddistill", group: str = "", name: str = "", offline: bool = True
    ) -> None:
        folder = Path(run) / "wandb"
        super().__init__(name=name, save_dir=run, id=_run_id(folder), project=project, group=group, offline=offline)
        # Lightning hands on an option that W&B has dropped, and W&B warns of it at every start.
        self._wandb_init.pop("anonymous", None)


def _run_id(folder: Path) -> str | None:
    """Returns the folder's run id, made up the first time; None in all processes but the first, which log nothing."""
    if getattr(rank_zero_only, "rank", 0):
        return None
    file = folder / "run-id"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets.token_hex(4))
    return file.read_text().strip()
