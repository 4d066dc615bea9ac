"""The device is there before the library is imported."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import device

device.begin()
