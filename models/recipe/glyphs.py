"""Renders clean glyph masks of 62 classes from Debian's font packages into `glyphs.npz`.

The file holds, one row per face (a family in one style):
    masks   uint8[face, 62, 48, 48]   ink coverage in 16 grey levels, 0 is paper
    family, style, clan   str[face]
    is_test bool[face]                families that training never sees
    debian  str                       version of Debian whose packages were rendered
"""

from __future__ import annotations

import argparse
import hashlib
import re
import string
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
GLYPHS = HERE / "glyphs.npz"
CLASSES = string.digits + string.ascii_uppercase + string.ascii_lowercase
SIZE = 48
FACES_PER_FAMILY = 4
TEST_SHARE = 0.25
SPLIT_SEED = "halpc glyphs 1"

# Symbols, ornaments, mathematical or non-Latin companions of families that are rendered anyway.
NOT_TEXT = re.compile(
    r"D050000L|Symbol|Initials|Keyboard|Keyfont|Math|STIX(?!General$)|Tamil|"
    r"Smallcaps|Caps$|Titling|Monoisome|unifur|Irianis ADF Style|"
    r"Noto (?!Sans$|Serif$|Sans Mono$|Sans Display$|Serif Display$)|Looped|Euterpe|junkyard|wargames|penguin",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Face:
    """One font file: a family in one style, and the clan of designs it belongs to."""

    path: Path
    family: str
    style: str
    clan: str


def clans() -> dict[str, list[str]]:
    """Reads fonts.txt: the Debian packages of each clan."""
    lines = (HERE / "fonts.txt").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line and not line.startswith("#"))
    return {name: packages.split() for name, packages in pairs}


def is_test_clan(clan: str) -> bool:
    """Whether a clan's families are kept from training; a hash decides, so that adding one moves no other."""
    digest = hashlib.sha256(f"{SPLIT_SEED}/{clan}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def font_files(package: str) -> list[Path]:
    """Outline font files of an installed Debian package."""
    listing = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=True)
    paths = (Path(line) for line in listing.stdout.splitlines())
    return sorted(path for path in paths if path.suffix.lower() in {".ttf", ".otf"})


def faces() -> list[Face]:
    """At most FACES_PER_FAMILY faces of every family, spread over its styles; each (family, style) once."""
    families: dict[str, dict[str, Face]] = defaultdict(dict)
    for clan, packages in clans().items():
        for path in (path for package in packages for path in font_files(package)):
            family, style = ImageFont.truetype(str(path), 16).getname()
            family, style = str(family), str(style)
            if not NOT_TEXT.search(family):
                known = families[family].setdefault(style, Face(path, family, style, clan))
                if known.clan != clan:
                    raise ValueError(f"fonts.txt: family {family} is in clans {known.clan} and {clan}; make them one")
    return [face for family in sorted(families) for face in _spread(families[family])]


def _spread(styles: dict[str, Face]) -> list[Face]:
    """The plainest style first, then styles evenly spaced over the sorted rest."""
    order = sorted(styles, key=lambda style: (style.lower() not in {"regular", "book", "medium", "roman"}, style))
    rest = order[1:]
    wanted = FACES_PER_FAMILY - 1
    if len(rest) > wanted:
        rest = [rest[index * (len(rest) - 1) // (wanted - 1)] for index in range(wanted)]
    return [styles[style] for style in [order[0], *rest]]


def render(face: Face) -> np.ndarray | None:
    """Glyph masks uint8[62, 48, 48] of a face, or None where it cannot tell the classes apart.

    All glyphs of a face share one size and one baseline, so that o and O differ; each is centred in width.
    """
    probe = ImageFont.truetype(str(face.path), 100)
    boxes = [probe.getbbox(char, anchor="ls") for char in CLASSES]
    left, top, right, bottom = (np.array(side, dtype=float) for side in zip(*boxes, strict=True))
    if (right - left).min() <= 0 or (bottom - top).min() <= 0:
        return None
    top, bottom = np.quantile(top, 0.04), np.quantile(bottom, 0.96)  # a few swashes may leave the canvas
    scale = min((SIZE - 3) / (bottom - top), (SIZE - 2) / np.quantile(right - left, 0.96))
    font = ImageFont.truetype(str(face.path), 100 * scale)
    baseline = SIZE / 2 - scale * (top + bottom) / 2
    masks = np.stack([_draw(font, char, baseline) for char in CLASSES])
    return masks if _is_legible(masks) and not _lacks_glyphs(font) else None


def _draw(font: ImageFont.FreeTypeFont, char: str, baseline: float) -> np.ndarray:
    """One glyph on a 48x48 canvas, in 16 grey levels (a third of the file size of 256)."""
    canvas = Image.new("L", (SIZE, SIZE))
    left, _, right, _ = font.getbbox(char, anchor="ls")
    ImageDraw.Draw(canvas).text((SIZE / 2 - (left + right) / 2, baseline), char, fill=255, font=font, anchor="ls")
    return (np.asarray(canvas).astype(np.uint16) * 15 + 127) // 255 * 17


def _lacks_glyphs(font: ImageFont.FreeTypeFont) -> bool:
    """Whether some class shows the font's 'missing glyph' box."""
    missing = bytes(font.getmask("\uffff"))
    return any(bytes(font.getmask(char)) == missing for char in CLASSES)


def _is_legible(masks: np.ndarray) -> bool:
    """Refuses empty glyphs and fonts that draw small capitals for lower case."""
    if (masks.max(axis=(1, 2)) < 128).any():
        return False
    pairs = [(CLASSES.index(char.upper()), CLASSES.index(char)) for char in "abdefghnqrt"]
    alike = sum(_overlap(masks[upper], masks[lower]) > 0.8 for upper, lower in pairs)
    return alike < 4


def _overlap(one: np.ndarray, two: np.ndarray) -> float:
    """Intersection over union of two glyphs stretched to the same box."""
    first, second = (np.asarray(_crop(mask).resize((24, 24))) / 255 for mask in (one, two))
    return float(np.minimum(first, second).sum() / np.maximum(first, second).sum())


def _crop(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8))
    return image.crop(image.getbbox())


def _rendered() -> Iterator[tuple[Face, np.ndarray]]:
    seen: set[bytes] = set()
    for face in faces():
        masks = render(face)
        if masks is None or masks.tobytes() in seen:
            print(f"left out: {face.family} {face.style}")
            continue
        seen.add(masks.tobytes())
        yield face, masks.astype(np.uint8)


def main() -> None:
    """Renders every family and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=GLYPHS)
    out = parser.parse_args().out
    kept, masks = zip(*_rendered(), strict=True)
    np.savez_compressed(
        out,
        masks=np.stack(masks),
        family=np.array([face.family for face in kept]),
        style=np.array([face.style for face in kept]),
        clan=np.array([face.clan for face in kept]),
        is_test=np.array([is_test_clan(face.clan) for face in kept]),
        debian=np.array(Path("/etc/debian_version").read_text().strip()),
    )
    for split, wanted in (("train", False), ("test", True)):
        families = {face.family for face in kept if is_test_clan(face.clan) == wanted}
        print(f"{len(families)} {split} families")
    print(f"{len(kept)} faces, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
