"""Interleaved rounds, and results stored with all that is needed to judge them."""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(
    candidates: dict[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round: A B A B …; `warmup` rounds come first, dropped."""
    seconds = {name: [] for name in candidates}
    for _ in range(warmup + rounds):
        for name, run in candidates.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return {name: times[warmup:] for name, times in seconds.items()}


def spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Ours over theirs, round by round: below 1 means that ours is smaller."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval (95 %) for a share of which `right` of `n` were seen."""
    share, spread2 = right / n, z * z / n
    middle = (share + spread2 / 2) / (1 + spread2)
    half = z / (1 + spread2) * math.sqrt(share * (1 - share) / n + spread2 / (4 * n))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def machine() -> dict[str, object]:
    """The processor, and the versions that the figures depend on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [s.split(":")[1] for s in cpuinfo.read_text().splitlines() if "model name" in s]
        processor = names[0].strip() if names else processor
    versions = {"python": platform.python_version()}
    for package in ("torch", "x-transformers", "transformers"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions,
    }


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def store(name: str, rows: list[dict], folder: Path, **settings: object) -> None:
    """Write one study's rows to folder/NAME.json, all or nothing."""
    result = {
        "command": f"python -m benchmarks {name}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine() | ({"gpu": _gpu()} if name.startswith("gpu") else {}),
        "settings": settings,
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{name}.json"
    text = json.dumps({**result, "rows": []}, indent=1, ensure_ascii=False)
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    unfinished.write_text(text.replace('"rows": []', f'"rows": [\n{lines}\n ]') + "\n")
    unfinished.replace(folder / f"{name}.json")


def read(name: str, folder: Path = RESULTS) -> dict:
    """A stored result. Raises FileNotFoundError, with the command to run, if there is none.

    One without rows is a ValueError.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no stored result {path.name}: run python -m benchmarks {name}")
    result = json.loads(path.read_text())
    if not result["rows"]:
        raise ValueError(f"no rows in {path.name}: run python -m benchmarks {name}")
    return result


def show(rows: list[dict]) -> None:
    """The rows as an aligned table; spreads as min / median / max."""
    cells = [[_text(value) for value in row.values()] for row in rows]
    names = list(rows[0])
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for line in [names, *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " / ".join(_text(part) for part in value.values())
    if isinstance(value, list):
        return " ".join(_text(part) for part in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
