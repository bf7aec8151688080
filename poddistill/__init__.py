"""poddistill: MRI-only detection of pouch of Douglas obliteration, taught by the ultrasound of other patients."""

__version__ = "0.1.0"
