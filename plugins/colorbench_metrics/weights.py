"""Files of weights, read without running what they hold."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch


def load(file: Path, sha256: str) -> Any:
    """The tensors in a file of torch. Raises ValueError if it is another file by now, or holds other things."""
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{file} has changed since it was named; run the command again")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{file} holds no plain tensors ({type(error).__name__}); name a file of weights") from error
