"""In which precision the machine at hand trains fastest without a loss."""

import torch


def fastest_precision() -> str:
    """Returns ``bf16-mixed`` where products of bfloat16 matrices have hardware of their own, else ``32-true``.

    That is: a GPU from Ampere on, or a CPU with AVX512-BF16 or AMX. Elsewhere bfloat16 is converted in software, and
    slower than float32. Configurations name it as ``${fastest_precision:}``.
    """
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"
