"""What do the words on the summary page read in each language?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.model import NOT_A_MEDICAL_DEVICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The page's words in one language. ``sides`` are the letters of +x -x +y -y +z -z in the patient (LPS)."""

    title: str
    study: str
    version: str
    changed: str
    status: str
    priority: str
    findings: str
    examined: str
    rendering: str
    not_detected: str
    not_analysed: str
    nothing_read: str
    unknown: str
    more: str
    more_stacks: str
    disclaimer: str
    finding_columns: tuple[str, str, str, str, str]
    stack_columns: tuple[str, str, str]
    statuses: Mapping[str, str]
    priorities: Mapping[str, str]
    kinds: Mapping[str, str]
    runs: Mapping[str, str]
    subtypes: Mapping[str, str] = field(default_factory=dict)
    sides: str = "LRPAHF"


_ENGLISH = Texts(
    title="CT triage summary",
    study="Study",
    version="version",
    changed="Changed",
    status="Study",
    priority="Priority",
    findings="Findings",
    examined="Series and stacks",
    rendering="bone, 3D rendering",
    not_detected="not detected by",
    not_analysed="NOT ANALYSED",
    nothing_read="NOT ANALYSED: no detector read any series of this study",
    unknown="not known",
    more="... and {count} more; see the structured report",
    more_stacks="... and {count} more, {skipped} of them NOT ANALYSED; see the structured report",
    disclaimer=NOT_A_MEDICAL_DEVICE,
    finding_columns=("Finding", "Probability", "Volume", "Slice", "Centre (LPS)"),
    stack_columns=("Series/stack", "Images", "Result"),
    statuses={"analysed": "analysed", "partly_analysed": "PARTLY ANALYSED", "not_analysed": "NOT ANALYSED"},
    priorities={"stat": "STAT", "urgent": "URGENT", "routine": "routine", "unknown": "unknown"},
    kinds={"hemorrhage": "Intracranial hemorrhage", "fracture": "Skull fracture"},
    runs={"ran": "ran", "declined": "declined", "failed": "FAILED"},
)

_SPANISH = Texts(
    title="Resumen del triaje de TC",
    study="Estudio",
    version="versión",
    changed="Cambios",
    status="Estudio",
    priority="Prioridad",
    findings="Hallazgos",
    examined="Series y bloques",
    rendering="hueso, reconstrucción 3D",
    not_detected="no detectado por",
    not_analysed="NO ANALIZADO",
    nothing_read="NO ANALIZADO: ningún detector leyó serie alguna de este estudio",
    unknown="se desconoce",
    more="... y {count} más; véase el informe estructurado",
    more_stacks="... y {count} más, {skipped} de ellos SIN ANALIZAR; véase el informe estructurado",
    disclaimer="No es un dispositivo médico; para investigación y apoyo al triaje",
    finding_columns=("Hallazgo", "Probabilidad", "Volumen", "Corte", "Centro (LPS)"),
    stack_columns=("Serie/bloque", "Imágenes", "Resultado"),
    statuses={
        "analysed": "analizado",
        "partly_analysed": "ANALIZADO EN PARTE",
        "not_analysed": "NO ANALIZADO",
    },
    priorities={"stat": "INMEDIATA", "urgent": "URGENTE", "routine": "rutina", "unknown": "desconocida"},
    kinds={"hemorrhage": "Hemorragia intracraneal", "fracture": "Fractura de cráneo"},
    runs={"ran": "ejecutado", "declined": "rechazado", "failed": "FALLIDO"},
    subtypes={
        "intraparenchymal": "intraparenquimatosa",
        "intraventricular": "intraventricular",
        "extra-axial": "extraaxial",
        "subdural": "subdural",
        "epidural": "epidural",
        "subarachnoid": "subaracnoidea",
        "undetermined": "indeterminada",
        "depressed": "con hundimiento",
        "linear": "lineal",
    },
)

TEXTS: Mapping[str, Texts] = {"en": _ENGLISH, "es": _SPANISH}
