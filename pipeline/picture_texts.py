"""What do the words on the summary page, and the pipeline's own sentences anywhere, read in each language?"""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.model import NOT_A_MEDICAL_DEVICE

Language = Literal["en", "es"]


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


def translated(sentence: str, language: Language) -> str:
    """Return a reason, note or change that the pipeline wrote in English; one that is not known stays as it is.

    A sentence may hold others, after a name and a colon or joined by semicolons: each is looked up by itself.
    """
    return sentence if language == "en" else _in_spanish(sentence)


def _in_spanish(sentence: str) -> str:
    for pattern, spanish in _PATTERNS:
        if match := pattern.fullmatch(sentence):
            return spanish.format(**{name: _in_spanish(value) for name, value in match.groupdict().items()})
    parts = _JOINT.split(sentence)
    if len(parts) > 1:
        return "; ".join(_in_spanish(part) for part in parts)
    name, colon, rest = sentence.partition(": ")
    return f"{_in_spanish(name)}: {_in_spanish(rest)}" if colon else sentence


_JOINT = re.compile(r"; (?![^()]*\))")
"""A semicolon between sentences, not one in parentheses."""


def _pattern(template: str) -> re.Pattern[str]:
    pieces = string.Formatter().parse(template)
    return re.compile("".join(re.escape(text) + (f"(?P<{name}>.+?)" if name else "") for text, name, _, _ in pieces))


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

SENTENCES: Mapping[str, str] = {
    # what an instance is
    "a document ({modality}), not an image of the patient": "un documento ({modality}), no una imagen del paciente",
    "modality {modality}, not CT": "modalidad {modality}, no TC",
    "not stated": "sin indicar",
    "a page or screen capture, not a CT image": "una página o captura de pantalla, no una imagen de TC",
    "a localizer (scout), not a cross-section": "un localizador (scout), no un corte transversal",
    "reformatted from another series": "reformateado a partir de otra serie",
    "not Hounsfield units (a material or effective-Z map)": (
        "no son unidades Hounsfield (un mapa de material o de Z efectiva)"
    ),
    "not Hounsfield units (rescale type {type})": "no son unidades Hounsfield (tipo de reescalado {type})",
    "not Hounsfield units (no rescale slope and intercept)": (
        "no son unidades Hounsfield (faltan pendiente e intersección de reescalado)"
    ),
    "the rescale slope or intercept is no usable number": (
        "la pendiente o la intersección de reescalado no es un número utilizable"
    ),
    "{count} frames announced, but a CT instance holds {least} to {most}": (
        "se anuncian {count} fotogramas, pero una instancia de TC contiene de {least} a {most}"
    ),
    "functional groups describe {count} of {all} frames": (
        "los grupos funcionales describen {count} de {all} fotogramas"
    ),
    "the functional groups of a frame are damaged": "los grupos funcionales de un fotograma están dañados",
    "frames distorted in space (a curved reformat)": "fotogramas distorsionados en el espacio (un reformateo curvo)",
    "its frames do not fit into memory": "sus fotogramas no caben en la memoria",
    # what forms no volume
    "{count} slice(s): fewer than {least} are no volume": "{count} corte(s): menos de {least} no forman un volumen",
    "only {count} slice positions: fewer than {least} are no volume": (
        "solo {count} posiciones de corte: menos de {least} no forman un volumen"
    ),
    "all {count} slices lie at the same position": "los {count} cortes están en la misma posición",
    "several slices lie at the same position": "varios cortes están en la misma posición",
    "{count} slice(s) repeat positions of another stack of this series": (
        "{count} corte(s) repiten posiciones de otro bloque de esta serie"
    ),
    "slices of different matrix sizes": "cortes con matrices de distinto tamaño",
    "slices of different frames of reference": "cortes con distintos marcos de referencia",
    "slices of different orientation or pixel spacing": "cortes con distinta orientación o espaciado de píxel",
    "slices lie up to {distance} mm apart; no patient is that long": (
        "hay cortes a {distance} mm entre sí; ningún paciente es tan largo"
    ),
    "slices are shifted sideways against each other, by up to {distance} mm": (
        "los cortes están desplazados lateralmente entre sí, hasta {distance} mm"
    ),
    "a slice has no Image Position (Patient)": "un corte carece de Image Position (Patient)",
    "a slice has no Image Orientation (Patient)": "un corte carece de Image Orientation (Patient)",
    "a slice has no Pixel Spacing": "un corte carece de Pixel Spacing",
    "a slice's Image Position (Patient) holds values that are no numbers": (
        "Image Position (Patient) de un corte contiene valores que no son números"
    ),
    "a slice's Image Position (Patient) lies more than {distance} m from the origin": (
        "Image Position (Patient) de un corte está a más de {distance} m del origen"
    ),
    "the Image Orientation (Patient) is no rotation": "Image Orientation (Patient) no es una rotación",
    "a Pixel Spacing of {size} is none": "un Pixel Spacing de {size} no es válido",
    "a Pixel Spacing of {size} is too wide for a patient": (
        "un Pixel Spacing de {size} es demasiado ancho para un paciente"
    ),
    "{size} pixels announced; no CT image is that large": (
        "se anuncian {size} píxeles; ninguna imagen de TC es tan grande"
    ),
    "{count} slice(s) lie away from the line of the others, by up to {distance} mm": (
        "{count} corte(s) quedan apartados de la línea de los demás, hasta {distance} mm"
    ),
    "a straight grid of {size} voxels of {spacing} is too large to be held; take {least} mm or more": (
        "una rejilla recta de {size} vóxeles de {spacing} es demasiado grande; use {least} mm o más"
    ),
    "{count} slices of {size} pixels do not fit into memory": "{count} cortes de {size} píxeles no caben en la memoria",
    "{count} slices would inflate from {small} kB to {large} MB; no scan compresses so far": (
        "{count} cortes se inflarían de {small} kB a {large} MB; ningún estudio se comprime tanto"
    ),
    "its volume does not fit into memory": "su volumen no cabe en la memoria",
    "none of its {count} images can be read": "no se puede leer ninguna de sus {count} imágenes",
    "{count} image(s) could not be read": "no se pudieron leer {count} imágenes",
    "no volume": "sin volumen",
    "slice {number}": "corte {number}",
    "the pixel data is missing": "faltan los datos de píxel",
    "the pixel data is cut off: {found} of {expected} bytes": (
        "los datos de píxel están truncados: {found} de {expected} bytes"
    ),
    "the compressed pixel data is cut off": "los datos de píxel comprimidos están truncados",
    "the compressed pixel data is damaged ({error})": "los datos de píxel comprimidos están dañados ({error})",
    "transfer syntax {uid} is not supported": "la sintaxis de transferencia {uid} no está admitida",
    "not a DICOM file": "no es un archivo DICOM",
    "damaged DICOM file": "archivo DICOM dañado",
    "the file is cut off": "el archivo está truncado",
    # why a detector did not look
    "no detector is switched on": "no hay ningún detector activado",
    "contrast medium was given: it looks like blood": "se administró contraste: se parece a la sangre",
    "slices of {thickness} mm are too thick (at most {most} mm)": (
        "los cortes de {thickness} mm son demasiado gruesos (como máximo {most} mm)"
    ),
    "fewer than {count} slices": "menos de {count} cortes",
    "not a head: the headers say {words}": "no es una cabeza: las cabeceras DICOM dicen {words}",
    "no skull around a brain found in the image": ("no se encontró en la imagen un cráneo que rodee un encéfalo"),
    "what the skull holds is {level} HU": "el contenido del cráneo es de {level} UH",
    "the image is too noisy for blood to be told apart ({level} HU)": (
        "la imagen tiene demasiado ruido para distinguir sangre ({level} UH)"
    ),
    "nothing detected, but the head is not wholly seen ({where})": (
        "nada detectado, pero la cabeza no se ve entera ({where})"
    ),
    "only {volume} mL of it are in the image": "solo {volume} mL de ella están en la imagen",
    "the head is cut off at the {end}": "la cabeza está cortada {end}",
    "top": "por arriba",
    "bottom": "por abajo",
    "only {share} of the skull's vault are in the image": "solo el {share} de la bóveda craneal está en la imagen",
    "nothing detected, but only {share} of the skull's vault are in the image": (
        "nada detectado, pero solo el {share} de la bóveda craneal está en la imagen"
    ),
    # what is noted of a stack
    "covered by series {number}, stack {stack} of the same scan": (
        "cubierto por la serie {number}, bloque {stack} del mismo estudio"
    ),
    "slices are unevenly spaced: {count} of the distances differ from {step} mm": (
        "los cortes están espaciados de forma desigual: {count} de las distancias difieren de {step} mm"
    ),
    "{count} slice(s) seem to be missing: {gaps} gap(s) of a multiple of {step} mm": (
        "parecen faltar {count} corte(s): {gaps} hueco(s) de un múltiplo de {step} mm"
    ),
    "small differences of the slice distances add up to {distance} mm": (
        "pequeñas diferencias de las distancias entre cortes suman {distance} mm"
    ),
    "{count} slice(s) name no frame of reference; the one of the series is taken": (
        "{count} corte(s) no nombran marco de referencia; se toma el de la serie"
    ),
    "slices are turned or shifted by up to {distance} mm against the common grid": (
        "hay cortes girados o desplazados hasta {distance} mm respecto a la rejilla común"
    ),
    "a gantry tilt of {stated} degrees is stated, the slices lie at {found}: they are followed": (
        "se indica una inclinación del gantry de {stated} grados, los cortes están a {found}: valen los cortes"
    ),
    "a distance of {stated} mm between slices is stated, they lie {found} apart: they are followed": (
        "se indica una distancia de {stated} mm entre cortes, están a {found}: valen los cortes"
    ),
    "the slices' positions run against their instance numbers at {count} place(s): they are followed": (
        "las posiciones de los cortes contradicen sus números de instancia en {count} lugar(es): valen las posiciones"
    ),
    "every slice names a frame of reference of its own; it is taken as not stated": (
        "cada corte nombra un marco de referencia propio; se toma como no indicado"
    ),
    "rescale slope {slope}: Hounsfield units are rounded, by at most 0.5": (
        "pendiente de reescalado {slope}: las unidades Hounsfield se redondean, como máximo en 0.5"
    ),
    "{count} voxels lie outside -32768..32767 HU and were saturated": (
        "{count} vóxeles quedan fuera de -32768..32767 UH y se saturaron"
    ),
    "padded pixels hold no measurement and are masked": "los píxeles de relleno no contienen medida y se enmascaran",
    "a finding ({kind}) is shown at the nearest voxel, without its size": (
        "un hallazgo ({kind}) se muestra en el vóxel más próximo, sin su tamaño"
    ),
    "no pictures": "sin imágenes derivadas",
    "no further pictures": "sin más imágenes derivadas",
    "no 3D rendering": "sin reconstrucción 3D",
    "no turning rendering ({preset})": "sin reconstrucción 3D giratoria ({preset})",
    "no surface ({tissue})": "sin superficie ({tissue})",
    "they do not fit into memory": "no caben en la memoria",
    # why there is no rendering or surface
    "no bone in the image": "no hay hueso en la imagen",
    "no brain in the region given": "no hay encéfalo en la región indicada",
    "nothing as bright as contrast medium but bone": "nada tan brillante como el medio de contraste salvo el hueso",
    "the brain is shown only where a region says what is brain: none was given": (
        "el encéfalo solo se muestra donde una región indica qué es encéfalo: no se dio ninguna"
    ),
    "the rendering failed: {reason}": "la reconstrucción 3D falló: {reason}",
    "it took longer than {limit} s": "tardó más de {limit} s",
    "it does not fit into memory": "no cabe en la memoria",
    "its process could not be started ({reason})": "no se pudo iniciar su proceso ({reason})",
    "its process ended by {signal}": "su proceso terminó por {signal}",
    "its process failed with status {status}": "su proceso falló con el estado {status}",
    "a turn of {count} frames: {least} to {most} can be made": (
        "un giro de {count} fotogramas: se pueden hacer de {least} a {most}"
    ),
    "a picture of {size} pixels: {least} to {most} can be made": (
        "una imagen de {size} píxeles: se pueden hacer de {least} a {most}"
    ),
    "a sheared volume cannot be rendered; regularise it first": (
        "un volumen inclinado no se puede mostrar en 3D; regularícelo antes"
    ),
    "the region to show lies on another grid than the volume": (
        "la región que se ha de mostrar está en otra rejilla que el volumen"
    ),
    "no {tissue} in the image: nothing of {volume} mL above {level} HU": (
        "no hay {tissue} en la imagen: nada de {volume} mL por encima de {level} UH"
    ),
    "no surface of the {tissue}: {reason}": "sin superficie ({tissue}): {reason}",
    "the surface of the {tissue} is not closed: {reason}": "la superficie ({tissue}) no está cerrada: {reason}",
    "a sheared volume has no surface here; regularise it first": (
        "un volumen inclinado no tiene superficie aquí; regularícelo antes"
    ),
    "bone": "hueso",
    "skin": "piel",
    # what a new version changes
    "findings: {before} before, {now} now": "hallazgos: {before} antes, {now} ahora",
    "priority: {before} before, {now} now": "prioridad: {before} antes, {now} ahora",
    "status: {before} before, {now} now": "estado: {before} antes, {now} ahora",
    "{series}: {before} images before, {now} now": "{series}: {before} imágenes antes, {now} ahora",
    "{series} added, {what}": "{series} añadida, {what}",
    "series {number}, stack {stack}": "serie {number}, bloque {stack}",
    "made with another version of the software or of a detector, or with other settings": (
        "hecho con otra versión del programa o de un detector, o con otros ajustes"
    ),
    "stat": "inmediata",
    "urgent": "urgente",
    "routine": "rutina",
    "unknown": "desconocida",
    "analysed": "analizado",
    "partly_analysed": "analizado en parte",
    "not_analysed": "no analizado",
    "not analysed": "no analizado",
}
"""The pipeline's sentences with their places, and the same in Spanish."""

_PATTERNS = tuple((_pattern(english), spanish) for english, spanish in SENTENCES.items())
