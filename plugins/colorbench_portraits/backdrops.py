"""What stands behind the people. Coordinates: u from -0.5 to 0.5, v from 0 (top) to 1."""

from __future__ import annotations

import numpy as np

from colorbench_portraits import materials
from colorbench_portraits.canvas import Canvas, Patch, ellipse, noise
from colorbench_portraits.scene import Scene


def paint_backdrop(canvas: Canvas, scene: Scene) -> None:
    p = canvas.whole

    def cover(L: np.ndarray, material: np.ndarray, distance: np.ndarray | float = -1.0) -> None:
        ab = materials.color(material, L, scene.tint)
        canvas.paint(p, np.broadcast_to(p.inside(distance), L.shape), "background", L, ab)

    match scene.backdrop:
        case "wall":
            cover(_wall(scene, p), materials.WALL)
        case "bricks":
            cover(_bricks(scene, p), materials.BRICK)
        case "leaves":
            cover(_leaves(scene, p, 7), materials.PLANTS)
        case "sky":
            cover(_sky(scene, p, 1.0), materials.SKY)
        case "sea":
            cover(_sky(scene, p, scene.horizon), materials.SKY)
            cover(_sea(scene, p), materials.SEA, scene.horizon - p.v)
        case "hills":
            cover(_sky(scene, p, scene.horizon), materials.SKY)
            ridge = 0.22 * noise(scene.lattice, p.u * 3.5, 0 * p.u)
            bushes = 0.05 * noise(scene.lattice, p.u * 19, p.v * 19)
            cover(_leaves(scene, p, 11), materials.PLANTS, scene.horizon - ridge - bushes - p.v)


def _sky(scene: Scene, p: Patch, bottom: float) -> np.ndarray:
    top = 54 + 16 * scene.tone
    clear = top + (86 - top) * np.clip(p.v / bottom, 0, 1)
    cloud = 0.6 * noise(scene.lattice, p.u * 3 + p.v, p.v * 7 - p.u)
    cloud += 0.4 * noise(scene.lattice, p.u * 9 - 3 * p.v + 30, p.v * 15 + 4 * p.u)
    return clear + (96 - clear) * np.clip(4 * (cloud - 0.56), 0, 1)


def _sea(scene: Scene, p: Patch) -> np.ndarray:
    depth = np.maximum(p.v - scene.horizon, 0)
    ripples = noise(scene.lattice, p.u * 9, 14 * depth / (0.12 + 0.4 * depth)) - 0.5
    return 44 + 14 * scene.tone - 30 * depth + 16 * ripples + 12 * np.maximum(1 - depth / 0.04, 0)


def _leaves(scene: Scene, p: Patch, cells: int) -> np.ndarray:
    """One leaf per cell of a jittered grid, the brightest on top."""
    x, y = np.broadcast_arrays(p.u * cells, p.v * cells)
    column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    shade = 16 + 10 * scene.tone + 12 * noise(scene.lattice, x * 0.45, y * 0.45)
    L = shade
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            # Four numbers per cell, read from far corners of the lattice.
            a, b, c, d = (scene.lattice[(row + j + 17 * k) & 63, (column + i + 29 * k) & 63] for k in range(4))
            u, v, lean = x - column - i - a, y - row - j - b, 2 * c - 1
            across, along = v * lean - u, u * lean + v
            vein = p.inside((np.abs(across) - 0.02) / cells)
            lit = shade + 34 * d - 6 + 8 * across - 5 * vein
            L = np.maximum(L, p.inside(ellipse(across, along, 0.38, 0.75) / cells) * lit)
    return L


def _wall(scene: Scene, p: Patch) -> np.ndarray:
    plaster = noise(scene.lattice, p.u * 6, p.v * 6) + noise(scene.lattice, p.u * 21, p.v * 21) - 1
    return 48 + 34 * scene.tone + 3 * plaster + 14 * scene.light[0] * p.u - 10 * (p.v - 0.4)


def _bricks(scene: Scene, p: Patch) -> np.ndarray:
    row = np.floor(p.v * 11)
    x, y = p.u * 4.5 + 0.5 * (row % 2), p.v * 11
    brick = scene.lattice[row.astype(np.intp) & 63, np.floor(x).astype(np.intp) & 63]
    mortar = np.minimum((0.5 - np.abs(x - np.floor(x) - 0.5)) / 4.5, (0.5 - np.abs(y - row - 0.5)) / 11) - 0.007
    L = 28 + 8 * scene.tone + 14 * brick + 8 * (noise(scene.lattice, p.u * 31, p.v * 31) - 0.5)
    return L + p.inside(mortar) * (66 + 6 * scene.tone - L)
