"""3.2.2 of the paper: the noise of a diffusion, and the embedding of its timestep."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from colorbench_enhanced_unet.options import NOISE_STEPS

EMBEDDING = 128  # numbers that carry the timestep and the color prior, at every width


def timestep_embedding(t: Tensor) -> Tensor:
    """t (B,) -> float32 (B, 128): sines and cosines at 64 frequencies from 1 down to 1/10,000."""
    half = EMBEDDING // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000) / (half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def noise_schedule(kind: str) -> Tensor:
    """float32 (1001,): the share of the signal's variance left after t steps, 1 at t = 0.

    Linear variances from 1e-4 to 0.02 (Ho, Jain and Abbeel 2020), or cosine (Nichol and Dhariwal 2021).
    """
    if kind == "cosine":
        angles = (torch.linspace(0, 1, NOISE_STEPS + 1, dtype=torch.float64) + 0.008) / 1.008 * (math.pi / 2)
        return (angles.cos() / angles[0].cos()).square().float()
    betas = torch.linspace(1e-4, 0.02, NOISE_STEPS, dtype=torch.float64)
    return F.pad((1 - betas).cumprod(dim=0), (1, 0), value=1.0).float()
