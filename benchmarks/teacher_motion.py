"""Does the teacher read motion? Its AUROC on held-out clips in order, shuffled, and with the first frame repeated.

    .venv/bin/python benchmarks/teacher_motion.py runs/demo/seed0-fold0/teacher cohorts/demo

A teacher that scores as well on shuffled or frozen clips has found something other than the sliding sign.
"""

import argparse
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score

from data_modules.cohort_dataset import in_unit_range
from data_modules.tvus import TVUSDataModule
from poddistill.pod.teacher_tvus import TeacherTVUS


@torch.inference_mode()
def main() -> None:
    """Scores the test fold three times and prints the AUROCs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of the teacher")
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--fold", type=int, default=0, help="the test fold of that run")
    arguments = parser.parse_args()
    teacher = TeacherTVUS.load_from_checkpoint(arguments.run / "checkpoints/best.ckpt", map_location="cpu").eval()
    data = TVUSDataModule(str(arguments.cohort), fold=arguments.fold)
    rows = data.labelled_rows("test")
    generator = torch.Generator().manual_seed(0)
    logits: dict[str, list[torch.Tensor]] = {"in order": [], "shuffled": [], "frozen": []}
    for batch in data.sequential_dataloader(rows):
        clips = in_unit_range(batch["image"])
        order = torch.argsort(torch.rand(len(clips), clips.shape[2], generator=generator))
        shuffled = clips.gather(2, order[:, None, :, None, None].expand_as(clips))
        frozen = clips[:, :, :1].expand_as(clips)
        for name, changed in (("in order", clips), ("shuffled", shuffled), ("frozen", frozen)):
            logits[name].append(teacher(changed))
    labels = data.manifest["label"].to_numpy()[rows]
    print(f"{len(rows)} clips, {int(labels.sum())} obliterated")
    for name, values in logits.items():
        print(f"{name:<9} AUROC {roc_auc_score(labels, torch.cat(values)):.3f}")


if __name__ == "__main__":
    main()
