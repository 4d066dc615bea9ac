"""How far two pictures are from each other, and a guard for the kernels that draw them."""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# A pixel counts as changed if a colour differs by more than this share of its range. The same
# versions draw the same pixels; what may move a little is a curve that a training has drawn.
SHADE = 0.1
# And this share of the pixels may have changed: less than one letter of a title.
SHARE = 0.0001

GUARD = """
def install(root):
    import os
    import sys

    local = ("127.0.0.1", "::1", "localhost", None, "")
    names = "mkdir rename remove rmdir link symlink truncate chmod chown utime"
    changes = {f"os.{name}" for name in names.split()}

    def inside(path):
        try:
            return os.path.realpath(os.fsdecode(path)).startswith(root + os.sep)
        except (TypeError, ValueError):
            return False

    def guard(event, arguments):
        if event in ("socket.connect", "socket.sendto"):
            address = arguments[1]
            if isinstance(address, tuple) and address[0] not in local:
                raise PermissionError(f"a notebook may not reach the network: {address}")
        elif event == "socket.getaddrinfo" and arguments[0] not in local:
            raise PermissionError(f"a notebook may not reach the network: {arguments[0]}")
        elif event == "open":
            path, mode, flags = arguments
            writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and inside(path):
                raise PermissionError(f"a notebook may not write into the repository: {path}")
        elif event in changes and any(inside(argument) for argument in arguments[:2]):
            raise PermissionError(f"a notebook may not change the repository: {arguments}")

    sys.addaudithook(guard)


"""


def guard(folder: str | Path, root: Path) -> None:
    """Put the guard where IPython with its folder `folder` runs it before anything else."""
    startup = Path(folder) / "profile_default" / "startup"
    startup.mkdir(parents=True)
    call = f"install({str(root.resolve())!r})\ndel install\n"
    (startup / "00-guard.py").write_text(GUARD + call)


def changed(stored: bytes, fresh: bytes) -> float:
    """The share of pixels that differ between two PNGs; 1 if their sizes do not agree.

    If the sizes differ by a few pixels, what is beyond the common part is compared with white.
    """
    old, new = (_pixels(content) for content in (stored, fresh))
    if max(abs(a - b) for a, b in zip(old.shape[:2], new.shape[:2])) > 8:
        return 1.0
    shape = [max(a, b) for a, b in zip(old.shape, new.shape[:2])]
    difference = np.abs(_on_white(old, *shape) - _on_white(new, *shape)).max(axis=2)
    everywhere_a_little = difference.mean() / 255
    return max(float((difference > SHADE * 255).mean()), float(everywhere_a_little))


def _on_white(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    padding = [(0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)]
    return np.pad(pixels, padding, constant_values=255)


def _pixels(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"), dtype=int)


if __name__ == "__main__":  # SHARE STORED FRESH: fails if more than that share of pixels differ
    share, *paths = sys.argv[1:]
    differing = changed(*(Path(path).read_bytes() for path in paths))
    print(f"{differing:.2%} of the pixels of {paths[0]} differ (allowed: {float(share):.2%})")
    sys.exit(differing > float(share))
