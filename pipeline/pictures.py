"""What does a radiologist see first: the key pictures of each finding, and one page that sums the study up?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipeline.model import ExaminedStack, Finding, Report, Role
from pipeline.picture_texts import TEXTS, Language, Texts, translated
from reconstruction.geometry import Geometry
from reconstruction.lettering import Colour, shortened, wrapped, write
from reconstruction.render import BONE, BRAIN, SUBDURAL, Flat, Rgb, Window, picture
from reconstruction.volume import Bits, Mask, Volume

PAGE = (1100, 1400)  # columns, rows
_MARGIN = 40
_INK: Colour = (25, 28, 34)
_GREY: Colour = (95, 100, 110)
_ALARM: Colour = (176, 24, 24)
_RULE: Colour = (200, 204, 210)
_ROW = 24
_TEXT = 17
_MOST_FINDINGS = 8
_TABLES_END = 880  # no further stack is begun below this row: the pictures need the rest
_MOST_NOTES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyPicture:
    """The acquired slice that shows most of a finding, outlined; ``label`` names finding and slice."""

    rgb: Rgb
    label: str
    finding: Finding
    slice_number: int


def key_pictures(volume: Volume, findings: Sequence[Finding], *, size: int = 512) -> list[KeyPicture]:
    """Draw for each finding the slice of ``volume`` (as acquired) that holds most of it.

    Regions lie on the volume's own grid, as in a Report. Bone findings are shown in a bone window, blood in a brain
    window, extra-axial blood in a wider one. ``slice_number`` counts from 1 along k.
    """
    return [_key_picture(volume, finding, size) for finding in findings]


def summary_page(
    report: Report,
    keys: Sequence[KeyPicture],
    renderings: Sequence[Rgb],
    *,
    language: Language = "en",
    study_key: str = "",
    notes: Sequence[str] = (),
) -> Rgb:
    """Draw the page one reads first, RGB of 1100 x 1400 pixels.

    It shows status and priority, each finding, what every stack went through (NOT ANALYSED with its reason in red),
    key pictures and a rendering. A detector without a finding reads "not detected by", never "normal".
    """
    page = _Page(Image.new("RGB", PAGE, (255, 255, 255)), language)
    page.head(report, study_key)
    page.findings(report, keys)
    page.stacks(report)
    page.notes([*report.notes, *notes])
    page.pictures(keys, renderings)
    page.foot()
    return np.asarray(page.image)


def clock_text(at: datetime) -> str:
    """Return an instant as its own wall clock shows it, with the distance from UTC: "2026-11-22 04:26 -06:00"."""
    hours = at.isoformat(sep=" ", timespec="minutes")
    return f"{hours[:16]} {hours[16:]}"


def reasons_of(row: ExaminedStack) -> list[str]:
    """Say each reason once: what the row says beyond its detectors, then each of theirs with who gave it."""
    given: dict[str, list[str]] = {}
    for run in row.detectors:
        if run.reason:
            given.setdefault(run.reason, []).append(run.name)
    repeated = "; ".join(f"{run.name}: {run.reason}" for run in row.detectors)
    own = (row.reason or "").replace(repeated, "").strip("; ")
    theirs = [f"{', '.join(names)}: {reason}" for reason, names in given.items() if not _is_said(reason, own)]
    return [own, *theirs] if own else theirs


def _is_said(reason: str, own: str) -> bool:
    reason = reason.removeprefix("no volume: ")
    return own == reason or own.endswith(f"; {reason}")


def write_png(rgb: npt.NDArray[np.uint8], path: Path) -> None:
    """Write an RGB or grey picture as PNG."""
    Image.fromarray(rgb).save(path, format="PNG")


def _key_picture(volume: Volume, finding: Finding, size: int) -> KeyPicture:
    k = _fullest_slice(finding.region)
    flat = _axial(volume, k)
    rgb = picture(flat, _window_for(finding), outline=_on_slice(finding.region, k), size=size)
    label = f"{finding.subtype or finding.kind}, {k + 1}/{volume.hu.shape[0]}"
    return KeyPicture(rgb=rgb, label=label, finding=finding, slice_number=k + 1)


def _window_for(finding: Finding) -> Window:
    if finding.kind == "fracture":
        return BONE
    return SUBDURAL if "dural" in finding.subtype or "extra" in finding.subtype else BRAIN


def _fullest_slice(region: Mask) -> int:
    return region.origin_kji[0] + int(region.bits.sum(axis=(1, 2)).argmax())


def _on_slice(region: Mask, k: int) -> Bits:
    bits = np.zeros(region.geometry.shape[1:], dtype=np.bool_)
    _, j, i = region.origin_kji
    _, m, p = region.bits.shape
    bits[j : j + m, i : i + p] = region.bits[k - region.origin_kji[0]]
    return bits


def _axial(volume: Volume, k: int) -> Flat:
    """One acquired slice with its directions."""
    geometry: Geometry = volume.geometry
    _, row_mm, column_mm = geometry.spacing_mm
    return Flat(
        pixels=volume.hu[k],
        row_direction=geometry.affine[:3, 2] / column_mm,
        column_direction=geometry.affine[:3, 1] / row_mm,
        pixel_spacing_mm=(row_mm, column_mm),
    )


class _Page:
    """A sheet that is filled from the top; it keeps where the next line goes."""

    def __init__(self, image: Image.Image, language: Language) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)
        self._language = language
        self._texts = TEXTS[language]
        self._y = _MARGIN

    def head(self, report: Report, study_key: str) -> None:
        texts = self._texts
        self._line("ctriage", size=34)
        write(self._draw, (PAGE[0] - _MARGIN, _MARGIN + 6), texts.title, size=22, colour=_GREY, anchor="ra")
        when = clock_text(report.committed_at) if report.committed_at else ""
        facts = [f"{texts.study} {study_key}" if study_key else "", f"{texts.version} {report.version}", when]
        self._y += 10
        self._line("   ".join(f for f in facts if f), colour=_GREY)
        self._status(report)
        for change in report.changes:
            self._line(f"{texts.changed}: {self._said(change)}", colour=_ALARM)

    def findings(self, report: Report, keys: Sequence[KeyPicture]) -> None:
        texts = self._texts
        self._heading(texts.findings)
        slices = {id(key.finding): key.label.rpartition(" ")[2] for key in keys}
        if report.findings:
            columns = (0, 400, 530, 640, 750)
            self._cells(columns, texts.finding_columns, colour=_GREY)
            for finding in report.findings[:_MOST_FINDINGS]:
                self._cells(columns, self._finding(finding, slices.get(id(finding), "")), colour=_ALARM)
            self._rest(len(report.findings) - _MOST_FINDINGS)
        for line in self._not_detected(report):
            self._line(line)

    def stacks(self, report: Report) -> None:
        self._heading(self._texts.examined)
        columns = (0, 330, 430)
        self._cells(columns, self._texts.stack_columns, colour=_GREY)
        ordered = sorted(report.examined, key=lambda row: (row.role is not Role.VOLUME, row.analysed))
        for count, row in enumerate(ordered):
            if self._y > _TABLES_END:
                self._left_out(ordered[count:])
                return
            self._stack(columns, row)

    def notes(self, notes: Sequence[str]) -> None:
        for note in notes[:_MOST_NOTES]:
            self._wrapped(self._said(note), 0, _GREY)
        self._rest(len(notes) - _MOST_NOTES)

    def pictures(self, keys: Sequence[KeyPicture], renderings: Sequence[Rgb]) -> None:
        """Fill what is left of the page: key pictures first, then renderings."""
        shown = [(key.rgb, self._caption(key)) for key in keys[:4]]
        shown += [(rgb, self._texts.rendering) for rgb in renderings[:2]]
        room = PAGE[1] - _MARGIN - 40 - self._y - 30
        side = self._side(len(shown), room)
        per_row = max(1, (PAGE[0] - 2 * _MARGIN + 12) // (side + 12))
        for n, (rgb, label) in enumerate(shown):
            left = _MARGIN + (n % per_row) * (side + 12)
            top = self._y + 16 + (n // per_row) * (side + 30)
            self.image.paste(Image.fromarray(rgb).resize((side, side), Image.Resampling.LANCZOS), (left, top))
            text = shortened(label, 15, side)
            write(self._draw, (left, top + side + 3), text, size=15, colour=_INK)

    def foot(self) -> None:
        place = (PAGE[0] // 2, PAGE[1] - _MARGIN + 8)
        write(self._draw, place, self._texts.disclaimer, size=18, colour=_ALARM, anchor="md")

    def _status(self, report: Report) -> None:
        texts = self._texts
        status = texts.statuses[report.status.value]
        urgent = report.priority is not None and report.priority.value != "routine"
        priority = texts.priorities[report.priority.value if report.priority else "unknown"]
        complete = report.status.value == "analysed"
        self._y += 6
        self._line(f"{texts.status}: {status}", size=24, colour=_INK if complete else _ALARM)
        self._line(f"{texts.priority}: {priority}", size=24, colour=_ALARM if urgent else _INK)

    def _finding(self, finding: Finding, where: str) -> tuple[str, ...]:
        texts = self._texts
        kind = texts.kinds.get(finding.kind, finding.kind)
        volume = texts.unknown if finding.volume_ml is None else f"{finding.volume_ml:.1f} ml"
        subtype = texts.subtypes.get(finding.subtype, finding.subtype)
        name = f"{kind}, {subtype}" if subtype else kind
        return name, f"{100 * finding.probability:.0f} %", volume, where, _place(finding, texts)

    def _caption(self, key: KeyPicture) -> str:
        kind = self._texts.kinds.get(key.finding.kind, key.finding.kind)
        return f"{kind}, {self._texts.finding_columns[3].lower()} {key.slice_number}"

    def _not_detected(self, report: Report) -> list[str]:
        """For each kind a detector looked for and did not find: that it was not detected, and by whom."""
        found = {finding.kind for finding in report.findings}
        lines: dict[str, None] = {}
        for run in (run for row in report.examined for run in row.detectors if run.status == "ran"):
            for kind in run.looks_for:
                if kind not in found:
                    named = self._texts.kinds.get(kind, kind)
                    lines[f"{named}: {self._texts.not_detected} {run.name} {run.version}"] = None
        return list(lines) or ([] if report.findings else [self._texts.nothing_read])

    def _stack(self, columns: tuple[int, ...], row: ExaminedStack) -> None:
        name = f"{row.series_number if row.series_number is not None else '-'}/{row.stack} {row.series_description}"
        what = tuple(f"{run.name} {self._texts.runs[run.status]}" for run in row.detectors)
        said = "; ".join(dict.fromkeys(self._said(each) for each in (*reasons_of(row), *row.notes)))
        count = f"{len(row.instances)}"
        if row.analysed:
            self._cells(columns, (name, count, "; ".join(what)))
            self._wrapped(said, columns[2], _GREY)
            return
        self._cells(columns, (name, count, ""))
        self._y -= _ROW
        colour = _ALARM if row.role is Role.VOLUME else _INK
        self._wrapped(f"{self._texts.not_analysed}: {said or self._texts.unknown}", columns[2], colour)

    def _said(self, sentence: str) -> str:
        return translated(sentence, self._language)

    def _left_out(self, rows: Sequence[ExaminedStack]) -> None:
        skipped = sum(not row.analysed for row in rows)
        self._line(self._texts.more_stacks.format(count=len(rows), skipped=skipped), colour=_ALARM)

    def _heading(self, text: str) -> None:
        self._y += 12
        self._line(text, size=22)
        self._draw.line([(_MARGIN, self._y), (PAGE[0] - _MARGIN, self._y)], fill=_RULE, width=2)
        self._y += 6

    def _line(self, text: str, *, size: int = _TEXT, colour: Colour = _INK) -> None:
        cut = shortened(text, size, PAGE[0] - 2 * _MARGIN)
        write(self._draw, (_MARGIN, self._y), cut, size=size, colour=colour)
        self._y += round(size * 1.4)

    def _wrapped(self, text: str, left: int, colour: Colour) -> None:
        for line in wrapped(text, _TEXT, PAGE[0] - 2 * _MARGIN - left)[:3]:
            write(self._draw, (_MARGIN + left, self._y), line, size=_TEXT, colour=colour)
            self._y += _ROW

    def _cells(self, columns: tuple[int, ...], texts: Sequence[str], *, colour: Colour = _INK) -> None:
        ends = (*columns[1:], PAGE[0] - 2 * _MARGIN)
        for left, end, text in zip(columns, ends, texts, strict=True):
            cut = shortened(text, _TEXT, end - left - 10)
            write(self._draw, (_MARGIN + left, self._y), cut, size=_TEXT, colour=colour)
        self._y += _ROW

    def _rest(self, count: int) -> None:
        if count > 0:
            self._line(self._texts.more.format(count=count), colour=_GREY)

    @staticmethod
    def _side(count: int, room: int) -> int:
        """The largest square so that ``count`` of them fit into what is left of the page."""
        fits = [60]
        for per_row in range(1, max(count, 1) + 1):
            rows = -(-count // per_row)
            across = (PAGE[0] - 2 * _MARGIN + 12) // per_row - 12
            fits.append(min(across, (room - 16) // max(rows, 1) - 30, 480))
        return max(fits)


def _place(finding: Finding, texts: Texts) -> str:
    """The centre in LPS millimetres, written with the letters of its sides."""
    letters = (texts.sides[0:2], texts.sides[2:4], texts.sides[4:6])
    parts = (
        f"{pair[0] if value >= 0 else pair[1]} {abs(value):.0f}"
        for pair, value in zip(letters, finding.centroid_lps_mm, strict=True)
    )
    return f"{'  '.join(parts)} mm"
