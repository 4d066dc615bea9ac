"""The notebooks of the series: those in README's map. What a reader puts beside them is theirs."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = re.findall(r"^\| \[(\w+)\]\(nbs/\w+\.ipynb\) \|", README, re.MULTILINE)
NOTEBOOKS = [ROOT / "nbs" / f"{name}.ipynb" for name in NAMES]
