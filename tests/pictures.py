"""How far two pictures are from each other, and how a kernel is told to draw them."""

import html
import io
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

# A pixel counts as changed if a colour differs by more than this share of its range.
SHADE = 0.1
# So many of the pixels may have changed: less than one letter of a title. The same versions draw
# the same pixels.
SHARE = 0.0001
# What a training or a clock has drawn moves a little: there, what is so many pixels away is near.
REACH = 6
SQUARE = 8  # the side of what is looked at on the whole
LETTERS = re.compile(r"(?<![\\\w])[^\W\d_]{2}")  # and not a command, as in $\mathdefault{10^{3}}$


def prepare(folder: str | Path) -> None:
    """Let IPython with its folder `folder` draw as PNG and as SVG."""
    profile = Path(folder) / "profile_default"
    profile.mkdir(parents=True)
    both = "c.InlineBackend.figure_formats = {'png', 'svg'}\n"
    (profile / "ipython_kernel_config.py").write_text(both)


def words(svg: str) -> str:
    """The texts with two letters in a row; Matplotlib puts each text into a comment, too."""
    texts = map(html.unescape, re.findall(r"<!-- (.*?) -->", svg, re.DOTALL))
    return " | ".join(" ".join(text.split()) for text in texts if LETTERS.search(text))


def changed(stored: bytes, fresh: bytes) -> float:
    """The share of pixels that differ between two PNGs; 1 if their sizes do not agree."""
    if not (images := _of_one_size(stored, fresh)):
        return 1.0
    old, new = map(_pixels, images)
    difference = np.abs(old - new).max(axis=2)
    everywhere_a_little = difference.mean() / 255
    return max(float((difference > SHADE * 255).mean()), float(everywhere_a_little))


def moved(stored: bytes, fresh: bytes) -> float:
    """The share of what is drawn in one of two PNGs that is not near in the other; 1 as above.

    A pixel is near if its colours lie between the least and the greatest around its place. What
    has a colour is also taken by itself, and so is what larger squares look like on the whole.
    """
    if not (images := _of_one_size(stored, fresh)):
        return 1.0
    shares = []
    for image, other in (images, images[::-1]):
        around = (kind(2 * REACH + 1) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
        least, greatest = (_pixels(other.filter(kind)) for kind in around)
        pixels = _pixels(image)
        far = np.maximum(least - pixels, pixels - greatest).max(axis=2) > SHADE * 255
        drawn = pixels.min(axis=2) < (1 - SHADE) * 255
        coloured = pixels.max(axis=2) - pixels.min(axis=2) > SHADE * 255
        shares += [(far & of).sum() / max(of.sum(), 1) for of in (drawn, coloured)]
    old, new = (_pixels(image.reduce(SQUARE)) for image in images)
    drawn = np.minimum(old, new).min(axis=2) < (1 - SHADE) * 255
    other = np.abs(old - new).max(axis=2) > 2 * SHADE * 255
    return float(max(*shares, (other & drawn).sum() / max(drawn.sum(), 1)))


def _of_one_size(stored: bytes, fresh: bytes) -> list[Image.Image]:
    """Both on white, and so is what only one of them has; none if their sizes are far apart."""
    images = [Image.open(io.BytesIO(content)).convert("RGBA") for content in (stored, fresh)]
    sides = list(zip(*(image.size for image in images)))
    if any(abs(a - b) > 8 for a, b in sides):
        return []
    grounds = [Image.new("RGBA", tuple(map(max, sides)), "white") for _ in images]
    for ground, image in zip(grounds, images):
        ground.alpha_composite(image)
    return [ground.convert("RGB") for ground in grounds]


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def recoloured(stored: str, fresh: str) -> float:
    """The mean difference, 0 to 1, of the colours of two SVGs; 1 if their letters do not agree."""
    colour, letter = r"rgb\((\d+), (\d+), (\d+)\)", r"<text[^>]*>(.*?)</text>"
    old, new = (np.array(re.findall(colour, svg), dtype=int) for svg in (stored, fresh))
    if re.findall(letter, stored) != re.findall(letter, fresh) or old.shape != new.shape:
        return 1.0
    return float(np.abs(old - new).mean()) / 255


if __name__ == "__main__":  # SHARE STORED FRESH: fails if more than that share has moved
    share, *paths = sys.argv[1:]
    contents = [Path(path).read_bytes() for path in paths]
    if paths[0].endswith(".svg"):
        differing = recoloured(*(content.decode() for content in contents))
    else:
        differing = moved(*contents)
    print(f"{differing:.2%} of what {paths[0]} shows has moved (allowed: {float(share):.2%})")
    sys.exit(differing > float(share))
