"""What does a Report look like to a program? The JSON of ``ctriage process --json``, see docs/JSON.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.model import NOT_A_MEDICAL_DEVICE, DetectorRun, ExaminedStack, Finding, Report, WorkingGrid


def study_json(
    report: Report, *, outputs: Sequence[Mapping[str, str]] = (), timings_s: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return one entry of ``studies``: plain dicts, lists, strings and numbers; every key always present."""
    return {
        "study_instance_uid": report.study_instance_uid,
        "status": report.status.value,
        "priority": report.priority.value if report.priority else None,
        "report_version": report.version,
        "series": [_series(row) for row in report.examined],
        "findings": [finding_json(finding) for finding in report.findings],
        "outputs": [dict(output) for output in outputs],
        "timings_s": {step: round(seconds, 3) for step, seconds in (timings_s or {}).items()},
        "notes": list(report.notes),
        "changes": list(report.changes),
        "provenance": {
            "code_version": report.provenance.code_version,
            "detector_versions": dict(report.provenance.detector_versions),
            "settings_hash": report.provenance.settings_hash,
            "weights_hash": report.provenance.weights_hash,
        },
        "disclaimer": NOT_A_MEDICAL_DEVICE,
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    """Return one finding: volume in mL (null where none is claimed), centroid in LPS mm."""
    return {
        "kind": finding.kind,
        "subtype": finding.subtype,
        "code": {"scheme": finding.code.scheme, "value": finding.code.value, "meaning": finding.code.meaning},
        "probability": round(finding.probability, 4),
        "volume_ml": None if finding.volume_ml is None else round(finding.volume_ml, 3),
        "centroid_lps_mm": [round(c, 2) for c in finding.centroid_lps_mm],
        "detector": finding.detector,
        "measurements": [
            {"name": m.name.meaning, "value": round(m.value, 3), "unit": m.unit.value} for m in finding.measurements
        ],
        "series_instance_uid": finding.series_instance_uid,
        "stack": finding.stack,
        "also_seen_in": [{"series_instance_uid": uid, "stack": stack} for uid, stack in finding.also_seen_in],
    }


def _series(row: ExaminedStack) -> dict[str, Any]:
    return {
        "series_instance_uid": row.series_instance_uid,
        "series_number": row.series_number,
        "series_description": row.series_description,
        "stack": row.stack,
        "role": row.role.value,
        "status": "analysed" if row.analysed else "not_analysed",
        "reason": row.reason,
        "instances": len(set(row.instances)),
        "frames": len(row.frames) or None,
        "detectors": [_detector(run) for run in row.detectors],
        "geometry": _geometry(row),
        "regularised": row.working_grid is not None,
        "working_grid": _working_grid(row.working_grid),
        "notes": list(row.notes),
    }


def _detector(run: DetectorRun) -> dict[str, Any]:
    return {"name": run.name, "version": run.version, "status": run.status, "reason": run.reason}


def _geometry(row: ExaminedStack) -> dict[str, Any] | None:
    if row.geometry is None:
        return None
    _, between_rows, between_columns = row.geometry.spacing_mm
    step = row.nominal_step_mm if row.nominal_step_mm is not None else row.geometry.slice_step_mm
    geometry = {
        "shape_kji": list(row.geometry.shape),
        "affine_kji_to_lps_mm": row.geometry.affine.tolist(),
        "tilt_deg": round(row.geometry.tilt_deg, 4),
        "spacing_mm": [round(s, 6) for s in (step, between_rows, between_columns)],
        "gaps_mm": list(row.gaps_mm),
    }
    if row.slice_positions_mm is not None:
        geometry["slice_positions_mm"] = [round(p, 4) for p in row.slice_positions_mm]
    return geometry


def _working_grid(grid: WorkingGrid | None) -> dict[str, Any] | None:
    if grid is None:
        return None
    return {
        "shape_kji": list(grid.geometry.shape),
        "affine_kji_to_lps_mm": grid.geometry.affine.tolist(),
        "max_distance_to_slice_mm": round(grid.max_distance_to_slice_mm, 4),
    }
