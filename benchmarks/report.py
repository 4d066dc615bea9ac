"""What the stored results must show, the tables in README.md, and the figures."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from . import length_tables
from .common import RESULTS, read

HERE = Path(__file__).parent
ON_GPU = {"title": "From 256 symbols on, the Transformer's step is shorter", "where": "one H100"}
COLOURS = {"LSTM": "#e0a458", "LSTM + attention": "#8c6bb1", "Transformer": "#1f6f8b"}


@dataclass(frozen=True)
class Must:
    """One row of `check`: a figure, and the bound that it must keep."""

    what: str
    figure: float
    bound: float
    at_most: bool = True

    @property
    def holds(self) -> bool:
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound

    def __str__(self) -> str:
        sign, result = "≤" if self.at_most else "≥", "ok" if self.holds else "MISSED"
        return f"{result:6}  {self.figure:9.3f}  {sign} {self.bound:<6g}  {self.what}"


def _training(folder: Path) -> Iterator[Must]:
    rows = {row["name"]: row for row in read("training", folder)["rows"]}
    ours = rows["revtrans"]
    share = ours["reached"] / ours["of"]
    yield Must(f"share of {ours['of']} seeds that reach 99.9 % exact match", share, 1, False)
    yield Must("seeds measured", ours["of"], 5, False)
    for name, bound in (("torch.nn.Transformer", 0.85), ("x-transformers", 0.6), ("BART", 0.8)):
        figure = rows[name]["ours over it"]["median"]
        yield Must(f"seconds to 99.9 % exact match, over {name}", figure, bound)


def _step(folder: Path) -> Iterator[Must]:
    for row in read("step", folder)["rows"]:
        mixed = row["strings"].startswith("1")
        what = (
            f"training step, d_model {row['d_model']}, strings of {row['strings']} {row['length']}"
        )
        figure = row["TorchTransformer"]["median"]
        bound = {(64, 16): 0.85, (256, 64): 0.6}.get((row["d_model"], row["length"]), 0.8)
        yield Must(f"{what}, over nn.Transformer", figure, bound if mixed else 1.0)


def _decoding(folder: Path) -> Iterator[Must]:
    for row in read("decoding", folder)["rows"]:
        what = f"decoding {row['length']} symbols, times slower:"
        for name, bound in (
            ("torch.nn.Transformer", {64: 6, 128: 14}[row["length"]]),
            ("x-transformers", 2.3),
        ):
            yield Must(f"{what} {name}", row[f"{name}, times slower"]["median"], bound, False)
        beam = row["beam 4 over 4 greedy"]["median"]
        yield Must(f"decoding {row['length']} symbols, a beam of 4 over 4 times greedy", beam, 1)


def _claims(folder: Path) -> Iterator[Must]:
    rows = read("accuracy", folder)["rows"]
    sizes = [row["parameters"] for row in rows]
    yield Must("LSTMs and Transformer: largest model over smallest", max(sizes) / min(sizes), 1.1)
    exact = {name: [r["exact"] for r in rows if r["model"] == name] for name in COLOURS}
    yield Must("LSTMs and Transformer: seeds", min(map(len, exact.values())), 3, False)
    yield Must("Transformer: exact match, worst seed", min(exact["Transformer"]), 0.999, False)
    for study in ("step_time", "gradient"):
        lengths = {row["length"] for row in read(study, folder)["rows"]}
        covered = len(lengths & {2**k for k in range(3, 10)})
        yield Must(f"{study}: lengths from 8 to 512", covered, 7, False)
    for study, seeds in (("recipes", 5), ("peer_recipes", 3)):
        fewest = min(row["of"] for row in read(study, folder)["rows"])
        yield Must(f"{study}: seeds for each", fewest, seeds, False)
    peak = [row["share of peak"]["median"] for row in read("limit", folder)["rows"]]
    yield Must("sizes whose share of the core's peak was measured", len(peak), 3, False)


def _gpu(folder: Path) -> Iterator[Must]:
    rows = read("gpu_step", folder)["rows"]
    sizes = {(row["d_model"], row["batch"], row["length"]) for row in rows}
    yield Must("GPU: sizes at which a training step was timed", len(sizes), 24, False)
    large = [r for r in rows if r["d_model"] == 512 and r["batch"] * r["length"] >= 2**17]
    yield Must("GPU: of these, large ones in both precisions", len(large), 4, False)
    worst = max(row["nn.Transformer"]["median"] for row in large)
    yield Must("GPU: training step at these, over nn.Transformer, worst", worst, 0.9)
    rows = read("gpu_decoding", folder)["rows"]
    yield Must("GPU: sizes and precisions at which decoding was timed", len(rows), 36, False)
    slower = median(row["x-transformers, times slower"]["median"] for row in rows)
    yield Must("GPU: decoding, x-transformers, times slower, median", slower, 2, False)
    rows = read("gpu_step_time", folder)["rows"]
    ms = {(row["model"], row["length"]): row["ms"]["median"] for row in rows}
    yield Must("GPU: lengths from 8 to 4,096, LSTM and Transformer", len(ms) / 3, 10, False)
    over = ms["Transformer", 1024] / ms["LSTM", 1024]
    yield Must("GPU: training step at length 1,024, Transformer over LSTM", over, 0.5)
    for row in read("gpu_precision", folder)["rows"]:
        what = f"GPU: exact match after training in {row['precision']}, worst seed"
        yield Must(what, row["exact match"]["min"], 0.999, False)


def _devices(folder: Path) -> Iterator[Must]:
    for study, fewest in (("second_device", 1), ("gpu_device", 0.9)):
        for row in read(study, folder)["rows"]:
            share = row["as on the processor"] / max(row["tried"], 1)
            least = 1 if row["what"] == "tests" else fewest
            what = (
                f"second device ({row['device']}): of {row['tried']} {row['what']}, those that hold"
            )
            yield Must(what, share, least, False)


def _growth(folder: Path) -> Iterator[Must]:
    for row in read("growth", folder)["rows"][1:]:
        figure = row["over the shortest"]["median"] / row["longer by"]
        what = f"time per symbol at length {row['length']}, over linear growth from 16"
        yield Must(what, figure, 1.0)


def _rest(folder: Path) -> Iterator[Must]:
    share = read("data", folder)["rows"][0]["share of a step"]["median"]
    yield Must("share of a training step spent making data", share, 0.05)
    imports = {row["statement"]: row for row in read("imports", folder)["rows"]}
    figure = imports["import torch, revtrans"]["over torch alone"]["median"]
    yield Must("import revtrans, over import torch alone", figure, 1.1)
    (row,) = read("demo", folder)["rows"]
    figure = row["over imports and training steps"]["median"]
    yield Must("revtrans demo, over imports and its training steps", figure, 1.3)
    for row in read("memory", folder)["rows"][1:]:
        what = f"peak memory, decoding {row['length']} symbols, over {row['kind']}"
        yield Must(what, row["cached over it"]["median"], 0.5)
    for row in read("text_memory", folder)["rows"][1:]:
        what = f"over max_length 16, short texts with max_length {row['max_length']}:"
        yield Must(f"{what} seconds", row["seconds over the first"]["median"], 1.2)
        yield Must(f"{what} memory", row["MiB over the first"]["median"], 1.2)
    (row,) = read("threads", folder)["rows"]
    yield Must("threads that ask one model at once", row["threads"], 8, False)
    yield Must("seconds for which they ask", row["seconds"], 60, False)
    yield Must("calls from threads", row["calls"], 100, False)
    yield Must("of these, other than one thread's answer", row["wrong"], 0)
    yield Must("programs that hung", row["hangs"], 0)


def _length(folder: Path) -> Iterator[Must]:
    for row in length_tables.figures(read("length", folder)["rows"]):
        yield Must(*row)
    rows = {row["name"]: row for row in read("length_seconds", folder)["rows"]}
    window = rows["end_window"]
    yield Must(
        "end_window: share of seeds that reach it", window["reached"] / window["of"], 1, False
    )
    yield Must("end_window: seeds measured for its seconds", window["of"], 5, False)
    figure = window["over sinusoidal"]["median"]
    yield Must("seconds to 99.9 % exact match, end_window over sinusoidal", figure, 0.4)
    for row in read("length_memory", folder)["rows"]:
        if row["scheme"] in ("end_window", "two_way") and row["length"] == 2000:
            what = f"{row['scheme']}: memory at length 2,000, over twice that at 1,000"
            yield Must(what, row["over half the length"]["median"] / 2, 1.1)


def _survival(folder: Path) -> Iterator[Must]:
    rows = read("kills", folder)["rows"]
    yield Must("trainings killed at random moments", len(rows), 50, False)
    inside = sum(row["inside a write"] for row in rows)
    yield Must("of these, killed inside a write", inside, 10, False)
    yield Must("of these, not killed but ended", sum(row["ended before"] for row in rows), 0)
    equal = sum(row["equal"] for row in rows) / len(rows)
    yield Must("share that goes on to the same bits", equal, 1, False)
    yield Must("checkpoints unreadable after a kill", sum(not row["readable"] for row in rows), 0)
    yield Must("files left behind", sum(row["left behind"] for row in rows), 0)
    yield Must("workers of torchrun killed", len(read("restarts", folder)["rows"]), 20, False)
    same = [row["equal"] for row in read("restarts", folder)["rows"]]
    yield Must("share that ends as the undisturbed run", sum(same) / len(same), 1, False)
    sizes = read("processes", folder)["rows"]
    yield Must("processes: sizes at which two were timed beside one", len(sizes), 4, False)
    spoiled = read("files", folder)["rows"][-1]
    yield Must("spoiled files read", spoiled["files"], 2000, False)
    yield Must("spoiled files believed, or another error", spoiled["other"], 0)
    yield Must("code run by a spoiled file", spoiled["code run"], 0)
    yield Must("slowest spoiled file, seconds", spoiled["slowest s"], 5)
    yield Must("memory that spoiled files cost, MiB", spoiled["MiB more at peak"], 200)
    tried = read("inputs", folder)["rows"][-1]
    yield Must("inputs to functions and command line", tried["inputs"], 10_000, False)
    yield Must("inputs with a wrong answer, or another error", tried["other"], 0)
    yield Must("slowest input, seconds", tried["slowest s"], 10)


def _proofs(folder: Path) -> Iterator[Must]:
    rows = read("proofs", folder)["rows"]
    proven = [row for row in rows if row["proven"] and row["margin"] > row["rounding"]]
    for positions, seeds, windows in (("narrow", 5, 18_980), ("neighbours", 1, 12_850_136)):
        sure = [r for r in proven if r["positions"] == positions and r["windows"] == windows]
        yield Must(f"{positions}: seeds proven for all strings", len(sure), seeds, False)
    rows = read("exhaustive", folder)["rows"]
    complete = sum(row["strings"] == 475_254 for row in rows)
    yield Must("default models tried on all strings of 1 to 4 letters", complete, 6, False)
    worst = max(row["wrong"] for row in rows)
    yield Must("of these strings, wrong in the worst of the seeds", worst, 20)
    longer = [row for row in read("hard", folder)["rows"] if row["steps"] == 650]
    kinds = [row[kind] for row in longer for kind in row if kind not in ("steps", "share", "seed")]
    yield Must("hard strings of 16 letters after 650 steps, worst share", min(kinds), 0.99, False)


def _answers(folder: Path) -> Iterator[Must]:
    for row in read("answers", folder)["rows"]:
        what, wrong, right = f"learners' answers, {row['part']}:", row["wrong"], row["right"]
        yield Must(f"{what} wrong ones named", row["wrong named"] / wrong, 0.6, False)
        yield Must(f"{what} wrong ones accepted", row["wrong accepted"], 0)
        yield Must(f"{what} right ones accepted", row["right accepted"] / right, 0.97, False)
    yield Must(f"{what} wrong ones tried", wrong, 200, False)
    yield Must(f"{what} right ones tried", right, 100, False)


MUSTS: list[Callable[[Path], Iterator[Must]]] = [
    *(_training, _step, _decoding, _claims, _gpu, _devices, _growth, _rest, _length, _survival),
    *(_proofs, _answers),
]


def check(folder: Path = RESULTS) -> int:
    """Print every row with its figure and its must; 0 only if all hold and no study is missing."""
    musts, incomplete = [], 0
    for rows in MUSTS:
        try:
            musts += rows(folder)
        except (FileNotFoundError, KeyError, ValueError) as error:
            incomplete += 1
            print(f"a study is missing or not complete: {error}", file=sys.stderr)
    print(*musts, sep="\n")
    missed = sum(not must.holds for must in musts)
    print(f"{len(musts) - missed} of {len(musts)} hold")
    return 1 if missed or incomplete else 0


TABLES = {
    "training": ["name", "reached", "of", "steps", "seconds", "ours over it"],
    "step": [
        "d_model",
        "length",
        "strings",
        "padding",
        "ms",
        "TorchTransformer",
        "Tutorial",
        "XTransformers",
    ],
    "decoding": None,
    "growth": ["length", "ms per symbol", "over the shortest"],
    "memory": ["kind", "MiB", "cached over it"],
    "text_memory": None,
    "threads": None,
    "data": None,
    "demo": None,
    "imports": ["statement", "seconds", "over torch alone"],
    "peer_recipes": ["name", "reached", "of", "steps", "seconds", "wrong"],
    "recipes": ["name", "reached", "of", "steps", "seconds", "wrong"],
    "limit": None,
    "ideas": None,
    "second_device": None,
    "gpu_device": None,
    "gpu_step": None,
    "gpu_decoding": None,
    "gpu_precision": None,
    "length_seconds": ["name", "reached", "of", "steps", "seconds", "over sinusoidal"],
    "length_memory": None,
    "length": None,
    "length perfect": None,
    "length tracks": None,
    "proofs": None,
    "exhaustive": None,
    "hard": None,
    "kills": None,
    "restarts": None,
    "processes": None,
    "files": None,
    "inputs": None,
    "answers": None,
}


def _kills(rows: list[dict]) -> list[dict]:
    summed = {
        name: sum(row[name] for row in rows) for name in rows[0] if name not in ("kill", "at step")
    }
    steps = [row["at step"] for row in rows if row["readable"]]
    return [{"kills": len(rows), "first at step": min(steps), "last at step": max(steps), **summed}]


def _restarts(rows: list[dict]) -> list[dict]:
    first = sum(row["worker"] == 0 for row in rows)
    equal = sum(row["equal"] for row in rows)
    return [{"kills": len(rows), "of these, the first worker": first, "equal": equal}]


SUMMARIES = {
    "length": length_tables.house,
    "length perfect": length_tables.perfect,
    "length tracks": length_tables.tracks,
    "kills": _kills,
    "restarts": _restarts,
    "files": lambda rows: rows[-1:],
}


def table(name: str, folder: Path = RESULTS) -> str:
    """A stored result as a Markdown table; spreads as median (min – max)."""
    result = read(name.split()[0], folder)
    rows = SUMMARIES.get(name, list)(result["rows"])
    columns = TABLES[name] or list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[column]) for column in columns] for row in rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    where = result["machine"]
    torch, threads = where["versions"]["torch"], where["threads"]
    core = where.get("gpu", where["processor"])
    made = f"{result['date']}, {core}, {where['cores']} cores, {threads} thread"
    return f"{text}\n\n`{result['command']}`: {made}, torch {torch}."


def _cell(value: object) -> str:
    if isinstance(value, dict):
        low, middle, high = (_cell(value[part]) for part in ("min", "median", "max"))
        return middle if low == high else f"{middle} ({low} – {high})"
    if isinstance(value, list):
        pair = any(isinstance(part, float) for part in value)
        return " – ".join(map(_cell, value)) if pair else " ".join(map(str, value))
    if not isinstance(value, float):
        return "–" if value is None else str(value)
    text = f"{value:.3g}"
    return f"{value:.6g}" if text == "1" and value < 1 else text  # 0.9999 is not 1


def with_tables(text: str, folder: Path = RESULTS) -> str:
    """README's text with each part between `<!-- NAME -->` and `<!-- end -->` made anew."""
    for name in TABLES:
        mark = f"<!-- {name} -->\n"
        if text.count(mark) != 1:
            raise ValueError(f"README.md must have {mark.strip()} once")
        before, rest = text.split(mark)
        after = rest[rest.index("<!-- end -->") :]
        text = f"{before}{mark}{table(name, folder)}\n{after}"
    return text


def tables() -> int:
    readme = HERE / "README.md"
    readme.write_text(with_tables(readme.read_text()))
    return 0


def figures(folder: Path = HERE / "figures") -> int:
    """Draw all figures into a folder."""
    matplotlib.use("Agg")
    folder.mkdir(exist_ok=True)
    drawn = {
        "accuracy": draw_accuracy(read("accuracy")["rows"]),
        "step_time": draw_step_time(read("step_time")["rows"]),
        "gpu_step_time": draw_step_time(read("gpu_step_time")["rows"], **ON_GPU),
        "gradient": draw_gradient(read("gradient")["rows"]),
        "speed": draw_speed(),
        "length": length_tables.draw_length(read("length")["rows"]),
    }
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
        plt.close(figure)
    return 0


def draw_accuracy(rows: list[dict]) -> Figure:
    """Exact match by length, by step and by second; a line for each seed."""
    fig, axes = plt.subplots(1, 3, figsize=(13, 3.9), layout="constrained", sharey=True)
    for row in rows:
        style = {"color": COLOURS[row["model"]], "linewidth": 1.2}
        name = row["model"] if row["seed"] == 0 else None
        axes[0].plot(range(1, 17), row["by length"], label=name, **style)
        steps, seconds, exact = zip(*row["curve"])
        axes[1].plot(steps, exact, **style)
        axes[2].plot(seconds, exact, **style)
    axes[0].set(title="Long strings tell them apart", xlabel="length of the string (symbols)")
    axes[0].set(ylabel="exact match on unseen strings", ylim=(-0.03, 1.05))
    axes[1].set(title="In steps, the Transformer soon leads", xlabel="step of training")
    axes[2].set(title="in seconds, too", xlabel="seconds of training, one thread")
    fig.legend(loc="outside lower center", ncols=len(COLOURS))
    return fig


def draw_step_time(
    rows: list[dict],
    title: str = "A training step of the LSTM is shorter",
    where: str = "one thread",
) -> Figure:
    """Time of one training step against length."""
    fig, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
    for name, colour in COLOURS.items():
        mine = [row for row in rows if row["model"] == name]
        lengths = [row["length"] for row in mine]
        ax.loglog(lengths, [row["ms"]["median"] for row in mine], "o-", color=colour, label=name)
    ax.set_xscale("log", base=2)
    ax.set(xlabel="length of the strings (symbols)", ylabel=f"milliseconds, {where}")
    ax.set(title=title, xticks=lengths, xticklabels=lengths)
    ax.legend()
    return fig


def draw_gradient(rows: list[dict]) -> Figure:
    """How much of the gradient reaches the first symbol."""
    fig, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
    for name, colour in COLOURS.items():
        mine = [row for row in rows if row["model"] == name]
        lengths = [row["length"] for row in mine]
        shares = [row["first over last"]["median"] for row in mine]
        ring = {"markersize": 10, "markerfacecolor": "none"}  # it lies on the Transformer's
        style = ring if name == "LSTM + attention" else {}
        ax.loglog(lengths, shares, "o-", color=colour, label=name, **style)
    ax.set_xscale("log", base=2)
    ax.set_yticks([10.0**-k for k in range(0, 101, 20)])
    ax.set(
        title="Through the LSTM alone, nothing comes back from afar",
        xlabel="length of the string (symbols)",
        ylabel="gradient, first over last symbol",
        xticks=lengths,
        xticklabels=lengths,
    )
    ax.legend()
    return fig


def draw_speed(folder: Path = RESULTS) -> Figure:
    """The peers' ratios, training step and decoding, and growth with length."""
    fig, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    rows = [r for r in read("step", folder)["rows"] if r["strings"].startswith("1")]
    labels = [f"{r['d_model']}, {r['length']}" for r in rows]
    peers = {
        "TorchTransformer": ("torch.nn.Transformer", "o", "#1f6f8b"),
        "Tutorial": ("tutorial", "s", "#e0a458"),
        "XTransformers": ("x-transformers", "^", "#8c6bb1"),
    }
    for key, (name, marker, colour) in peers.items():
        medians = [r[key]["median"] for r in rows]
        axes[0].plot(labels, medians, marker, color=colour, label=name)
    axes[0].axhline(1, color="#888888", linewidth=0.8)
    axes[0].set(title="A training step takes less time", xlabel="d_model, longest string")
    axes[0].set(ylabel="our seconds over theirs", ylim=(0, 1.1))
    axes[0].tick_params(axis="x", rotation=60)
    axes[0].legend(loc="lower left")

    rows = read("decoding", folder)["rows"]
    for i, (name, _, colour) in enumerate(peers.values()):
        bars = axes[1].bar(
            [k + 0.27 * (i - 1) for k in range(len(rows))],
            [r[f"{name}, times slower"]["median"] for r in rows],
            0.25,
            color=colour,
            label=name,
        )
        axes[1].bar_label(bars, fmt="%.1f")
    axes[1].set(title="Decoding takes the others longer", xlabel="symbols to write")
    axes[1].set_ylabel("their seconds over ours")
    axes[1].set_xticks(range(len(rows)), [r["length"] for r in rows])
    axes[1].margins(y=0.15)
    axes[1].legend(loc="upper left")

    rows = read("growth", folder)["rows"]
    lengths = [r["length"] for r in rows]
    axes[2].loglog(lengths, [r["over the shortest"]["median"] for r in rows], "o-", color="#1f6f8b")
    axes[2].loglog(lengths, [r["longer by"] for r in rows], "--", color="#888888")
    axes[2].annotate(
        "linear",
        (lengths[-3], rows[-3]["longer by"]),
        (-6, 4),
        ha="right",
        textcoords="offset points",
    )
    axes[2].set(title="One more symbol: far below linear", xlabel="length of the text (symbols)")
    axes[2].set_ylabel("our time for it, over that at 16")
    axes[2].set_xticks(lengths, lengths)
    axes[2].minorticks_off()
    return fig
