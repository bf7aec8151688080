"""The Lightning CLI over all stages, imported only when a stage is run."""

import logging
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import wandb
from jsonargparse import ArgumentError, Namespace, set_parsing_settings
from jsonargparse._namespace import NSKeyError
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.plugins.environments import (
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.model_helpers import is_overridden

from data_modules.errors import InputError, UsageError
from data_modules.unpaired import UnpairedDataModule
from poddistill.option_checks import check_profile, check_record, check_run_folder
from poddistill.training.checkpoints import check_fit, read_checkpoint, refuse_trained_on
from poddistill.training.memory import keep_freed_memory
from poddistill.training.precision import fastest_precision
from poddistill.training.run_folder import BestCheckpoint, RunConfig, held, is_dry

LAUNCHERS = (SLURMEnvironment, TorchElasticEnvironment, LSFEnvironment, MPIEnvironment)


class StageCLI(LightningCLI):
    """Runs ``fit``, ``validate``, ``test`` or ``predict`` of any stage from YAML files.

    Beside Lightning's own options it has the values that stage files refer to as ``${run}``, ``${method}``,
    ``${cohort}``, ``${fold}`` and ``${profile.*}``, and ``--test_after_fit``.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the values that the stage files interpolate."""
        parser.add_argument(
            "--run", type=str, default="runs/unnamed", help="Folder for checkpoints, metrics and predictions."
        )
        parser.add_argument("--cohort", type=str, help="Cohort folder, as `poddistill ingest` writes it.")
        parser.add_argument("--method", type=str, help="Name of the stage or baseline in logs and tables.")
        parser.add_argument(
            "--fold", type=int | None, default=0, help="Test fold, counted from 0; null: all, on another cohort."
        )
        parser.add_argument("--profile", type=dict, default={}, help="Sizes and budgets that stage files refer to.")
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="Test the best checkpoint once the fit is finished, the only time the held-out fold is touched.",
        )

    def _parse_ckpt_path(self) -> None:
        # Lightning would let hyper-parameters stored in the checkpoint win over the configuration, so that
        # `fit --ckpt_path X --model.lr 0.5` trained with X's own rate. Here the configuration is what runs.
        return

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Keeps which options the command itself names."""
        self._named = {word.partition("=")[0] for word in args}
        super().parse_arguments(parser, args)

    def before_instantiate_classes(self) -> None:
        """Fits a run's record to where it is only scored.

        What a student learned from beside its MRI is left out: there is only MRI then. One process does it, on what
        the machine has, unless a cluster's launcher or an option asks for more: the record may be of another machine.

        Raises:
            InputError: What is to be scored is not what the run folder holds, and would be written over that.
        """
        if self.subcommand in ("validate", "test", "predict"):
            options = self.config[self.subcommand]
            check_record(options)
            data, trainer = options.data, options.trainer
            if data.class_path == f"{UnpairedDataModule.__module__}.{UnpairedDataModule.__qualname__}":
                data.init_args = Namespace(mri=data.init_args.mri)
            if not any(environment.detect() for environment in LAUNCHERS):
                single = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
                if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
                    single["accelerator"] = "auto"
                for name, value in single.items():
                    if f"--trainer.{name}" not in self._named:
                        trainer[name] = value

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UsageError(f"--seed_everything: {str(error).rstrip('.')}") from error

    def _run_subcommand(self, subcommand: str) -> None:
        writes = subcommand == "fit" and self.trainer.is_global_zero and not is_dry(self.trainer)
        with held(Path(self.config.fit.run)) if writes else nullcontext():
            try:
                super()._run_subcommand(subcommand)
            except ValueError as error:
                if "parameter group" not in str(error):
                    raise
                raise InputError(
                    f"{self.config[subcommand].ckpt_path}: its optimiser had other groups of weights; resume with the "
                    "options it was trained with (layer_decay, freeze_encoder), which stand in its run's config.yaml"
                ) from error

    def before_fit(self) -> None:
        """Leaves what was trained before as it is.

        Raises:
            InputError: The run folder holds a training that this one does not resume; what it resumes is of another
                stage or of other sizes, or has seen those who are held out here; or nobody is there to test on.
        """
        folder, resumed = Path(self.config.fit.run), self.config.fit.ckpt_path
        if resumed:
            check_fit(self.model, read_checkpoint(resumed)["state_dict"], resumed)
            refuse_trained_on(resumed, self.datamodule.manifest)
        if self.config.fit.test_after_fit:
            self._check_test_cases()
        checkpoints = folder / "checkpoints"
        kept = [name for name in ("last.ckpt", "best.ckpt") if (checkpoints / name).exists()]
        if kept and not is_dry(self.trainer) and Path(resumed or "nowhere").resolve().parent != checkpoints.resolve():
            raise InputError(
                f"{folder}: holds a{'nother' if resumed else ''} training; resume it with --ckpt_path "
                f"{checkpoints}/{kept[0]}, remove the folder, or give another --run"
            )

    def _check_test_cases(self) -> None:
        manifest, fold = self.datamodule.manifest, self.config.fit.fold
        labels = manifest.loc[manifest["split"].eq("test"), "label"].dropna()
        if not len(labels):
            raise InputError(
                f"--fold {fold}: {self.config.fit.cohort} has no labelled case in it to test on; choose another "
                "--fold, ingest the cohort with fewer --folds, or set --test_after_fit false"
            )
        if labels.nunique() < 2:
            self.trainer.print(
                f"{int(labels.sum())} of {len(labels)} test cases are obliterated: no test/auroc will be"
            )

    def before_validate(self) -> None:
        """As `before_test`, of the validation fold."""
        self._check_checkpoint(self.config.validate.ckpt_path)

    def before_test(self) -> None:
        """Checks what is to be scored.

        Raises:
            InputError: There is no checkpoint, it is of another stage or of other sizes, or it was trained on those
                whom it would be judged by.
        """
        self._check_checkpoint(self.config.test.ckpt_path)

    def before_predict(self) -> None:
        """As `before_test`."""
        self._check_checkpoint(self.config.predict.ckpt_path)

    def _check_checkpoint(self, path: str | None) -> None:
        if not is_overridden(f"{self.subcommand}_step".replace("validate", "validation"), self.model):
            raise InputError(
                f"{type(self.model).__name__} gives no probabilities to {self.subcommand}: train a student"
            )
        if path is None:
            raise InputError(
                "--ckpt_path is missing, so the weights would be random: give a run's checkpoints/best.ckpt"
            )
        checkpoint = read_checkpoint(path)
        check_fit(self.model, checkpoint["state_dict"], path)
        for name, trained in checkpoint.get("image_form", {}).items():
            here = self.datamodule.image_form.get(name, trained)
            if here != trained:
                there = " ".join(f"{value:g}" for value in trained)
                raise InputError(
                    f"{path}: was trained on images of {name} {there}, those of {self.config[self.subcommand].cohort} "
                    f"are of {' '.join(f'{value:g}' for value in here)}; ingest them with --{name} {there}"
                )
        self.datamodule.setup(self.subcommand)
        refuse_trained_on(path, self.datamodule.manifest)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the trainer. SLURM's own script puts a job back into the queue, as `experiments/slurm` does.

        Lightning would do that with a checkpoint of its own from the middle of an epoch, which it then prefers to the
        last one of a validation, and to the weights that `after_fit` tests.

        Raises:
            UsageError: Lightning does not take the trainer's options, or the machine has no such device.
        """
        if SLURMEnvironment.detect():
            plugins = self._get(self.config_init, "trainer", {}).get("plugins") or []
            kwargs["plugins"] = [*plugins, SLURMEnvironment(auto_requeue=False)]
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
            if self._get(self.config_init, f"trainer.{name}") == 0:
                raise UsageError(f"trainer.{name} is 0: give at least 1")
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = " ".join(str(error).split()).rstrip(".")
            raise UsageError(
                f"trainer: {reason}; correct what it names, such as --trainer.accelerator or --trainer.devices"
            ) from error

    def after_fit(self) -> None:
        """Tests the best checkpoint where that was asked for and the fit was not interrupted."""
        if self.config.fit.test_after_fit and not (self.trainer.interrupted or is_dry(self.trainer)):
            # Not by trainer.test(ckpt_path="best"): Lightning's weight averaging, still alive from the fit, would then
            # put the raw weights in place of the averaged ones that were validated and selected.
            (selection,) = (c for c in self.trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint))
            self.model.load_state_dict(read_checkpoint(selection.best_model_path)["state_dict"])
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)


def build(argv: Sequence[str]) -> StageCLI:
    """Builds the model, the data and the trainer of a stage without running it.

    Args:
        argv: Options without a verb, e.g. ``["--config", "experiments/pod/mae.yaml"]``.

    Raises:
        UsageError: If an option or a configuration file is wrong.
        InputError: If a class does not accept its options.
    """
    return _cli(argv, run=False)


def run(argv: Sequence[str]) -> None:
    """Runs one verb of the Lightning CLI, e.g. ``["fit", "--config", "experiments/pod/mae.yaml"]``.

    Raises:
        UsageError: If an option or a configuration file is wrong.
        InputError: If a class does not accept its options, or the data or a checkpoint is bad.
    """
    keep_freed_memory()
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    check_profile(words)
    check_run_folder(words)
    try:
        _cli(argv, run=True)
    finally:
        if wandb.run is not None:  # else the next stage of this process would log into this one's
            wandb.finish()


def _cli(argv: Sequence[str], run: bool) -> StageCLI:
    _quieten()
    OmegaConf.register_resolver("fastest_precision", fastest_precision, replace=True)
    OmegaConf.register_resolver("times", lambda factor, number: round(float(factor) * float(number)), replace=True)
    OmegaConf.register_resolver("with_unlabelled", _with_unlabelled, replace=True)
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)  # ${run} also inside fit's and test's own options
    # omegaconf+ resolves ${...} after all files and options are merged, so a profile's values reach any stage
    parsing = {"parser_mode": "omegaconf+", "exit_on_error": False}
    try:
        return StageCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            run=run,
            save_config_callback=RunConfig,
            save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
            parser_kwargs={**parsing, **dict.fromkeys(("fit", "validate", "test", "predict"), parsing)}
            if run
            else parsing,
            args=list(argv),
        )
    except ArgumentError as error:
        raise UsageError(_one_line(str(error))) from error
    except NSKeyError as error:  # an option that the class named by the last configuration does not have
        raise UsageError(_one_line(str(error.args[0]))) from error
    except InterpolationKeyError as error:
        key = re.search(r"resolved to '(?:\w+\.)?(profile\.\w+|\w+)'", str(error))
        name = key[1] if key else str(error)
        raise UsageError(f"{name} is referred to but not set: add --config experiments/pod/demo.yaml") from error
    except Exception as error:
        # what a class says of its own options arrives wrapped by the parser that tried to instantiate it
        raise _cause(error) from error


def _with_unlabelled(unlabelled: Any, batch_size: Any, n_labelled: Any, epochs: Any, devices: Any, nodes: Any) -> int:
    """Returns in how many epochs of labelled batches alone as many volumes pass as with unlabelled ones beside them.

    Fewer labelled volumes than a process' batch has room for make one smaller batch; `n_labelled` is None where all are
    used. Where `devices` is no number, as "auto", one is assumed.
    """
    processes = int(devices) * int(nodes) if str(devices).isdecimal() else int(nodes)
    labelled = int(batch_size) if n_labelled is None else min(int(batch_size), -(-int(n_labelled) // processes))
    return round(int(epochs) * (labelled + int(unlabelled)) / labelled)


def _cause(error: BaseException) -> BaseException:
    """Returns the InputError that led to an exception, or else the exception.

    One that was raised in a loader's process arrives with that process' traceback as its message.
    """
    link: BaseException | None = error
    while link is not None and not isinstance(link, InputError):
        link = link.__cause__ or link.__context__
    if link is not None and "Original Traceback" in str(link):
        return type(link)(str(link).rpartition(f"{type(link).__name__}: ")[2].strip())
    return link or error


def _one_line(message: str) -> str:
    """Keeps key and reason of a parser's message, which goes on with every type it tried and the whole value."""
    message = " ".join(message.split()).removeprefix("error: ")
    keys = re.findall(r"Parser key \"([^\"]+)\": ?", message)
    reason = re.split(r"Parser key \"[^\"]+\": ?|Errors: - ", message)[-1]
    reason = re.split(r" - Expected a | Given value|\.? Got value", reason)[0]
    return f"{'.'.join(keys)}: {reason}" if keys else reason


def _quieten() -> None:
    """Silences what Lightning says that a user cannot act on; its warnings about data and devices stay."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)
    for message in (
        r".*is an instance of `nn.Module` and is already saved.*",
        r".*does not have many workers.*",
        r".*`isinstance\(treespec, LeafSpec\)`.*",
        r".*The number of training batches.*is smaller than the logging interval.*",
        r".*Checkpoint directory.*exists and is not empty.*",
        r".*Experiment logs directory.*exists and is not empty.*",
        r".*LightningCLI's args parameter is intended.*",
        r".*loading a checkpoint outside the 'fit' stage. The WeightAveraging state cannot be restored.*",
    ):
        warnings.filterwarnings("ignore", message=message)
