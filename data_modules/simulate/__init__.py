"""The simulated pelvis: one parametric anatomy, shown as T2-weighted MRI and as sliding-sign ultrasound."""
