"""Make the device 'second' known to PyTorch; needs a C++ compiler and ninja, and half a minute."""

import tempfile
from pathlib import Path
from types import ModuleType

import torch
from torch.utils.cpp_extension import load


def begin() -> None:
    """Build the device, and give it a generator's state, so that dropout can be repeated."""
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
