"""A small teacher trained on simulated clips sees the sliding sign, which is gone once the frames are out of order."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip
from poddistill.nets.r2plus1d import R2Plus1D
from poddistill.training.optimisation import AdamWCosine

N_TRAIN, N_TEST, EPOCHS, BATCH = 384, 160, 22, 16


def test_the_frame_shuffled_teacher_falls() -> None:
    torch.set_num_threads(1)  # the same sums on every machine
    torch.manual_seed(0)
    settings = SimulationSettings(seed=3)
    labels = np.arange(N_TRAIN + N_TEST) % 2
    clips = np.stack([simulate_clip(settings, patient, int(label)) for patient, label in enumerate(labels)])
    image = torch.from_numpy(clips).float().div(255).unsqueeze(1)  # (N, 1, T, H, W)
    label = torch.from_numpy(labels).float()
    teacher = R2Plus1D(width=8, layers=(1, 1, 1, 1))
    optimizer, schedule = AdamWCosine(lr=3e-3, warmup_epochs=2)(teacher, N_TRAIN // BATCH, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(N_TRAIN).split(BATCH):
            batch = image[rows].flip(2) if torch.rand(()) < 0.5 else image[rows]
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(teacher(batch), label[rows]).backward()
            optimizer.step()
            schedule.step()
    teacher.eval()
    held_out = image[N_TRAIN:]
    order = torch.argsort(torch.rand(N_TEST, held_out.shape[2]), dim=1)
    shuffled = held_out.gather(2, order[:, None, :, None, None].expand_as(held_out))
    frozen = held_out[:, :, :1].expand_as(held_out)
    with torch.inference_mode():
        aurocs = [
            roc_auc_score(labels[N_TRAIN:], torch.cat([teacher(part) for part in clips_of.split(32)]))
            for clips_of in (held_out, shuffled, frozen)
        ]
    in_order, out_of_order, still = aurocs
    # A short training on few clips: .85, .70 and .52 where it was written. The demo's teacher reaches .96, .72 and .52.
    assert in_order > 0.75, aurocs
    assert out_of_order < in_order - 0.05, aurocs
    assert still < in_order - 0.15, aurocs
