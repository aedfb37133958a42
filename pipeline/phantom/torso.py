"""A digital torso: chest and upper abdomen, from the top of the lungs to the kidneys."""

from dataclasses import dataclass

import numpy as np

from pipeline.phantom.canvas import Canvas, Image, Place, Plane, Vector, bump, common, ellipsoid, joined, ramp
from pipeline.phantom.placing import Pose, make_pose
from pipeline.phantom.spine import paint_spine
from pipeline.phantom.waves import Waves, make_waves

SKIN_HU, FAT_HU, MUSCLE_HU, AIR_HU, BLOOD_HU = 40.0, -100.0, 55.0, -1000.0, 42.0
RIB_STEP_MM = 25.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Torso:
    """One torso in its own mm: x left, y back, z up, origin in the middle of the chest at the diaphragm's domes."""

    pose: Pose
    half_mm: Place
    fat_mm: float
    liver_hu: float
    spleen_hu: float
    kidney_hu: float
    lung_hu: float
    texture: Waves
    vessels: tuple[Waves, Waves]
    gut: Waves

    @property
    def extent_lps_mm(self) -> tuple[Vector, Vector]:
        """Return the box to scan: 300 mm along the body."""
        low = np.array([-self.half_mm[0] - 12.0, -self.half_mm[1] - 12.0, -150.0])
        high = np.array([self.half_mm[0] + 12.0, self.half_mm[1] + 40.0, 150.0])
        return low + self.pose.shift_mm, high + self.pose.shift_mm

    @property
    def field_of_view_mm(self) -> float:
        """Return the side of the scanned square."""
        return 400.0

    def sample(self, plane: Plane, edge_mm: float) -> tuple[Image, Image]:
        """Return HU and the lesion's filled fraction (a torso has none) on a plane in LPS mm."""
        canvas = self.pose.canvas(plane, edge_mm)
        skin = _skin(canvas, self.half_mm)
        chest = skin + np.float32(self.fat_mm + 12.0)
        _paint_wall(canvas, self, skin, chest)
        _paint_belly(canvas, self, chest)
        _paint_lungs(canvas, self, chest)
        _paint_heart(canvas)
        _paint_ribs(canvas, chest)
        paint_spine(canvas, skin)
        _paint_table(canvas, self)
        return canvas.hu, np.zeros_like(canvas.hu)


def make_torso(rng: np.random.Generator) -> Torso:
    """Draw one healthy torso."""
    size = rng.normal(1.0, 0.03)
    return Torso(
        pose=make_pose(rng, turn_deg=1.5, bend_mm=3.0, length_mm=220.0),
        half_mm=(168.0 * size, 112.0 * size + float(rng.normal(0, 4)), 300.0),
        fat_mm=float(rng.uniform(9.0, 20.0)),
        liver_hu=float(rng.uniform(52, 62)),
        spleen_hu=float(rng.uniform(46, 54)),
        kidney_hu=float(rng.uniform(29, 36)),
        lung_hu=float(rng.uniform(-875, -835)),
        texture=make_waves(rng, length_mm=24, count=8),
        vessels=(make_waves(rng, length_mm=30, count=12), make_waves(rng, length_mm=30, count=12)),
        gut=make_waves(rng, length_mm=48, count=10),
    )


def _skin(canvas: Canvas, half: Place) -> Image:
    """Return the distance to the skin: a rounded box, narrower towards the neck and at the waist."""
    narrow = 1.0 - 0.10 * ramp(canvas.z, 60.0, 190.0) - 0.05 * bump(canvas.z, -140.0, 50.0)
    u, v = np.abs(canvas.x) / (narrow * np.float32(half[0])), np.abs(canvas.y - 4) / (narrow * np.float32(half[1]))
    level = (u ** np.float32(2.5) + v ** np.float32(2.5)) ** np.float32(0.4) + np.float32(1e-3)
    hollow = 7.0 * bump(canvas.x, 0.0, 14.0) * ramp(canvas.y, 20.0, 80.0)
    reach = np.maximum(np.hypot(canvas.x, canvas.y - 4), 30.0)
    return np.asarray(reach * (1 - 1 / level) + hollow, dtype=np.float32)


def _paint_wall(canvas: Canvas, torso: Torso, skin: Image, chest: Image) -> None:
    """Paint skin, fat, and the muscles of wall and back."""
    texture = torso.texture.on(canvas.plane)
    canvas.paint(skin, SKIN_HU)
    canvas.paint(skin + np.float32(2.2), np.asarray(FAT_HU + 6 * texture, dtype=np.float32))
    muscle = chest - 7.0 - 5.0 * ramp(canvas.y, 30.0, 80.0) + 1.2 * texture
    canvas.paint(np.asarray(muscle, dtype=np.float32), np.asarray(MUSCLE_HU - 3 * texture, dtype=np.float32))
    for side in (-1.0, 1.0):
        back = np.hypot((canvas.x - side * 32.0) * 0.75, canvas.y - 84.0) - 21.0 + texture
        back = np.maximum(back, skin + np.float32(torso.fat_mm))
        canvas.paint(np.asarray(back, dtype=np.float32), MUSCLE_HU)


def _paint_belly(canvas: Canvas, torso: Torso, chest: Image) -> None:
    """Paint what lies below the diaphragm: fat, gut, liver, spleen, kidneys, stomach."""
    if float(canvas.z.min()) > 45.0:
        canvas.paint(chest, FAT_HU + 30.0)
        return
    texture = torso.texture.on(canvas.plane)
    canvas.paint(chest, np.asarray(FAT_HU + 8 * texture, dtype=np.float32))
    _paint_gut(canvas, torso, chest)
    inner = chest + np.float32(3.0)
    liver = ellipsoid(canvas, (-68.0, -8.0, -52.0), (92.0, 78.0, 72.0))
    liver = joined(liver, ellipsoid(canvas, (0.0, -45.0, -42.0), (68.0, 42.0, 32.0)), 25.0)
    liver = np.maximum(common(liver, inner, 8.0), _behind(canvas))
    canvas.paint(liver, np.asarray(torso.liver_hu + 1.5 * texture, dtype=np.float32))
    branches = _branches(canvas, torso) - np.float32(2.2)
    canvas.paint(np.maximum(branches, liver + np.float32(12.0)), torso.liver_hu - 14.0)
    canvas.ellipsoid((-38.0, -62.0, -92.0), (15.0, 20.0, 22.0), 8.0)
    spleen = common(ellipsoid(canvas, (104.0, 34.0, -48.0), (34.0, 48.0, 50.0)), inner, 6.0)
    canvas.paint(spleen, torso.spleen_hu)
    _paint_stomach(canvas, inner)
    for side, height in ((-1.0, -128.0), (1.0, -116.0)):
        _paint_kidney(canvas, torso, (side * 62.0, 46.0, height), side)


def _behind(canvas: Canvas) -> Image:
    """Return a distance that keeps the liver away from the spine and the right kidney."""
    return np.asarray(44.0 - np.hypot(canvas.x - 4.0, canvas.y - 62.0), dtype=np.float32)


def _paint_gut(canvas: Canvas, torso: Torso, chest: Image) -> None:
    waves = torso.gut.on(canvas.plane)
    loops = np.maximum((np.float32(0.15) - waves) * 8, chest + np.float32(14.0))
    loops = np.maximum(np.maximum(loops, canvas.y - 28.0), canvas.z + 62.0)
    canvas.paint(np.asarray(loops, dtype=np.float32), 38.0)
    gas = np.maximum(
        loops + np.float32(4.0), (torso.vessels[0].on(canvas.plane) - 0.6) * 6 + ramp(canvas.y, -45.0, 0.0) * 20
    )
    canvas.paint(np.asarray(gas, dtype=np.float32), -900.0)


def _paint_stomach(canvas: Canvas, inner: Image) -> None:
    stomach = common(ellipsoid(canvas, (58.0, -30.0, -62.0), (42.0, 48.0, 46.0)), inner, 6.0)
    canvas.paint(stomach, 45.0)
    canvas.paint(stomach + np.float32(4.0), 18.0)
    canvas.paint(np.maximum(stomach + np.float32(4.0), canvas.y + 48.0), -950.0)


def _paint_kidney(canvas: Canvas, torso: Torso, centre: Place, side: float) -> None:
    canvas.ellipsoid(centre, (44.0, 40.0, 62.0), FAT_HU)
    canvas.ellipsoid(centre, (28.0, 25.0, 52.0), torso.kidney_hu)
    canvas.ellipsoid((centre[0] - side * 15.0, centre[1] - 6.0, centre[2]), (16.0, 9.0, 22.0), FAT_HU + 20.0)


def _paint_lungs(canvas: Canvas, torso: Torso, chest: Image) -> None:
    """Paint both lungs on their diaphragms, with branching vessels."""
    lungs: Image | None = None
    for side in (-1.0, 1.0):
        dome_z = 2.0 if side < 0 else -8.0
        dome = ellipsoid(canvas, (side * 72.0, 4.0, dome_z - 150.0), (95.0, 112.0, 160.0))
        tip = ellipsoid(canvas, (side * 70.0, 12.0, 5.0), (78.0, 92.0, 168.0))
        lung = common(common(chest + np.float32(5.0), tip, 10.0), -dome, 6.0)
        middle = 30.0 + 12.0 * bump(canvas.y, 5.0, 30.0) - side * canvas.x
        lung = common(lung, np.asarray(middle, dtype=np.float32), 14.0)
        lungs = lung if lungs is None else np.minimum(lungs, lung)
    if lungs is None:
        return
    heavier = 35 * ramp(canvas.y, -60.0, 90.0)
    canvas.paint(lungs, np.asarray(torso.lung_hu + heavier, dtype=np.float32))
    width = 0.9 + 2.2 * ramp(-lungs, 5.0, 40.0) * bump(np.abs(canvas.x), 45.0, 40.0)
    vessels = np.maximum(_branches(canvas, torso) - width, lungs + np.float32(2.0))
    canvas.paint(np.asarray(vessels, dtype=np.float32), 35.0)


def _branches(canvas: Canvas, torso: Torso) -> Image:
    """Return the distance to a net of curves: where two smooth fields are both zero."""
    one, other = (waves.on(canvas.plane) for waves in torso.vessels)
    return np.asarray(np.hypot(one, other) * np.float32(5.4))


def _paint_heart(canvas: Canvas) -> None:
    """Paint the mediastinum: fat, heart, aorta, great veins, windpipe and its branches, gullet."""
    canvas.ellipsoid((4.0, -8.0, 75.0), (32.0, 62.0, 95.0), FAT_HU + 15.0)
    canvas.ellipsoid((24.0, -30.0, 28.0), (64.0, 50.0, 52.0), FAT_HU)
    canvas.ellipsoid((24.0, -30.0, 28.0), (60.0, 46.0, 48.0), 48.0)
    canvas.ellipsoid((38.0, -24.0, 20.0), (28.0, 24.0, 30.0), BLOOD_HU - 4)
    canvas.ellipsoid((2.0, -40.0, 30.0), (24.0, 22.0, 30.0), BLOOD_HU - 4)
    for start, end, radii in _AORTA:
        canvas.rod(start, end, radii, BLOOD_HU)
    canvas.rod((-26.0, -14.0, 40.0), (-22.0, -22.0, 130.0), (10.0, 9.0), BLOOD_HU)
    canvas.rod((-14.0, 20.0, -40.0), (-20.0, 34.0, -160.0), (12.0, 11.0), BLOOD_HU - 3)
    canvas.rod((8.0, 34.0, 150.0), (14.0, 26.0, -20.0), (6.5, 6.5), 38.0)
    _paint_airways(canvas)


_AORTA: tuple[tuple[Place, Place, tuple[float, float]], ...] = (
    ((4.0, -30.0, 50.0), (-10.0, -32.0, 90.0), (15.0, 15.0)),
    ((-10.0, -32.0, 90.0), (6.0, -2.0, 108.0), (15.0, 13.5)),
    ((6.0, -2.0, 108.0), (24.0, 38.0, 92.0), (13.5, 12.5)),
    ((24.0, 38.0, 92.0), (22.0, 36.0, -20.0), (12.5, 11.5)),
    ((22.0, 36.0, -20.0), (8.0, 34.0, -160.0), (11.5, 9.5)),
    ((-6.0, -18.0, 72.0), (40.0, 10.0, 74.0), (12.0, 9.0)),
    ((-6.0, 4.0, 70.0), (-44.0, 12.0, 66.0), (11.0, 8.0)),
)


def _paint_airways(canvas: Canvas) -> None:
    for radius_mm, hu in ((1.6, 20.0), (0.0, AIR_HU)):
        canvas.rod((0.0, 10.0, 160.0), (-2.0, 16.0, 84.0), (8.5 + radius_mm, 8.5 + radius_mm), hu)
        canvas.rod((-2.0, 16.0, 84.0), (-44.0, 22.0, 58.0), (7.0 + radius_mm, 5.0 + radius_mm), hu)
        canvas.rod((-2.0, 16.0, 84.0), (46.0, 24.0, 54.0), (6.5 + radius_mm, 4.5 + radius_mm), hu)


def _paint_ribs(canvas: Canvas, chest: Image) -> None:
    """Paint all ribs at once: bars in the chest wall that fall from the spine to the front; and the breastbone."""
    fall = canvas.z + 0.42 * (60.0 - canvas.y) - 0.0012 * (canvas.y - 20.0) ** 2
    step = np.rint(fall * np.float32(1 / RIB_STEP_MM)).clip(-3, 7)
    off = fall - step * np.float32(RIB_STEP_MM)
    bar = np.hypot(chest * np.float32(1.35), off) - np.float32(6.2)
    front = 24.0 + 20.0 * ramp(canvas.z, 40.0, -60.0) - np.abs(canvas.x)
    bar = np.maximum(bar, front * ramp(canvas.y, 0.0, -20.0) - 30.0 * ramp(canvas.y, -20.0, 0.0))
    cartilage = ramp(canvas.y, -48.0, -66.0)
    canvas.paint(np.asarray(bar, dtype=np.float32), np.asarray(850.0 - 740.0 * cartilage, dtype=np.float32))
    canvas.paint(np.asarray(bar + 1.5, dtype=np.float32), np.asarray(260.0 - 150.0 * cartilage, dtype=np.float32))
    plate = np.maximum(np.abs(chest - 1.0) - 5.5, np.abs(canvas.x) - 19.0)
    plate = np.maximum(np.maximum(plate, canvas.y), -5.0 - canvas.z)
    canvas.paint(np.asarray(plate, dtype=np.float32), 500.0)
    canvas.paint(np.asarray(plate + 1.5, dtype=np.float32), 160.0)


def _paint_table(canvas: Canvas, torso: Torso) -> None:
    """Paint the table's shell below the back: carbon skin round foam."""
    curve = canvas.y - (torso.half_mm[1] + 20.0) + 0.0006 * canvas.x * canvas.x
    shell = np.maximum(np.abs(curve) - 9.0, np.abs(canvas.x) - 190.0)
    canvas.paint(np.asarray(shell, dtype=np.float32), -250.0)
    canvas.paint(np.asarray(shell + 2.0, dtype=np.float32), -920.0)
