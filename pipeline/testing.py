"""The laws every detector and every output keeps: subclass a contract, supply two methods, inherit the tests."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline.model import Acquisition, Declined, Finding
from pipeline.ports import Detector, Output
from reconstruction.geometry import Geometry
from reconstruction.volume import Hu, Volume

SILENT_HEADERS = Acquisition()
PLAIN_MM = (3.0, 2.0, 2.0)
KINDS = {"hemorrhage", "fracture"}


def volume_of(hu: Hu, *, spacing_mm: tuple[float, float, float] = (2.0, 1.0, 1.0)) -> Volume:
    """Lay a kji array on an axial grid with k towards the head."""
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, spacing_mm[2]], [0, spacing_mm[1], 0], [spacing_mm[0], 0, 0]]
    kji = (hu.shape[0], hu.shape[1], hu.shape[2])
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=kji))


@cache
def plain_head(*, bleed_ml: float = 0.0, dent_mm: float = 0.0, noise_hu: float = 5.0) -> Volume:
    """Draw the plainest head: scalp, a closed ellipsoid of bone, brain, ventricles; a bleed and a dent where asked.

    The bleed (65 HU) is a sphere in the left half, the dent a piece of bone of 30 mm pressed in on the left side.
    """
    volume = volume_of(np.zeros((60, 112, 98), dtype=np.int16), spacing_mm=PLAIN_MM)
    lps = volume.geometry.to_mm(np.moveaxis(np.indices(volume.hu.shape), 0, -1)) - volume.geometry.to_mm((29, 56, 49))
    side = np.array([0.8, -0.2, 0.57])
    pressed = (lps @ side > 20) & (np.linalg.norm(lps - (lps @ side)[..., None] * side, axis=-1) < 15)
    depth = 1 - np.linalg.norm(lps / (66.0, 82.0, 72.0), axis=-1) - np.where(pressed, dent_mm / 70.0, 0.0)
    brain = np.where(np.linalg.norm(lps / (14.0, 28.0, 12.0), axis=-1) < 1, 8, 34)
    radius_mm = np.cbrt(3000 * bleed_ml / (4 * np.pi))
    brain = np.where(np.linalg.norm(lps - (35.0, -5.0, 15.0), axis=-1) < radius_mm, 65, brain)
    hu = np.select([depth > 0, depth > -0.1, depth > -0.17], [brain, 1100, 45], -1000)
    noise = np.random.default_rng(1).normal(0, noise_hu, hu.shape)
    return volume_of((hu + noise).astype(np.int16), spacing_mm=PLAIN_MM)


def flipped(volume: Volume, axis: int) -> Volume:
    """Return the same patient in the same place, with one index axis running the other way."""
    affine = volume.geometry.affine.copy()
    last = [0.0, 0.0, 0.0]
    last[axis] = volume.geometry.shape[axis] - 1.0
    affine[:3, 3] = volume.geometry.to_mm(last)
    affine[:3, axis] *= -1
    hu = np.ascontiguousarray(np.flip(volume.hu, axis))
    return Volume(hu=hu, geometry=replace(volume.geometry, affine=affine))


class DetectorContract(ABC):
    """What holds for any Detector. A subclass supplies the detector and a volume with something for it to find."""

    @abstractmethod
    def make_detector(self) -> Detector:
        """Return a fresh detector."""

    @abstractmethod
    def make_example(self) -> Volume:
        """Return a volume in which the detector finds something."""

    def examine(self, volume: Volume) -> Sequence[Finding]:
        """Run a fresh detector that is expected not to decline."""
        found = self.make_detector()(volume, SILENT_HEADERS)
        assert not isinstance(found, Declined), found
        return found

    def test_it_has_a_name_a_version_and_kinds(self) -> None:
        detector = self.make_detector()
        assert detector.name == detector.name.lower() != ""
        assert detector.version != ""
        assert set(detector.looks_for) <= KINDS
        assert detector.looks_for

    def test_it_does_not_decline_because_headers_are_silent(self) -> None:
        assert self.make_detector().declines(SILENT_HEADERS) is None

    def test_it_finds_what_it_looks_for_with_regions_on_the_volumes_grid(self) -> None:
        volume, detector = self.make_example(), self.make_detector()
        found = self.examine(volume)
        assert found
        for finding in found:
            assert finding.kind in detector.looks_for
            assert finding.detector == detector.name
            assert finding.region.voxel_count > 0
            assert finding.region.geometry.agrees_with(volume.geometry, within_mm=1e-6)

    def test_it_says_the_same_twice_and_leaves_the_volume_alone(self) -> None:
        volume = self.make_example()
        before = volume.hu.copy()
        assert _essence(self.examine(volume)) == _essence(self.examine(volume))
        np.testing.assert_array_equal(before, volume.hu)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_the_way_an_axis_runs_does_not_matter(self, axis: int) -> None:
        volume = self.make_example()
        expected, actual = self.examine(volume), self.examine(flipped(volume, axis))
        assert len(expected) == len(actual)
        for one, other in zip(expected, actual, strict=True):
            np.testing.assert_allclose(other.centroid_lps_mm, one.centroid_lps_mm, atol=2.0)
            assert other.probability == pytest.approx(one.probability, abs=0.1)

    @pytest.mark.parametrize("level_hu", [-1024, 0, 40, 3071])
    def test_a_constant_volume_is_declined(self, level_hu: int) -> None:
        self.assert_declined(volume_of(np.full((24, 64, 64), level_hu, dtype=np.int16)))

    def test_an_empty_bore_with_noise_is_declined(self) -> None:
        noise = np.random.default_rng(0).normal(-1000, 15, size=(24, 96, 96))
        self.assert_declined(volume_of(noise.astype(np.int16)))

    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 64, 64), (2, 5, 200), (40, 2, 2)])
    def test_a_volume_too_small_to_judge_is_declined(self, shape: tuple[int, int, int]) -> None:
        self.assert_declined(volume_of(np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)))

    def test_three_slices_of_the_example_are_declined(self) -> None:
        volume = self.make_example()
        middle = volume.geometry.shape[0] // 2
        shape = (3, *volume.geometry.shape[1:])
        geometry = volume.geometry.cropped((middle, 0, 0), shape)
        self.assert_declined(Volume(hu=volume.hu[middle : middle + 3].copy(), geometry=geometry))

    def test_a_water_cylinder_is_declined(self) -> None:
        self.assert_declined(volume_of(_cylinder(wall_hu=130, content_hu=0)))

    def assert_declined(self, volume: Volume) -> None:
        """Check that a volume is declined with a reason a person can read: never a silent negative."""
        answer = self.make_detector()(volume, SILENT_HEADERS)
        assert isinstance(answer, Declined), answer
        assert len(answer.reason.split()) >= 3


def _cylinder(*, wall_hu: int, content_hu: int) -> Hu:
    j, i = np.indices((220, 220)) - 110
    radius = np.hypot(j, i)
    plane = np.select([radius < 90, radius < 96], [content_hu, wall_hu], -1000).astype(np.int16)
    return np.repeat(plane[None], 40, axis=0)


def _essence(found: Sequence[Finding]) -> list[tuple[str, str, float, tuple[float, float, float], int]]:
    return [(f.kind, f.subtype, f.probability, f.centroid_lps_mm, f.region.voxel_count) for f in found]


class OutputContract(ABC):
    """What holds for any Output. A subclass supplies the output, objects, and a look at what has arrived."""

    @abstractmethod
    def make_output(self, tmp_path: Path) -> Output:
        """Return an output that can deliver."""

    @abstractmethod
    def make_objects(self, tmp_path: Path) -> Sequence[Path]:
        """Return Part-10 files the output can deliver."""

    @abstractmethod
    def arrived(self, output: Output) -> dict[str, bytes]:
        """Return what the destination holds: a name and the bytes of each object."""

    def test_it_has_a_name(self, tmp_path: Path) -> None:
        assert self.make_output(tmp_path).name != ""

    def test_every_object_arrives(self, tmp_path: Path) -> None:
        output, objects = self.make_output(tmp_path), self.make_objects(tmp_path)
        output.deliver(objects)
        assert len(objects) == len(self.arrived(output))

    def test_delivering_twice_is_harmless(self, tmp_path: Path) -> None:
        output, objects = self.make_output(tmp_path), self.make_objects(tmp_path)
        output.deliver(objects)
        once = self.arrived(output)
        output.deliver(objects)
        assert once == self.arrived(output)

    def test_nothing_to_deliver_is_no_fault(self, tmp_path: Path) -> None:
        output = self.make_output(tmp_path)
        output.deliver([])
        assert self.arrived(output) == {}
