"""The device, its precision and its description."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import torch
from accelerate import Accelerator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# What oneDNN, which computes the convolutions, can be told to keep to (its documentation, "CPU Dispatcher Control").
WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
# On a CPU, torch 2.11 ends with a segmentation fault in the backward pass of channels-last networks in bf16; 2.14 does
# not, and versions between were not tried.
BF16_ON_CPU_SINCE = "2.14"


def accelerator() -> Accelerator:
    """The processes and the device of this run: the CPU, one GPU of NVIDIA or AMD, or several.

    Trains in bf16 where the device computes it in hardware, in float32 elsewhere.
    """
    _keep_freed_memory()
    # Both are said here: `accelerate launch` would ask for float32 unasked, and Apple's GPUs lack the scores' float64.
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16" if _gains_from_bf16() else "no")


def describe() -> dict[str, Any]:
    """What the run record says about where it trains."""
    cuda = torch.cuda.is_available()
    return {
        "device": "cuda" if cuda else "cpu",
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "precision": "bf16" if _gains_from_bf16() else "no",
        "processes": world()[1],
        "threads": torch.get_num_threads(),
    }


def world() -> tuple[int, int]:
    """The rank of this process and the number of processes, as `accelerate launch` set them; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _keep_freed_memory() -> None:
    # glibc returns every large block to the system, which then maps and clears it anew for each activation: up to a
    # quarter of the time of a CPU step. Numbers from malloc.h; elsewhere than on Linux there is nothing to set.
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _gains_from_bf16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper() in WITHOUT_BF16:
        return False
    if torch.torch_version.TorchVersion(torch.__version__) < BF16_ON_CPU_SINCE:
        return False
    cpu = torch.cpu.get_capabilities()  # a CPU that emulates bf16 would be slower than in float32
    return bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))
