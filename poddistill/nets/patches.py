"""Where the patches of a volume lie, and how some of them are picked."""

import torch
from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError


def sincos_positions(grid_size: tuple[int, int, int], width: int) -> Tensor:
    """Makes fixed position codes for a 3D grid of patches.

    Each axis gets 2 * (width // 6) channels: sin(p * w_j), then cos(p * w_j), p the index along the axis and
    w_j = 10000^(-j / (width // 6)). The channels that remain when 6 does not divide the width are 0.

    Args:
        grid_size: Patches along (D, H, W).
        width: Channels of a code; at least 6.

    Returns:
        float32 (N, width), W fastest; channels of D first, then H, then W.

    Raises:
        InputError: The width is below 6.
    """
    n = width // 6
    if n < 1:
        raise InputError(f"a width of {width} is too small for 3D positions: give at least 6")
    frequencies = 10000.0 ** (-torch.arange(n, dtype=torch.float64) / n)  # (n,)
    axes = [torch.arange(side, dtype=torch.float64) for side in grid_size]
    index = torch.cartesian_prod(*axes).reshape(-1, 3)  # (N, 3)
    angles = index[:, :, None] * frequencies  # (N, 3, n)
    codes = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)  # (N, 6 n)
    return functional.pad(codes, (0, width - 6 * n)).float()


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Picks from every sample its own rows: (B, N, P) and int64 (B, K) give (B, K, P)."""
    # Whole rows are copied this way; torch.gather would look up every element on its own.
    start = torch.arange(0, rows.shape[0] * rows.shape[1], rows.shape[1], device=rows.device)
    return rows.flatten(0, 1)[index + start[:, None]]
