"""Which words do people read in the results, in English and in Spanish?"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pipeline.model import NOT_A_MEDICAL_DEVICE

Language = Literal["en", "es"]

TEXTS: Mapping[str, Mapping[Language, str]] = MappingProxyType(
    {
        # LO holds 64 characters: the disclaimer also stands in SEG's Content Description
        "disclaimer": {
            "en": NOT_A_MEDICAL_DEVICE,
            "es": "No es dispositivo médico; para investigación y apoyo al triaje",
        },
        "series.sr": {"en": "ctriage: CT triage report", "es": "ctriage: informe de triaje TC"},
        "series.seg": {"en": "ctriage: finding regions", "es": "ctriage: regiones de los hallazgos"},
        "series.key_objects": {"en": "ctriage: key images", "es": "ctriage: imágenes clave"},
        "series.rejection": {"en": "ctriage: results replaced", "es": "ctriage: resultados sustituidos"},
        "series.mpr": {
            "en": "ctriage: MPR {orientation} {thickness} mm",
            "es": "ctriage: MPR {orientation} {thickness} mm",
        },
        "series.mip": {
            "en": "ctriage: MIP {orientation} {thickness} mm",
            "es": "ctriage: MIP {orientation} {thickness} mm",
        },
        "series.minip": {
            "en": "ctriage: MinIP {orientation} {thickness} mm",
            "es": "ctriage: MinIP {orientation} {thickness} mm",
        },
        "series.isotropic": {
            "en": "ctriage: isotropic {orientation} {thickness} mm",
            "es": "ctriage: isotrópica {orientation} {thickness} mm",
        },
        "series.needle_planes": {
            "en": "ctriage: needle view {orientation} {thickness} mm",
            "es": "ctriage: vista de aguja {orientation} {thickness} mm",
        },
        "series.curved": {"en": "ctriage: curved reformat", "es": "ctriage: reformateo curvo"},
        "series.needle": {"en": "ctriage: needle view", "es": "ctriage: vista de aguja"},
        "needle.from_ap": {"en": "{angle}° from the AP line", "es": "{angle}° respecto al eje AP"},
        "needle.to_head": {"en": "{angle}° towards the head", "es": "{angle}° hacia la cabeza"},
        "needle.to_feet": {"en": "{angle}° towards the feet", "es": "{angle}° hacia los pies"},
        "series.turn": {"en": "ctriage: 3D turn, {preset}", "es": "ctriage: giro 3D, {preset}"},
        "series.surface": {"en": "ctriage: 3D model, {title}", "es": "ctriage: modelo 3D, {title}"},
        "turn.bone": {"en": "bone", "es": "hueso"},
        "turn.brain": {"en": "brain", "es": "encéfalo"},
        "turn.vessel": {"en": "vessels", "es": "vasos"},
        "surface.bone": {"en": "surface of the bone", "es": "superficie ósea"},
        "surface.skin": {"en": "surface of the skin", "es": "superficie de la piel"},
        "series.render": {"en": "ctriage: 3D rendering", "es": "ctriage: reconstrucción 3D"},
        "series.summary": {"en": "ctriage: summary page", "es": "ctriage: página de resumen"},
        "orientation.coronal": {"en": "coronal", "es": "coronal"},
        "orientation.sagittal": {"en": "sagittal", "es": "sagital"},
        "orientation.oblique": {"en": "oblique", "es": "oblicuo"},
        "orientation.axial": {"en": "axial", "es": "axial"},
        "derivation.mpr": {
            "en": "Multiplanar reformatting of the source series",
            "es": "Reformateo multiplanar de la serie de origen",
        },
        "derivation.mip": {
            "en": "Maximum intensity projection of the source series",
            "es": "Proyección de máxima intensidad de la serie de origen",
        },
        "derivation.minip": {
            "en": "Minimum intensity projection of the source series",
            "es": "Proyección de mínima intensidad de la serie de origen",
        },
        "derivation.isotropic": {
            "en": "Source series resampled to cubic voxels",
            "es": "Serie de origen remuestreada a vóxeles cúbicos",
        },
        "derivation.curved": {
            "en": "Curved multiplanar reformatting of the source series",
            "es": "Reformateo multiplanar curvo de la serie de origen",
        },
        "derivation.needle": {
            "en": "Two planes of the source series along a needle's path",
            "es": "Dos planos de la serie de origen a lo largo del trayecto de una aguja",
        },
        "derivation.turn": {
            "en": "3D renderings of the source series that turn round the patient",
            "es": "Representaciones 3D de la serie de origen que giran alrededor del paciente",
        },
        "derivation.render": {
            "en": "3D rendering of the source series",
            "es": "Representación 3D de la serie de origen",
        },
        "derivation.summary": {"en": "One-page summary of the triage", "es": "Resumen del triaje en una página"},
        "not_analysed": {"en": "NOT ANALYSED", "es": "NO ANALIZADO"},
        "status.analysed": {"en": "Analysed", "es": "Analizado"},
        "status.partly_analysed": {"en": "PARTLY ANALYSED", "es": "ANALIZADO EN PARTE"},
        "status.not_analysed": {"en": "NOT ANALYSED", "es": "NO ANALIZADO"},
        "priority.stat": {"en": "Stat", "es": "Inmediata"},
        "priority.urgent": {"en": "Urgent", "es": "Urgente"},
        "priority.routine": {"en": "Routine", "es": "Rutina"},
        "priority.unknown": {"en": "Unknown", "es": "Desconocida"},
        "role.volume": {"en": "volume", "es": "volumen"},
        "role.localizer": {"en": "localizer", "es": "localizador"},
        "role.document": {"en": "document", "es": "documento"},
        "role.derived": {"en": "derived images", "es": "imágenes derivadas"},
        "role.not_ct": {"en": "not CT", "es": "no es TC"},
        "run.declined": {"en": "declined", "es": "rechazado"},
        "run.failed": {"en": "failed", "es": "fallido"},
        "kind.hemorrhage": {"en": "hemorrhage", "es": "hemorragia"},
        "kind.fracture": {"en": "fracture", "es": "fractura"},
        "subtype.intraparenchymal": {"en": "intraparenchymal", "es": "intraparenquimatosa"},
        "subtype.undetermined": {"en": "undetermined", "es": "indeterminada"},
        "no_reason": {"en": "no detector ran", "es": "no se ejecutó ningún detector"},
        "stack": {"en": "Series {number}{name}, stack {stack}", "es": "Serie {number}{name}, bloque {stack}"},
        "line.not_analysed": {
            "en": "NOT ANALYSED: {stack} ({role}): {reason}",
            "es": "NO ANALIZADO: {stack} ({role}): {reason}",
        },
        "line.run": {
            "en": "NOT ANALYSED for {kinds} by {detector} ({status}): {stack}: {reason}",
            "es": "NO ANALIZADO en busca de {kinds} por {detector} ({status}): {stack}: {reason}",
        },
        "line.not_detected": {
            "en": "{kind}: not detected by {detector} {version} in {stack}",
            "es": "{kind}: no detectado por {detector} {version} en {stack}",
        },
        "line.also_seen": {"en": "Also seen in {stacks}", "es": "También visible en {stacks}"},
        "line.grid": {
            "en": "{stack}: examined on a regular grid; a voxel lies up to {distance} mm from an acquired slice",
            "es": "{stack}: examinado en una malla regular; un vóxel dista hasta {distance} mm de un corte adquirido",
        },
        "line.gaps": {
            "en": "{stack}: uneven slice distances: {gaps} mm instead of {step} mm",
            "es": "{stack}: distancias desiguales entre cortes: {gaps} mm en lugar de {step} mm",
        },
        "line.replaces": {
            "en": "This version ({version}) replaces an earlier one",
            "es": "Esta versión ({version}) sustituye a una anterior",
        },
        "note.undeclared_latin": {
            "en": "The source declares no character set for its accented letters; they were read as ISO_IR 100",
            "es": "El original no declara el juego de caracteres de sus acentos; se leyeron como ISO_IR 100",
        },
        "note.badly_written": {
            "en": "Badly written values of the source headers were left out: {names}",
            "es": "Se omitieron valores mal escritos de las cabeceras de origen: {names}",
        },
        "note.no_segmentation": {
            "en": "No segmentation could be made of {findings} ({error}); the report refers to the images instead",
            "es": "No se pudo segmentar {findings} ({error}); el informe remite a las imágenes en su lugar",
        },
        "note.no_key_objects": {
            "en": "The list of key images could not be made ({error})",
            "es": "No se pudo elaborar la lista de imágenes clave ({error})",
        },
        "completion": {"en": "Not every volume was analysed", "es": "No se analizaron todos los volúmenes"},
        "rejection": {
            "en": "Triage results that version {version} has replaced. The images they were made from are not rejected",
            "es": "Resultados del triaje sustituidos por la versión {version}. Las imágenes de origen no se rechazan",
        },
        "key_objects": {"en": "Slices where findings are largest", "es": "Cortes donde los hallazgos son mayores"},
    }
)


def say(key: str, language: Language, /, **values: object) -> str:
    """Return the words for ``key`` in ``language``, with ``values`` put into their places."""
    return TEXTS[key][language].format(**values)


def say_known(prefix: str, word: str, language: Language) -> str:
    """Return the words for ``prefix.word``; a word that the table does not hold (a plug-in's kind) is said as it is."""
    entry = TEXTS.get(f"{prefix}.{word}")
    return entry[language] if entry else word
