"""`python -m benchmarks COMMAND`: measure, store, check, draw."""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from . import (
    answers,
    claims,
    devices,
    gpu,
    ideas,
    inputs,
    length,
    proofs,
    report,
    service,
    speed,
    survival,
    training,
)
from .common import RESULTS, store

QUICK_RECIPES = (training.BASE, "batches by length", "Muon")
QUICK_LENGTH = {"seeds": 1, "steps": 5, "n": 20, "lengths": (20, 41), "partial": None}
QUICK_GPU = {"sizes": (64,), "batches": (32,), "lengths": (16,)}
QUICK_DEVICE = {"only": "does_not_mix", "notebooks": ("04_encoder_decoder",)}
QUICK_X = (training.X_BEST, "the same, 400 steps")

# Each study with what --quick gives it: as little as shows that it still runs.
STUDIES = {
    "step": (speed.step, {"rounds": 2, "sizes": (64,), "lengths": (16,)}),
    "decoding": (speed.decoding, {"rounds": 1, "lengths": (16,), "batch": 4}),
    "growth": (speed.growth, {"rounds": 1, "lengths": (16, 32)}),
    "memory": (speed.memory, {"rounds": 1, "length": 512, "batch": 8}),
    "text_memory": (service.text_memory, {"rounds": 1, "lengths": (16, 32), "batch": 4}),
    "threads": (service.threads, {"n_threads": 2, "seconds": 1.0}),
    "data": (speed.data, {"rounds": 1, "batches": 5}),
    "imports": (speed.imports, {"rounds": 1}),
    "demo": (speed.demo, {"rounds": 1}),
    "limit": (speed.limit, {"rounds": 2}),
    "ideas": (ideas.ideas, {"rounds": 1, "steps": 2}),
    "training": (training.peers, {"seeds": 1, "steps": 30, "n_test": 500}),
    "accuracy": (claims.accuracy, {"seeds": 1, "steps": 30, "n_test": 500}),
    "bottleneck": (claims.bottleneck, {"steps": (30,), "n_test": 500}),
    "rates": (claims.rates, {"tried": ((10, (2e-3,), (0.5,)),), "n_test": 500}),
    "step_time": (claims.step_time, {"rounds": 1, "lengths": (8, 16)}),
    "gradient": (claims.gradient, {"seeds": 1, "lengths": (8, 16)}),
    "peer_recipes": (
        training.peer_recipes,
        {"seeds": 1, "steps": 10, "n_test": 500, "only": QUICK_X},
    ),
    "recipes": (training.recipes, {"seeds": 1, "steps": 10, "n_test": 500, "only": QUICK_RECIPES}),
    "length_seconds": (length.seconds, {"seeds": 1, "steps": 10, "n_test": 500}),
    "length_memory": (length.memory, {"rounds": 1, "lengths": (50, 100)}),
    "length": (length.study, QUICK_LENGTH),
    "proofs": (proofs.proofs, {"seeds": 1, "wide_seeds": 0, "steps": 30}),
    "exhaustive": (proofs.exhaustive, {"seeds": 1, "longest": 2, "steps": (30,)}),
    "hard": (proofs.hard, {"seeds": 1, "steps": (30,), "n": 100}),
    "kills": (survival.kills, {"rounds": 2, "steps": 30}),
    "processes": (devices.processes, {"rounds": 1, "steps": 2, "sizes": ((64, 32),)}),
    "restarts": (devices.restarts, {"rounds": 1, "steps": 20}),
    "second_device": (devices.second_device, QUICK_DEVICE),
    "gpu_device": (devices.second_device, QUICK_DEVICE),
    "gpu_step": (gpu.step, {"rounds": 1, "device": "cpu", "compiled": False, **QUICK_GPU}),
    "gpu_decoding": (gpu.decoding, {"rounds": 1, "device": "cpu", **QUICK_GPU}),
    "gpu_step_time": (gpu.step_time, {"rounds": 1, "lengths": (8, 16), "device": "cpu"}),
    "gpu_precision": (gpu.precision, {"seeds": 1, "steps": 10, "n_test": 100, "device": "cpu"}),
    "files": (survival.files, {"n": 100}),
    "inputs": (inputs.inputs, {"n": 5}),
    "answers": (answers.answers, {"n": 40}),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = [*STUDIES, "all", "check", "tables", "figures"]
    parser.add_argument("command", choices=commands, help="a study, or what to do with the results")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; stores nothing")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    args = parser.parse_args()
    if args.command == "check":
        return report.check()
    if args.command == "tables":
        return report.tables()
    if args.command == "figures":
        return report.figures()
    names = list(STUDIES) if args.command == "all" else [args.command]
    if not (args.quick or torch.cuda.is_available()):
        names = [name for name in names if not name.startswith("gpu")]
    if args.command.startswith("gpu") and not names:
        parser.error(f"{args.command} needs a GPU")
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message="enable_nested_tensor")  # nn.Transformer, pre-norm
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            run, small = STUDIES[name]
            print(f"== {name}", flush=True)
            settings = small if args.quick else {}
            store(name, run(**settings), Path(scratch) if args.quick else RESULTS, **settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
