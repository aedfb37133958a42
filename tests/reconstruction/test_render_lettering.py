"""Names keep their accents on pictures, though the built-in font has none."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from reconstruction.lettering import shortened, width, wrapped, write


def drawn(text: str) -> bytes:
    image = Image.new("RGB", (400, 40))
    write(ImageDraw.Draw(image), (5, 8), text, size=20)
    return image.tobytes()


@pytest.mark.parametrize(("accented", "plain"), list(zip("ñáéíóúüÑÁçö", "naeiouuNAco", strict=True)))
def test_an_accented_letter_differs_from_the_plain_one(accented: str, plain: str) -> None:
    assert drawn(accented) != drawn(plain)
    assert drawn(accented) != drawn("?")


def test_the_degree_sign_is_in_the_font() -> None:
    assert drawn("18°") not in {drawn("18"), drawn("18?")}


def test_a_letter_the_font_lacks_is_shown_as_a_question_mark() -> None:
    assert drawn("中") == drawn("?")


def test_an_accent_stands_over_its_letter_wherever_the_text_is_anchored() -> None:
    for anchor, x in (("la", 10), ("ma", 200), ("ra", 390), ("ld", 10), ("lm", 10)):
        plain, accented = (Image.new("RGB", (400, 60)) for _ in range(2))
        write(ImageDraw.Draw(plain), (x, 30), "nun", size=20, anchor=anchor)
        write(ImageDraw.Draw(accented), (x, 30), "nuñ", size=20, anchor=anchor)
        rows, columns = np.nonzero((np.asarray(plain) != np.asarray(accented)).any(axis=-1))
        letters = np.nonzero(np.asarray(plain).any(axis=-1))
        assert rows.max() <= letters[0].min() + 3
        assert columns.min() > np.median(letters[1])


def test_long_text_is_broken_or_cut_to_its_width() -> None:
    text = "not detected by hemorrhage 0.1.0 in stack 1 of the series"
    assert " ".join(wrapped(text, 18, 200)) == text
    assert max(width(line, 18) for line in wrapped(text, 18, 200)) <= 200
    assert width(shortened(text, 18, 150), 18) <= 150
