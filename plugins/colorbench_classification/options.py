"""The choices in the loss and the answer that both models share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Sections 2.1 to 2.3 of Zhang, Isola and Efros 2016. Raises ValueError for values outside the ranges given."""

    neighbors: int = 5  # nearest classes that share a color, 1..313; the authors' code has 10, their paper 5
    sigma: float = 5.0  # Lab units, above 0: of the Gaussian by which they share it
    uniform: float = 0.5  # in 0.01..1: lambda, the share of the uniform distribution in the weights; 1 weights nothing
    temperature: float = 0.38  # above 0: 1 is the mean of the distribution; towards 0 it becomes its mode

    def __post_init__(self) -> None:
        if not 1 <= self.neighbors <= 313:
            raise ValueError(f"neighbors is {self.neighbors}; give 1 to 313")
        if not 0.01 <= self.uniform <= 1:
            raise ValueError(f"uniform is {self.uniform}; give 0.01 to 1")
        for name in ("sigma", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")
