"""Digital patients with known truth, and lesions put into any volume: for demo, tests and benchmarks."""

from pipeline.phantom.implant import Implanted, implant_bleed
from pipeline.phantom.patient import KINDS, BleedWish, FractureWish, Patient, make_patient
from pipeline.phantom.scan import ScanOptions
from pipeline.phantom.series import WrittenSeries, write_series

__all__ = [
    "KINDS",
    "BleedWish",
    "FractureWish",
    "Implanted",
    "Patient",
    "ScanOptions",
    "WrittenSeries",
    "implant_bleed",
    "make_patient",
    "write_series",
]
