"""Randomness by name: a seed depends on what it is for, never on what ran before."""

import hashlib
import json


def seed_for(*purpose: str | int) -> int:
    """63 bits from a hash of `purpose`, say (0, "order", "my-model", "train", 7): adding a model shifts no other's."""
    return int(hashlib.sha256(json.dumps(purpose).encode()).hexdigest()[:16], 16) >> 1
