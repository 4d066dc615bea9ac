"""What the length study found: its tables, its musts and its picture."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .common import spread, wilson
from .length import ALL, HOUSE, TRACKS

LINES = {
    "none": ("#999999", ":"),
    "sinusoidal": ("#e0a458", "-"),
    "learned": ("#b5651d", "--"),
    "rotary": ("#c0504d", "-"),
    "alibi": ("#8c6bb1", "-"),
    "buckets": ("#5b8c5a", "-"),
    "local": ("#7f7f00", ":"),
    "end_alibi": ("#6fb7d6", "-"),
    "end_window": ("#1f6f8b", "-"),
    "two_way": ("#0b2f3d", "--"),
}


def cells(rows: list[dict], track: str, scheme: str, what: str = "reverse") -> Iterator[dict]:
    """The tests of all seeds, one by one."""
    for row in rows:
        if (row["track"], row["scheme"]) == (track, scheme):
            names, tests = list(row["tests"]), row["tests"].values()
            for values in zip(*tests, strict=True):
                test = dict(zip(names, values))
                if test["what"] == what:
                    yield {"seed": row["seed"], **test}


def shares(rows: list[dict], *which: str) -> dict[int, list[float]]:
    """For each length, the share of exact strings in each seed; `which` as for `cells`."""
    found = {}
    for test in cells(rows, *which):
        found.setdefault(test["length"], []).append(test["exact"] / test["n"])
    return found


def house(rows: list[dict], shown: tuple[int, ...] = (20, 21, 25, 30, 40, 100, 1000)) -> list[dict]:
    """Exact match of all schemes, trained on 1 to 20 letters: median, least and greatest seed."""
    which = [(scheme, ("house", scheme)) for scheme in ALL]
    for scheme in TRACKS["copy or reverse"].schemes:
        both = [(f"{scheme}, told to {w}", ("copy or reverse", scheme, w)) for w in WAYS]
        which += both
    table = []
    for name, key in which:
        mine = [row for row in rows if (row["track"], row["scheme"]) == key[:2]]
        line = {"scheme": name, "1 to 20": spread([row["trained lengths"] for row in mine])}
        found = shares(rows, *key)
        table.append(line | {f"{n:,}": spread(found[n]) for n in shown})
    return table


WAYS = ("copy", "reverse")


def perfect(rows: list[dict]) -> list[dict]:
    """Up to which length every string of every seed is exact, and how sure that makes one."""
    table = []
    for scheme in ("end_alibi", "end_window", "two_way"):
        tests = sorted(cells(rows, "house", scheme), key=lambda test: test["length"])
        wrong = [test["length"] for test in tests if test["exact"] < test["n"]]
        until = [t for t in tests if t["length"] < min(wrong, default=float("inf"))]
        longest = max((test["length"] for test in until), default=0)
        n = sum(test["n"] for test in until if test["length"] == longest)
        line = {"scheme": scheme, "all exact up to": longest, "strings of that length": n}
        table.append(line | {"95 % interval there": list(wilson(n, n)) if n else []})
    return table


def tracks(rows: list[dict]) -> list[dict]:
    """The tracks that published work used: symbols and strings that are right."""
    table = []
    for track, of in list(TRACKS.items())[2:]:
        for scheme in of.schemes:
            mine = [row for row in rows if (row["track"], row["scheme"]) == (track, scheme)]
            trained = spread([row["trained lengths"] for row in mine])
            tests = {}
            for what in ("reverse", "uniform"):
                for test in cells(rows, track, scheme, what):
                    name = f"1 to {test['length']}" if what == "uniform" else str(test["length"])
                    name = "each of 41 to 500" if track == "DeepMind" else name
                    tests.setdefault(name, []).append(test)
            for name, found in tests.items():
                line = {"track": track, "scheme": scheme, "exact at trained lengths": trained}
                table.append({**line, "length": name, **_pool(found)})
    return table


def _pool(tests: list[dict]) -> dict:
    seeds = {test["seed"]: [] for test in tests}
    for test in tests:
        seeds[test["seed"]].append(test)
    exact, n = (sum(test[key] for test in tests) for key in ("exact", "n"))
    line = {"strings": n, "symbols right": "–"}
    if "tokens" in tests[0]:
        means = [sum(t["tokens"] for t in found) / len(found) for found in seeds.values()]
        line["symbols right"] = spread(means)
    parts = [sum(t["exact"] / t["n"] for t in found) / len(found) for found in seeds.values()]
    even = len({test["n"] for test in tests}) == 1  # if not, shares of lengths and strings differ
    interval = list(wilson(exact, n)) if even else None
    return line | {"strings exact": spread(parts), "95 % interval": interval}


def figures(rows: list[dict]) -> Iterator[tuple[str, float, float, bool]]:
    """What `check` asks: the claim, its figure, its bound, and whether that is the most."""
    for scheme in ("end_alibi", "end_window"):
        tests = [t for t in cells(rows, "house", scheme) if t["length"] <= 1000]
        what = f"{scheme}, lengths up to 1,000:"
        yield f"{what} strings that are not exact", _wrong(tests), 0, True
        yield f"{what} fewest strings for a length and seed", _fewest(tests), 1000, False
        wanted = sum(n <= 1000 for n in HOUSE)
        yield f"{what} seeds, each at all {wanted} lengths", _complete(tests, wanted), 5, False
    for what in WAYS:
        tests = [t for t in cells(rows, "copy or reverse", "two_way", what) if t["length"] == 100]
        worst = min(t["exact"] / t["n"] for t in tests)
        yield f"two_way told to {what}: exact at length 100, worst seed", worst, 0.99, False
        yield f"two_way told to {what}: seeds", _complete(tests, 1), 5, False
    tests = list(cells(rows, "DeepMind", "end_window"))
    what = "DeepMind track, end_window:"
    right = sum(t["tokens"] for t in tests) / len(tests)
    yield f"{what} symbols right, mean of lengths and seeds", right, 1, False
    yield f"{what} seeds, each at all lengths from 41 to 500", _complete(tests, 460), 5, False
    for kind, name in (("reverse", "400"), ("uniform", "1 to 400")):
        tests = list(cells(rows, "Universal Transformer", "end_window", kind))
        what = f"Universal Transformer track, end_window, length {name}:"
        yield f"{what} symbols right, worst seed", min(t["tokens"] for t in tests), 1, False
        yield f"{what} strings that are not exact", _wrong(tests), 0, True
        yield f"{what} seeds", _complete(tests, 1), 5, False


def _wrong(tests: list[dict]) -> int:
    return sum(test["n"] - test["exact"] for test in tests)


def _fewest(tests: list[dict]) -> int:
    return min(test["n"] for test in tests)


def _complete(tests: list[dict], lengths: int) -> int:
    """The seeds that were tested at so many lengths."""
    found = {}
    for test in tests:
        found.setdefault(test["seed"], set()).add(test["length"])
    return sum(len(of_seed) == lengths for of_seed in found.values())


def draw_length(rows: list[dict], schemes: tuple[str, ...] = ALL) -> Figure:
    """Exact match against length: near the trained lengths, and far beyond."""
    fig, axes = plt.subplots(1, 2, figsize=(11.5, 3.8), layout="constrained", sharey=True)
    for scheme in schemes:
        found = {n: spread(s) for n, s in sorted(shares(rows, "house", scheme).items())}
        low, middle, high = ([s[part] for s in found.values()] for part in ("min", "median", "max"))
        colour, style = LINES[scheme]
        for ax in axes:
            ax.plot(list(found), middle, style, color=colour, marker="o", ms=3, label=scheme)
            ax.fill_between(list(found), low, high, color=colour, alpha=0.2, linewidth=0)
    for ax in axes:
        ax.axvspan(1, 20, color="#eeeeee", zorder=0)
        ax.set(xlabel="length of the string (symbols)", ylim=(-0.03, 1.05))
    axes[0].set(xlim=(1, 42), ylabel="exact match", title="Around the trained lengths (grey)")
    axes[1].set(xscale="log", xlim=(1, 11_000), title="Far beyond")
    axes[1].set_xticks([1, 10, 20, 100, 1000, 10_000], ["1", "10", "20", "100", "1,000", "10,000"])
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return fig
