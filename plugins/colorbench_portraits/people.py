"""Paints a person, from the hair behind the neck to the glasses.

Unit: half the height of the head. The crown is at v = -1, the eyes at 0, the chin at 1; the head tilts, the
body does not. Teeth and the open mouth belong to the lips, lashes to the eyes, brows and
beard to the hair, glasses to the clothes, ears and neck to the skin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from colorbench_portraits.canvas import Canvas, Frame, Patch, bump, ellipse, noise, wave
from colorbench_portraits.materials import HAIR, IRIS, LIPS, SKIN, WHITE, color, dyed
from colorbench_portraits.scene import Person, Scene


@dataclass(frozen=True)
class Painter:
    """One person of the scene. Every method below `paint` lays one layer on the canvas, or serves one."""

    canvas: Canvas
    scene: Scene
    person: Person

    def paint(self) -> None:
        hair = self.person.hair
        if hair.style != "bald":
            self._hair(behind=True)
        self._neck()
        self._clothes()
        for side in (-1, 1):
            self._ear(side)
        self._face()
        if hair.beard:
            self._beard()
        self._mouth()
        for side in (-1, 1):
            self._eye(side)
            self._brow(side)
        if hair.style != "bald":
            self._hair(behind=False)
        if self.person.glasses:
            self._glasses()

    def _body(self) -> Frame:
        return Frame(self.person.x, self.person.y, self.person.scale)

    def _head(self) -> Frame:
        return self._body().moved(0, 1).turned(self.person.tilt).moved(0, -1)  # about the base of the neck

    def _on_face(self, u: float, v: float, half: float, height: float) -> Patch:
        """The patch around a feature, whose place is the origin."""
        frame = self._head().moved(self.person.turn + u, v)
        return frame.patch(self.canvas.size, half, -height / 2, height / 2)

    def _noise(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return noise(self.scene.lattice, x + 64 * self.person.x, y)

    def _side_of_light(self) -> float:
        return math.copysign(1, self.scene.light[0])

    def _lit(self, nu: np.ndarray | float, nv: np.ndarray | float) -> np.ndarray:
        """How bright a ball is, about 1 where the light falls straight, where its normal is (nu, nv, .)."""
        right, down, front = self.scene.light
        depth = np.sqrt(np.maximum(1 - nu * nu - nv * nv, 0.02))
        return 0.70 + 0.36 * np.clip(right * nu + down * nv + front * depth, -0.4, 1)

    def _skin(self, p: Patch, distance: np.ndarray, L: np.ndarray, blush: np.ndarray | float) -> None:
        ab = color(SKIN, 0.5 * (L + self.person.skin), self.person.tint)
        ab[0] += blush
        self.canvas.paint(p, p.inside(distance), "skin", L, ab)

    def _strands(self, p: Patch, alpha: np.ndarray, L: np.ndarray) -> None:
        # Mostly by the hair's own tone: the shadows of blond hair are not red hair.
        ab = color(HAIR, 0.35 * L + 0.65 * self.person.hair.tone, self.person.tint)
        self.canvas.paint(p, alpha, "hair", np.maximum(L, 2), ab)

    # Body

    def _neck(self) -> None:
        p = self._body().patch(self.canvas.size, 0.9, 0.5, 2.1)
        width, slope = np.abs(p.u), np.maximum(p.v - 1.05, 0)
        chin_shadow = np.clip((1.45 - p.v) / 0.5, 0, 1)
        collarbone = bump(width - 0.2, p.v - 1.48, 0.17, 0.035)
        L = self.person.skin * (self._lit(p.u * 1.6, 0.1) - 0.24 * chin_shadow - 0.05 * collarbone)
        self._skin(p, width - 0.36 - 1.1 * slope * slope, L, blush=0)

    def _clothes(self) -> None:
        person = self.person
        p = self._body().patch(self.canvas.size, 1.8, 1.0, (1 - person.y) / person.scale)
        u, v, side = p.u, p.v, np.abs(p.u)
        x = (side / 1.6) ** 2
        # The height of the shoulder line over its slope: about the distance to it.
        steep = (0.28 + 5 * x * x * x) * side / 1.6
        shoulders = (1.19 + 0.22 * x + (x * x) ** 2 - v) / np.sqrt(1 + steep * steep)
        match person.neckline:
            case "crew":
                opening = ellipse(u, v - 1.15, 0.50, 0.27)
            case "open":
                opening = np.maximum((1.6 * side + v - 1.95) / 1.9, side - 0.44)
            case "collar":
                opening = np.maximum((2.2 * side + v - 1.8) / 2.4, side - 0.42)
            case _:
                opening = np.ones_like(shoulders)
                shoulders = np.minimum(shoulders, np.maximum(side - 0.30 - 0.12 * v, 1.04 + 0.2 * side**2 - v))
        folds = self._noise(u * 2.2 + 0.8 * v, v * 1.1) + 0.5 * self._noise(u * 6, v * 3 + 20) - 0.75
        light = self._lit(u / 1.8, -0.2) + 0.16 * folds - 0.10 * np.clip(1 - opening / 0.12, 0, 1)
        # Dyed in full before it is painted: two soft edges on top of each other would show a rim.
        lab, second = (dyed(cloth, light) for cloth in person.cloths)
        match person.pattern:
            case "stripes":
                lab += p.inside(0.12 * wave(v / 0.48 + 0.04 * u * u)) * (second - lab)
            case "jacket":
                lab += p.inside(0.30 + 0.12 * np.maximum(2.4 - v, 0) - side) * (second - lab)
        match person.neckline:
            case "crew":
                lab += p.inside(opening - 0.1) * (second - lab)
            case "collar":
                collar = np.maximum(opening - 0.17, (v - 0.55 * side - 1.52) / 1.15)
                lab += p.inside(collar) * (dyed(person.cloths[0], light + 0.14) - lab)
        self.canvas.paint(p, p.inside(np.maximum(shoulders, -opening)), "clothes", lab[0], lab[1:])

    # Head

    def _outline(self, p: Patch) -> np.ndarray:
        return ellipse(p.u * (1 + self.person.jaw * np.maximum(p.v, 0)), p.v, self.person.width, 1)

    def _ear(self, side: int) -> None:
        u = side * (self.person.width + 0.02 - 0.9 * max(0.0, side * self.person.turn))
        p = self._head().moved(u, 0.14).patch(self.canvas.size, 0.16, -0.26, 0.26)
        L = self.person.skin * (0.86 + 0.2 * side * self.scene.light[0] - 0.18 * bump(p.u, p.v, 0.10, 0.18))
        self._skin(p, ellipse(p.u - 0.12 * p.v * side, p.v, 0.12, 0.23), L, blush=3)

    def _face(self) -> None:
        person, lit = self.person, self._side_of_light()
        p = self._head().patch(self.canvas.size, 0.85, -1.02, 1.02)
        u, v, nose = p.u - person.turn, p.v, person.nose
        side = np.abs(u)
        cheeks = bump(side - 0.40, v - 0.34, 0.28, 0.24)
        relief = 0.6 * cheeks
        relief += 0.8 * bump(u - 0.3 * lit, v + 0.48, 0.45, 0.28)  # forehead
        relief += 0.7 * bump(u - 0.02 * lit, v - 0.10, 0.06, 0.34)  # bridge of the nose
        relief += 1.3 * bump(u - 0.03 * lit, v - 0.35, 0.8 * nose, 0.10)  # its tip
        relief += 0.5 * bump(u, v - 0.87, 0.18, 0.12)  # chin
        relief -= 1.2 * bump(side - 0.30, v + 0.09, 0.27, 0.17)  # eye sockets
        relief -= 1.0 * bump(u + 0.9 * nose * lit, v - 0.20, 0.09, 0.32)  # the nose's side away from the light
        relief -= 1.5 * bump(u + 0.02 * lit, v - 0.475, 1.5 * nose, 0.085)  # its shadow
        relief -= 0.8 * bump(side - 0.92 * nose, v - 0.39, 0.045, 0.09)  # its wings
        relief -= 1.8 * bump(side - 0.45 * nose, v - 0.435, 0.055, 0.035)  # nostrils
        relief -= 0.9 * bump(u, v - 0.79, 0.22, 0.06)  # under the lip
        if person.hair.style != "bald":
            relief -= 1.3 * np.clip(1 + self._hairline(p) / 0.16, 0, 1)  # the shadow of the hair
        light = self._lit(p.u / (person.width + 0.05), 0.85 * v)
        blush = 6 * cheeks + 4 * bump(u, v - 0.36, nose, 0.12)
        self._skin(p, self._outline(p), person.skin * light + (2.5 + 0.09 * person.skin) * relief, blush)

    def _mouth(self) -> None:
        person = self.person
        p = self._on_face(0, 0.63, 0.34, 0.44)
        x = p.u / person.mouth
        inner = 1 - x * x
        middle = p.v + person.smile * (x * x - 0.4)  # 0 on the lower edge of the upper lip
        gap = person.parting * inner
        upper = 0.075 * inner * (1 - 0.3 * bump(x, 0 * x, 0.3, 1)) + 0.008
        lower = gap + 0.095 * inner + 0.008
        ends = (np.abs(x) - 1) * person.mouth
        tone = person.skin * person.lips
        seam = np.maximum(1 - np.abs(middle - gap) / 0.022, 0) * (inner > 0)
        L = tone * (1 + 0.20 * np.clip(p.v / 0.05, -0.8, 0.6) - 0.5 * seam)
        L += 8 * bump(p.u - 0.05 * self._side_of_light(), middle - gap - 0.05, 0.14, 0.03)
        lips = np.maximum(np.maximum(-upper - middle, middle - lower), ends)
        self.canvas.paint(p, p.inside(lips), "lips", L, color(LIPS, L, person.tint))
        if person.parting:
            opened = p.inside(np.maximum(np.maximum(-middle, middle - gap), ends))
            teeth = p.inside(middle - 0.62 * gap)
            L = 16 + teeth * (72 - 9 * x * x)
            self.canvas.paint(p, opened, "lips", L, color(LIPS, L) + teeth * (color(WHITE, L) - color(LIPS, L)))

    def _eye(self, side: int) -> None:
        person, w = self.person, self.person.eye
        p = self._on_face(side * 0.32, 0, w + 0.05, 0.4)
        x = p.u / w
        inner = 1 - x * x
        lid = p.v + 0.62 * w * inner  # 0 on the upper lid
        opening = p.inside(np.maximum(np.maximum(-lid, p.v - 0.42 * w * inner), np.abs(p.u) - w))

        def lay(alpha: np.ndarray, L: np.ndarray, material: np.ndarray = WHITE) -> None:
            self.canvas.paint(p, alpha, "eyes", L, color(material, L))

        flat = np.zeros_like(opening)
        lay(opening, 90 - 26 * np.clip(1 - lid / 0.06, 0, 1) - 14 * x * x)
        u, v, r = p.u - person.gaze * 0.35 * w, p.v + 0.06 * w, 0.52 * w
        rim = np.sqrt(u * u + v * v)
        lay(opening * p.inside(rim - r), person.iris * (1.05 - 0.1 * rim / r + 0.1 * v / r), IRIS)
        lay(opening * p.inside(rim - 0.45 * r), flat + 5)
        glint = bump(u - 0.35 * r * self._side_of_light(), v + 0.4 * r, 0.45 * r, 0.45 * r)
        lay(opening * np.minimum(2 * glint, 1), flat + 97)
        lashes = np.maximum(np.abs(lid) - 0.018 - 0.012 * inner, np.abs(p.u) - w - 0.015)
        lay(0.9 * p.inside(lashes), flat + 10)

    def _brow(self, side: int) -> None:
        p = self._on_face(side * 0.32, -0.24, 0.26, 0.24)
        x = side * p.u / 0.23  # -1 at the nose, 1 at the temple
        arch = p.v + 0.04 - 0.05 * (x - 0.05) ** 2
        thick = self.person.brow * (1.1 - 0.5 * x)
        hairs = 0.6 + 0.3 * self._noise(p.u * 40 - p.v * 25, p.v * 20)
        alpha = 0.9 * p.inside(np.maximum(np.abs(arch) - thick, np.abs(p.u) - 0.22))
        self._strands(p, alpha, self.person.hair.tone * hairs)

    def _glasses(self) -> None:
        p = self._on_face(0, 0, 0.85, 0.6)
        side = np.abs(p.u)
        rings = np.abs(ellipse(side - 0.33, p.v - 0.02, 0.25, 0.21)) - 0.022
        bridge = np.maximum(np.abs(p.v + 0.03) - 0.02, side - 0.10)
        temples = np.maximum(np.abs(p.v + 0.06) - 0.02, np.maximum(0.57 - side, side - self.person.width + 0.02))
        frame = p.inside(np.minimum(np.minimum(rings, bridge), temples))
        lab = dyed(self.person.cloths[1], np.full_like(frame, 0.35))
        self.canvas.paint(p, frame, "clothes", lab[0], lab[1:])

    # Hair

    def _hairline(self, p: Patch) -> np.ndarray:
        """Signed distance to the window that the hair leaves for the face; it stays open downwards."""
        hair, width = self.person.hair, self.person.width
        u, below = p.u - 0.5 * self.person.turn, np.minimum(p.v - 0.4, 0)
        fringe = 0.06 * self._noise(p.u * 9, p.v) + 0.3 * hair.sweep * u - hair.forehead - p.v
        match hair.style:
            case "fringe" | "bob":
                window = np.maximum(np.abs(u) - 0.86 * width, fringe)
            case "short":
                window = np.maximum(ellipse(u, below, 0.93 * width, 0.6 + hair.forehead), fringe)
            case _:
                parted = u - hair.sweep * np.clip(-p.v, 0, 1)
                window = ellipse(parted, below, 0.9 * width, 0.4 + hair.forehead)
        return window + (0.03 + hair.curl) * (self._noise(p.u * 8, p.v * 6) - 0.5)

    def _hair(self, behind: bool) -> None:
        hair = self.person.hair
        full = hair.style in ("bob", "long", "curly", "afro")
        reach = self.person.width + (0.06 + hair.volume if full else 0.03 + 0.2 * hair.volume)
        crown = 1.03 + hair.volume
        p = self._head().patch(self.canvas.size, reach + 0.3, -1.7, max(hair.length, 0.3) + 0.3)
        u, v = p.u, p.v
        outer = ellipse(u, np.minimum(v, 0) if hair.length > 0.5 else v, reach, crown)
        tips = v - hair.length - 0.10 * self._noise(u * 7, 0 * u) + (0.5 if full else 0.1) * u * u
        curls = 1.5 * self._noise(u * 5 + 9, v * 5) + 0.5 * self._noise(u * 11, v * 11) - 1.0
        shape = np.maximum(outer, tips) + (0.03 + hair.curl) * curls
        if hair.style == "bun":
            shape = np.minimum(shape, ellipse(u - 0.3 * hair.sweep, v + 1.2, 0.32, 0.28))
        # Strands fan out from the crown: the sine of their angle serves as the angle.
        du, dv = u - 0.5 * hair.sweep, v + 1.05
        radius = np.sqrt(du * du + dv * dv) + 0.05
        straight = self._noise(22 * du / radius, 1.4 * radius) - 0.5
        bent = 2 * straight  # without the bend the lattice shows
        curly = 1.3 * self._noise(u * 10 + v * 6 + bent, v * 10 - u * 6 + bent) - 0.65
        texture = straight + min(1.0, 8 * hair.curl) * (curly - straight)
        light = self._lit(u / reach, np.minimum(v, 0) / crown)
        L = hair.tone * (light - 0.3 * behind) + (3 + 0.36 * hair.tone) * texture
        if not behind:
            shape = np.maximum(shape, -self._hairline(p))
            gloss = np.maximum(1 - np.abs(outer + 0.26 + 0.06 * straight) / 0.14, 0) * (v < 0.3)
            L += (7 + 0.08 * hair.tone) * gloss * (0.6 + self.scene.light[0] * u)
        self._strands(p, p.inside(shape), L)

    def _beard(self) -> None:
        person = self.person
        p = self._head().patch(self.canvas.size, 0.85, 0.1, 1.2)
        u, v = p.u - person.turn, p.v
        side = np.abs(u)
        cheek = 0.42 + 0.30 * np.maximum(1 - (side / 0.45) ** 2, 0) - np.maximum(side - 0.5, 0)
        jaw = np.maximum(self._outline(p) - 0.05 * person.hair.beard, cheek - v)
        moustache = np.maximum(np.abs(v - 0.53 - 0.25 * u * u) - 0.045, side - 0.27)
        fuzz = self._noise(u * 26, v * 26) - 0.5
        shape = np.minimum(jaw, moustache) + 0.05 * fuzz
        alpha = np.clip(0.5 - shape / max(p.pixel, 0.07), 0, 1) * (0.45 + 0.5 * person.hair.beard)
        self._strands(p, alpha, person.hair.tone * (0.9 * self._lit(u, 0.6 * v) + 0.45 * fuzz))
