"""Draws ``sprites.png`` from Noto Color Emoji: ``python -m attncontrol.sprites.training.atlas
FONT.ttf``."""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from attncontrol.sprites.scenes import CELL, NOUNS

_GLYPHS = "🐱🐕🐦🐻🦁🐴🐘🐵🐸🐢🐇🐭🎒👓👑🧳🪑🎈🎀🚗🥣🛋⏰🍎"


def draw(font_path: str) -> Image.Image:
    """Atlas of 2 x 12 cells; every glyph is scaled to the same geometric mean of width and height,
    within its cell."""
    font = ImageFont.truetype(font_path, 109)
    atlas = Image.new("RGBA", (12 * CELL, 2 * CELL))
    for i, (noun, glyph) in enumerate(zip(NOUNS, _GLYPHS, strict=True)):
        picture = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(picture).text((0, 0), glyph, font=font, embedded_color=True)
        picture = picture.crop(picture.getchannel("A").getbbox())
        if noun == "bench":  # the sofa without its lamp
            picture = picture.crop((0, picture.height * 47 // 100, picture.width, picture.height))
        scale = min(64 / (picture.width * picture.height) ** 0.5, CELL / max(picture.size))
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        atlas.paste(
            picture, (i % 12 * CELL + (CELL - size[0]) // 2, i // 12 * CELL + (CELL - size[1]) // 2)
        )
    return atlas


if __name__ == "__main__":
    draw(sys.argv[1]).save(Path(__file__).parents[1] / "sprites.png", optimize=True)
