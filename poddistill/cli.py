"""The one command, ``poddistill``: quick to answer, it imports nothing heavy before a verb needs it."""

import argparse
import dataclasses
import difflib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from data_modules.errors import InputError, UsageError
from poddistill import __version__
from poddistill.cli_results import add_result_verbs

STAGE_VERBS = {
    "fit": "train a stage",
    "validate": "score a checkpoint on the validation fold",
    "test": "score a checkpoint on the held-out fold and write predictions.csv",
    "predict": "write the probability of every case of a cohort",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Returns:
        0, 1 where it failed, 2 where it was used wrongly, 143 where SIGTERM ended a stage. Bad input is told in one
        line on standard error; for the traceback of a defect set PODDISTILL_DEBUG=1.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in STAGE_VERBS and not {"-h", "--help"} & set(argv[1:]):
        return _guarded(lambda: _stage(argv))
    return _guarded(lambda: _run(argv))


def _run(argv: list[str]) -> None:
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)


def _guarded(verb: Callable[[], None]) -> int:
    try:
        verb()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 1
    except SystemExit as end:
        # Lightning's own: without a status, which counts as success, after SIGTERM, and with 1 after Ctrl-C
        if end.code is not None and not isinstance(end.__context__, KeyboardInterrupt):
            raise
        resume = "make resumes from the last validation, as --ckpt_path RUN/checkpoints/last.ckpt does"
        print(f"interrupted; {resume}", file=sys.stderr)
        return 128 + signal.SIGTERM if end.code is None else 1
    except BrokenPipeError:
        return 1
    except Exception as error:
        if os.environ.get("PODDISTILL_DEBUG"):
            raise
        first_line = (str(error).strip().splitlines() or [""])[0]
        print(
            f"error: {type(error).__name__}: {first_line} (unexpected; PODDISTILL_DEBUG=1 shows the traceback)",
            file=sys.stderr,
        )
        return 1
    return 0


def _stage(argv: list[str]) -> None:
    with suppress(ImportError):
        # W&B does so in every run, and it takes a second longer where torch and Lightning are loaded already
        import wandb.sdk.launch  # noqa: F401
    from poddistill.lightning_cli import run

    run(argv)


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage in one line, and of a misspelt option which one may be meant."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.prog} --help lists what it takes")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            wrong = next((text for text in unknown if text.startswith("-")), unknown[0]).partition("=")[0]
            close = difflib.get_close_matches(wrong, self._option_string_actions, n=1, cutoff=0.75)
            self.error(f"{wrong}: not an option of {self.prog}" + (f", did you mean {close[0]}?" if close else ""))
        return known, unknown


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="poddistill",
        description="Detect pouch of Douglas obliteration from MRI alone, taught by the ultrasound of other patients.",
        epilog="Each verb has its own --help with an example.",
    )
    parser.add_argument("--version", action="version", version=f"poddistill {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_simulate(verbs)
    _add_ingest(verbs)
    _add_inspect(verbs)
    for verb, does in STAGE_VERBS.items():
        _add_stage_verb(verbs, verb, does)
    add_result_verbs(partial(_verb, verbs))
    return parser


def _verb(verbs: Any, name: str, does: str, example: str, run: Callable[[argparse.Namespace], None] | None) -> Any:
    parser = verbs.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_simulate(verbs: Any) -> None:
    from docstring_parser import parse

    from data_modules.simulate.settings import SimulationSettings

    parser = _verb(
        verbs,
        "simulate",
        "write a simulated cohort as hospital files",
        "poddistill simulate --out cohorts/simulated-hospital --n_labelled 300 --prevalence 0.3",
        _simulate,
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for mri/ and tvus/")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: 0, one a core)")
    described = {part.arg_name: part.description for part in parse(SimulationSettings.__doc__ or "").params}
    for field in dataclasses.fields(SimulationSettings):
        sized = isinstance(field.default, tuple)
        shown = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        parser.add_argument(
            f"--{field.name}",
            type=type(field.default[0]) if isinstance(field.default, tuple) else type(field.default),
            nargs=len(field.default) if isinstance(field.default, tuple) else None,
            metavar="N" if sized else None,
            default=field.default,
            help=f"{described[field.name]} (default: {shown})".replace("%", "%%"),
        )


def _simulate(arguments: argparse.Namespace) -> None:
    from data_modules.simulate.cohort import simulate_cohort
    from data_modules.simulate.settings import SimulationSettings

    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(SimulationSettings)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    workers = arguments.workers or os.cpu_count() or 1
    with _progress("simulate") as progress:
        simulate_cohort(arguments.out, SimulationSettings(**values), workers, progress)
    print(f"simulate: wrote {arguments.out}")


def _add_ingest(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "ingest",
        "turn hospital files into a cohort, de-identified, checked and split into folds",
        "poddistill ingest mri export/mri --out cohorts/hospital --shape 96 160 160 --spacing 0.67 0.6 0.6",
        _ingest,
    )
    parser.add_argument("modality", choices=("mri", "tvus"))
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="folder of DICOM, NIfTI or video files, with labels.csv"
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="COHORT", help="cohort folder, the same for both modalities")
    add("--labels", type=Path, metavar="CSV", help="label CSV (default: SRC/labels.csv)")
    add(
        "--shape",
        type=int,
        nargs=3,
        metavar="N",
        help="stored D H W or T H W (default: as before, at first 16 48 48, 16 64 64)",
    )
    add(
        "--spacing",
        type=float,
        nargs=3,
        metavar="MM",
        help="MRI: stored voxel size D H W (default: as before, at first 4 2 2)",
    )
    add(
        "--n4",
        action=argparse.BooleanOptionalAction,
        help="MRI: correct the bias field (N4; slow; default: as before, at first not)",
    )
    add("--series_rules", type=Path, metavar="YAML", help="MRI: which series of a study is used (default: sagittal T2)")
    add("--layout", metavar="NAME", help="MRI: a public set, e.g. umd (docs/public_sets.md)")
    add(
        "--frame_rate",
        type=float,
        metavar="HZ",
        help="TVUS: stored frames a second; 0: spread over the clip (default: as before, at first 5)",
    )
    add("--folds", type=int, default=5, metavar="K", help="folds by patient (default: 5)")
    add("--seed", type=int, default=0, metavar="N", help="of the folds (default: 0)")
    add("--workers", type=int, default=0, metavar="N", help="processes (default: 0, one a core)")
    add("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do it instead, e.g. tcp://node1:8786")
    add("--time_limit", type=float, default=300, metavar="S", help="seconds that a file may take (default: 300)")
    add("--memory_limit", type=float, default=8, metavar="GIB", help="memory that a process may take (default: 8)")
    add("--sources", type=Path, metavar="CSV", help="private list of which file became which case, by its own name")
    add("--strict", action="store_true", help="stop at the first bad file instead of listing it in rejected.csv")
    add("--remove_missing", action="store_true", help="remove the cohort's cases that SRC no longer holds")


OF_MRI, OF_TVUS = ("spacing", "n4", "series_rules", "layout"), ("frame_rate",)


def _ingest(arguments: argparse.Namespace) -> None:
    from data_modules.ingest import ingest_mri, ingest_tvus

    mri = arguments.modality == "mri"
    if other := [name for name in (OF_TVUS if mri else OF_MRI) if getattr(arguments, name) is not None]:
        raise UsageError(f"--{other[0]} is for {'TVUS' if mri else 'MRI'}; leave it out")
    names = ("shape", *(OF_MRI if mri else OF_TVUS))
    given = {name: getattr(arguments, name) for name in names}
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
    name = f"ingest {arguments.modality}"
    with _progress(name) as progress:
        summary = (ingest_mri if mri else ingest_tvus)(
            arguments.source,
            arguments.out,
            labels=arguments.labels,
            folds=arguments.folds,
            seed=arguments.seed,
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            time_limit=arguments.time_limit,
            memory_limit=arguments.memory_limit,
            sources=arguments.sources,
            strict=arguments.strict,
            remove_missing=arguments.remove_missing,
            progress=progress,
            **options,
        )
    print(f"{name}: {summary}")
    if summary.defects:
        raise InputError(
            f"{summary.rejected_file}: {summary.defects} defective files or label rows were left out, the cohort is "
            "complete without them; correct them and run it again, or go on"
        )


def _add_inspect(verbs: Any) -> None:
    parser = _verb(verbs, "inspect", "write a cohort's report.html", "poddistill inspect cohorts/hospital", _inspect)
    parser.add_argument("cohort", type=Path, metavar="COHORT")


def _inspect(arguments: argparse.Namespace) -> None:
    from data_modules.inspection import write_report

    print(write_report(arguments.cohort))


def _add_stage_verb(verbs: Any, verb: str, does: str) -> None:
    rest = {
        "fit": "--config experiments/pod/demo.yaml --config experiments/pod/mae.yaml "
        "--cohort cohorts/demo --run runs/try/mae"
    }.get(verb, "--config runs/try/student/config.yaml --ckpt_path runs/try/student/checkpoints/best.ckpt")
    parser = _verb(verbs, verb, does, f"poddistill {verb} {rest}", None)
    parser.add_argument(
        "--config", action="append", metavar="FILE", help="YAML file; later ones win, options win over files"
    )
    parser.add_argument("--run", metavar="DIR", help="run folder, ${run} in the files")
    parser.add_argument("--method", metavar="NAME", help="name in logs and tables, ${method} in the files")
    parser.add_argument("--cohort", metavar="DIR", help="cohort folder, ${cohort} in the files")
    parser.add_argument(
        "--fold", metavar="N", help="test fold, ${fold} in the files; null: every labelled case, on another cohort"
    )
    parser.add_argument("--profile.KEY", metavar="VALUE", help="a value of the profile, e.g. --profile.mae_epochs 10")
    parser.add_argument("--ckpt_path", metavar="FILE", help="fit: resume this run; else: the weights to use")
    parser.add_argument(
        "--model.KEY, --data.KEY, --trainer.KEY",
        metavar="VALUE",
        help="any key of the YAML files, e.g. --trainer.devices 2",
    )
    parser.add_argument("--print_config", action="store_true", help="show the resolved configuration and stop")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a progress report ``(done, total)``: a bar in a terminal, elsewhere a line every few seconds."""
    if not sys.stdout.isatty():
        yield _told(name)
        return
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description:<16}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]:.1f}/s"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns) as bar:
        task = bar.add_task(name, total=None, rate=0.0)
        yield lambda done, total: bar.update(task, completed=done, total=total, rate=bar.tasks[0].speed or 0.0)


def _told(name: str) -> Callable[[int, int], None]:
    """Returns a progress report ``(done, total)`` that prints a line every few seconds."""
    first: tuple[float, int] | None = None
    last = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        if first is None:  # the processes have started: from here on the rate means something
            first, last = (now, done), now
            print(f"{name:<16} {total} cases", flush=True)
        if now - last < 5 and done < total:
            return
        last = now
        rate = (done - first[1]) / max(now - first[0], 1e-9)
        left = (total - done) / max(rate, 1e-9)
        print(f"{name:<16} {done}/{total}  {rate:.0f}/s  {left // 60:.0f}:{left % 60:02.0f} left", flush=True)

    return tell
