"""What a portrait shows: parameters drawn from the index alone, so that no size changes the composition.

Lengths are in picture sides for places and in half head heights for everything about a person.
Tones are L in 0..100.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

VERSION = "colorbench portraits 1"  # raise it with every change that alters a pixel
BACKDROPS = ("sky", "sea", "hills", "leaves", "wall", "bricks")
NECKLINES = ("crew", "open", "collar", "high")
PATTERNS = ("plain", "plain", "stripes", "jacket")
# style: hair volume, length down the side, height of the hairline above the eyes, curl; each a range
STYLES = {
    "short": ((0.06, 0.18), (-0.05, 0.18), (0.48, 0.62), (0.0, 0.03)),
    "fringe": ((0.06, 0.16), (0.05, 0.3), (0.26, 0.34), (0.0, 0.04)),
    "bob": ((0.12, 0.22), (0.65, 0.95), (0.24, 0.34), (0.0, 0.05)),
    "long": ((0.10, 0.24), (1.3, 2.1), (0.45, 0.62), (0.0, 0.10)),
    "curly": ((0.16, 0.30), (0.2, 1.2), (0.38, 0.55), (0.11, 0.18)),
    "afro": ((0.32, 0.52), (0.15, 0.45), (0.46, 0.58), (0.08, 0.14)),
    "bun": ((0.03, 0.07), (0.0, 0.12), (0.48, 0.60), (0.0, 0.02)),
}


@dataclass(frozen=True)
class Cloth:
    """One dye. Its `hue` (a point on the unit circle) is independent of its `tone`: nobody can guess it."""

    tone: float
    hue: tuple[float, float]
    chroma: float


@dataclass(frozen=True)
class Hair:
    """`style` is a key of STYLES or "bald"; `beard` is 0 (none) to 1 (full)."""

    style: str
    tone: float
    volume: float
    length: float
    forehead: float
    curl: float
    sweep: float
    beard: float


@dataclass(frozen=True)
class Person:
    """`turn` slides the features sideways, as a turned head does; `parting` is how far the mouth is open."""

    x: float
    y: float
    scale: float
    tilt: float
    turn: float
    width: float
    jaw: float
    skin: float
    tint: tuple[float, float]
    eye: float
    iris: float
    gaze: float
    brow: float
    nose: float
    mouth: float
    lips: float
    smile: float
    parting: float
    glasses: bool
    hair: Hair
    neckline: str
    pattern: str
    cloths: tuple[Cloth, Cloth]


@dataclass(frozen=True)
class Scene:
    """`light` is a unit vector (right, down, towards the viewer); `lattice` (65, 65) feeds every texture: random
    numbers in 0..1, the last row and column repeating the first."""

    lattice: np.ndarray
    light: tuple[float, float, float]
    backdrop: str
    horizon: float
    tone: float
    tint: tuple[float, float]
    people: tuple[Person, ...]


def identity(index: int) -> bytes:
    """What a portrait depends on, and all that it depends on besides the size."""
    return f"{VERSION}/{index}".encode()


def scene(index: int) -> Scene:
    """The scene with this index."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(identity(index)).digest(), "big"))
    count = 1 if rng.random() < 0.85 else int(rng.integers(2, 4))
    light = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.55, -0.25), 0.8])
    right, down, front = light / np.sqrt((light**2).sum())
    return Scene(
        lattice=np.pad(rng.random((64, 64), dtype=np.float32), (0, 1), mode="wrap"),
        light=(float(right), float(down), float(front)),
        backdrop=BACKDROPS[rng.integers(len(BACKDROPS))],
        horizon=rng.uniform(0.38, 0.62),
        tone=rng.random(),
        tint=(rng.uniform(-2, 2), rng.uniform(-2, 2)),
        people=tuple(_person(rng, place, count) for place in range(count)),
    )


def _person(rng: np.random.Generator, place: int, count: int) -> Person:
    scale = (rng.uniform(0.22, 0.34), rng.uniform(0.175, 0.215), rng.uniform(0.125, 0.15))[count - 1]
    spread = (0.08, 0.03, 0.02)[count - 1]
    skin = rng.uniform(24, 82)
    return Person(
        x=(place + 0.5) / count + rng.uniform(-spread, spread),
        y=rng.uniform(0.42, 0.50) + (0.05 if count > 1 else 0.0),
        scale=scale,
        tilt=rng.uniform(-0.2, 0.2),
        turn=rng.uniform(-0.14, 0.14),
        width=rng.uniform(0.70, 0.80),
        jaw=rng.uniform(0.08, 0.32),
        skin=skin,
        tint=(rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)),
        eye=rng.uniform(0.145, 0.18),
        iris=rng.uniform(14, 62) if skin > 55 else rng.uniform(8, 26),
        gaze=rng.uniform(-0.35, 0.35),
        brow=rng.uniform(0.02, 0.042),
        nose=rng.uniform(0.11, 0.16),
        mouth=rng.uniform(0.22, 0.29),
        lips=rng.uniform(0.68, 0.88),
        smile=rng.uniform(0.025, 0.10),
        parting=rng.uniform(0.06, 0.12) if rng.random() < 0.35 else 0.0,
        glasses=rng.random() < 0.14,
        hair=_hair(rng, skin),
        neckline=NECKLINES[rng.integers(len(NECKLINES))],
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        cloths=(_cloth(rng), _cloth(rng)),
    )


def _hair(rng: np.random.Generator, skin: float) -> Hair:
    grey, light = rng.random() < 0.12, skin > 58
    tone = rng.uniform(*((77, 88) if grey else (7, 62) if light else (6, 22)))
    style = "bald" if rng.random() < 0.07 else list(STYLES)[rng.integers(len(STYLES))]
    volume, length, forehead, curl = (rng.uniform(*span) for span in STYLES.get(style, STYLES["short"]))
    bearded = style in ("bald", "short", "afro") and rng.random() < 0.45
    return Hair(style, tone, volume, length, forehead, curl, rng.uniform(-0.3, 0.3),
                rng.uniform(0.4, 1.0) if bearded else 0.0)  # fmt: skip


def _cloth(rng: np.random.Generator) -> Cloth:
    angle = rng.uniform(0, 2 * np.pi)
    return Cloth(rng.uniform(22, 85), (float(np.cos(angle)), float(np.sin(angle))), rng.uniform(22, 58))
