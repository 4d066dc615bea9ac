"""The second device: a GPU if there is one; if not, the processor plays one, named 'second'.

Building that one needs a C++ compiler and ninja, and half a minute.
"""

import tempfile
from pathlib import Path
from types import ModuleType

import torch
from torch.utils.cpp_extension import load

NAME = "cuda" if torch.cuda.is_available() else "second"


def begin() -> None:
    """Make the device known to PyTorch, with a generator's state, so that dropout can repeat."""
    if NAME == "cuda":
        return
    source, build = str(Path(__file__).with_name("device.cpp")), tempfile.mkdtemp()
    built = load("second_device", [source], build_directory=build, extra_cflags=["-O1"])
    torch.utils.rename_privateuse1_backend("second")
    module = ModuleType("torch.second")
    module.is_available = module.is_initialized = lambda: True
    module.device_count, module.current_device = lambda: 1, lambda: 0
    module._is_in_bad_fork, module.manual_seed_all = lambda: False, lambda seed: None
    # Its operations are the processor's, and so is their generator.
    module.get_rng_state = lambda device=None: torch.get_rng_state()
    module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch._register_device_module("second", module)
    built.begin()
