"""The pipeline's own sentences in the language people read."""

import string
from pathlib import Path

import pytest

from pipeline import picture_texts
from pipeline.picture_texts import SENTENCES, translated

ROOT = Path(picture_texts.__file__).parents[1]


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_sentence_keeps_its_places_and_can_be_written_in_latin_1() -> None:
    for english, spanish in SENTENCES.items():
        assert places(english) == places(spanish)
        assert spanish.encode("latin-1")
        assert not {"normal", "ausente", "negativo"} & set(spanish.split())


def test_every_sentence_is_one_that_the_code_still_writes() -> None:
    files = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("reconstruction/*.py"), ROOT / "pacs_bridge" / "work.py"]
    code = "".join(path.read_text() for path in files if path.name != "picture_texts.py")
    unknown = [each for each in SENTENCES if max(literals(each), key=len).strip() not in code]
    assert [] == unknown


def literals(text: str) -> list[str]:
    return [literal for literal, *_ in string.Formatter().parse(text)]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("modality MR, not CT", "modalidad MR, no TC"),
        ("2 slice(s): fewer than 3 are no volume", "2 corte(s): menos de 3 no forman un volumen"),
        ("findings: 1 before, 2 now", "hallazgos: 1 antes, 2 ahora"),
        ("priority: stat before, unknown now", "prioridad: inmediata antes, desconocida ahora"),
        ("series 2, stack 1: 20 images before, 21 now", "serie 2, bloque 1: 20 imágenes antes, 21 ahora"),
        ("series ?, stack 1 added, not analysed", "serie ?, bloque 1 añadida, no analizado"),
        (
            "nothing detected, but the head is not wholly seen (the head is cut off at the top; a new reason)",
            "nada detectado, pero la cabeza no se ve entera (la cabeza está cortada por arriba; a new reason)",
        ),
        (
            "covered by series 3, stack 1 of the same scan; hemorrhage: fewer than 8 slices; mine: new; another",
            "cubierto por la serie 3, bloque 1 del mismo estudio; hemorrhage: menos de 8 cortes; mine: new; another",
        ),
        (
            "skull_fracture: no volume: all 4 slices lie at the same position",
            "skull_fracture: sin volumen: los 4 cortes están en la misma posición",
        ),
        (
            "4 image(s) could not be read: the file is cut off",
            "no se pudieron leer 4 imágenes: el archivo está truncado",
        ),
        ("the rendering failed: it took longer than 60.5 s", "la reconstrucción 3D falló: tardó más de 60.5 s"),
        (
            "no surface of the bone: its process ended by SIGKILL",
            "sin superficie (hueso): su proceso terminó por SIGKILL",
        ),
        (
            "no skin in the image: nothing of 1 mL above -300 HU",
            "no hay piel en la imagen: nada de 1 mL por encima de -300 UH",
        ),
        (
            "the brain is shown only where a region says what is brain: none was given",
            "el encéfalo solo se muestra donde una región indica qué es encéfalo: no se dio ninguna",
        ),
        ("a plug-in's own words: nobody knows", "a plug-in's own words: nobody knows"),
    ],
)
def test_a_known_sentence_is_said_in_spanish_with_its_values_an_unknown_one_as_it_is(
    sentence: str, expected: str
) -> None:
    assert expected == translated(sentence, "es")
    assert sentence == translated(sentence, "en")
