"""How is text in English and Spanish drawn, with no font beyond the one inside Pillow?

Pillow's built-in Aileron holds ASCII and a few signs but no accented letter; accents are drawn over plain letters.
"""

import functools
import unicodedata

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
_LIGHT = 380  # sum of red, green and blue above which text is meant for dark pictures
_INSTEAD = str.maketrans({"×": "x", "–": "-", "—": "-", "≥": ">", "≤": "<", "¿": "", "¡": "", "μ": "u", "µ": "u"})
# Combining mark -> strokes in units of the text size, about the middle of the letter's top, y upwards.
_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "\u0301": (((-0.02, 0.09), (0.10, 0.25)),),
    "\u0300": (((0.02, 0.09), (-0.10, 0.25)),),
    "\u0302": (((-0.12, 0.06), (0.0, 0.18), (0.12, 0.06)),),
    "\u030c": (((-0.12, 0.18), (0.0, 0.06), (0.12, 0.18)),),
    "\u0303": (((-0.16, 0.11), (-0.08, 0.18), (0.08, 0.11), (0.16, 0.18)),),
    "\u0308": (((-0.15, 0.13), (-0.09, 0.13)), ((0.09, 0.13), (0.15, 0.13))),
    "\u0327": (((0.02, -0.54), (0.04, -0.62), (-0.02, -0.70)),),
    "\u030a": (((-0.07, 0.12), (0.0, 0.19), (0.07, 0.12), (0.0, 0.05), (-0.07, 0.12)),),
}


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    size: int,
    colour: Colour = WHITE,
    anchor: str = "la",
) -> None:
    """Write text at Pillow's ``anchor``; on dark pictures light text gets a dark rim, so that it reads on bone too."""
    letters, marks = _parted(text)
    rim = 1 if sum(colour) > _LIGHT else 0
    left = place[0] - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * font(size).getlength(letters)
    baseline = _baseline(place[1], anchor[1], size)
    start = (left, baseline)
    draw.text(start, letters, font=font(size), fill=colour, anchor="ls", stroke_width=rim, stroke_fill=0)
    for index, mark in marks:
        end = font(size).getlength(letters[: index + 1])
        middle = left + end - font(size).getlength(letters[index]) / 2.0
        top = baseline + font(size).getbbox(letters[index], anchor="ls")[1]
        _accent(draw, (middle, top), mark, size, (colour, rim))


def width(text: str, size: int) -> float:
    """Return how many pixels wide the text is drawn."""
    return font(size).getlength(_parted(text)[0])


def shortened(text: str, size: int, limit: float) -> str:
    """Return the text, cut with an ellipsis where it is wider than ``limit`` pixels."""
    if width(text, size) <= limit:
        return text
    while text and width(text + "…", size) > limit:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, size: int, limit: float) -> list[str]:
    """Break text into lines no wider than ``limit`` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}", size) <= limit:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(shortened(word, size, limit))
    return lines


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own scalable font, so that no system font is needed."""
    built_in = ImageFont.load_default(size=size)
    if not isinstance(built_in, ImageFont.FreeTypeFont):
        raise TypeError("this build of Pillow has no FreeType; install a wheel from PyPI")
    return built_in


def _parted(text: str) -> tuple[str, list[tuple[int, str]]]:
    """Split text into plain letters and (index of letter, combining mark); what the font lacks becomes "?"."""
    letters, marks = "", []
    for character in unicodedata.normalize("NFD", text.translate(_INSTEAD)):
        if unicodedata.combining(character):
            marks.append((max(len(letters) - 1, 0), character))
        else:
            letters += character if _drawable(character) else "?"
    return letters, marks if letters else []


@functools.cache
def _drawable(character: str) -> bool:
    return character.isascii() or _drawn(character) != _drawn("\ufffe")


def _drawn(character: str) -> bytes:
    image = Image.new("L", (40, 40))
    ImageDraw.Draw(image).text((5, 5), character, font=font(20), fill=255)
    return image.tobytes()


def _baseline(y: float, vertical: str, size: int) -> float:
    ascent, descent = font(size).getmetrics()
    return y + {"a": ascent, "m": (ascent - descent) / 2.0, "s": 0.0, "d": -descent}[vertical]


def _accent(
    draw: ImageDraw.ImageDraw, top: tuple[float, float], mark: str, size: int, look: tuple[Colour, int]
) -> None:
    """Draw one mark above a letter; a mark we have no strokes for is a dot, so that it is not lost unseen."""
    colour, rim = look
    pen = max(1, round(size / 18))
    for stroke in _STROKES.get(mark, (((0.0, 0.08), (0.02, 0.08)),)):
        points = [(top[0] + x * size, top[1] - y * size) for x, y in stroke]
        if rim:
            draw.line(points, fill=(0, 0, 0), width=pen + 2 * rim)
        draw.line(points, fill=colour, width=pen)
