"""Everything that pip needs, read from settings.ini: the one place where it is written."""

import sys
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

# Said here, before pip looks for versions of other packages and complains of those.
if sys.version_info < tuple(map(int, settings["min_python"].split("."))):
    sys.exit(f"{settings['lib_name']} needs Python {settings['min_python']} or newer")

LICENSES = {"apache2": "Apache-2.0"}
EXTRAS = ("dev", "bench", "check", "site")

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license=LICENSES[settings["license"]],
    keywords=settings["keywords"],
    packages=find_packages(include=[settings["lib_path"], f"{settings['lib_path']}.*"]),
    package_data={settings["lib_path"]: ["live/*", "py.typed"]},
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={part: settings[f"{part}_requirements"].split() for part in EXTRAS},
    entry_points={"console_scripts": settings["console_scripts"].split()},
)
