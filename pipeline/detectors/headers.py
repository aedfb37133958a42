"""Do the headers say that a series shows something else than a head?"""

import re
import unicodedata

from pipeline.model import Acquisition

FEWEST_SLICES = 8
HEAD_WORDS = frozenset({"HEAD", "BRAIN", "SKULL", "CRANEO", "CEREBRO", "CABEZA", "CRANIUM", "CEREBRAL", "NEURO"})
OTHER_WORDS = frozenset(
    {
        *("CHEST", "THORAX", "TORAX", "LUNG", "PULMON", "ABDOMEN", "PANCREAS", "LIVER", "HIGADO", "KIDNEY", "PELVIS"),
        *("SPINE", "CSPINE", "TSPINE", "LSPINE", "COLUMNA", "NECK", "CUELLO", "HEART", "CORAZON", "CARDIAC", "AORTA"),
        *("KNEE", "RODILLA", "FOOT", "PIE", "ANKLE", "TOBILLO", "HAND", "MANO", "WRIST", "SHOULDER", "HOMBRO"),
        *("HIP", "CADERA", "LEG", "PIERNA", "ARM", "BRAZO", "ELBOW", "CODO", "EXTREMITY", "EXTREMIDAD", "FEMUR"),
    }
)


def not_a_head(acquisition: Acquisition) -> str | None:
    """Return why the headers rule a head out; None where they name one, name nothing known, or are silent.

    The body part decides; only where it is absent is the description of the series asked, then that of the study.
    """
    for text in (acquisition.body_part, acquisition.series_description, acquisition.study_description):
        words = _words(text)
        if words & HEAD_WORDS:
            return None
        if words & OTHER_WORDS:
            return f"not a head: the headers say {' '.join(sorted(words & OTHER_WORDS))}"
    return None


def _words(text: str | None) -> frozenset[str]:
    plain = unicodedata.normalize("NFKD", text or "").encode("ascii", "ignore").decode()
    return frozenset(re.split(r"[^A-Z]+", plain.upper()))
