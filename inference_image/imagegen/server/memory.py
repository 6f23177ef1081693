"""Memory of the device as its driver tells it."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["device_memory"]

_LOG = logging.getLogger(__name__)


def device_memory(
    device: str, engine_memory: Callable[[], dict[str, int]]
) -> Callable[[], dict[str, int]]:
    """Join what the engine's allocator and the driver know of a device's memory, in bytes.

    The allocator does not see the accelerator's own context and other processes; NVML does. It is
    used where the package ``nvidia-ml-py`` is installed and knows the device.

    Parameters
    ----------
    device
        Such as ``cuda:0``; only devices of that kind are asked for.
    engine_memory
        Gives the engine's own numbers by kind of :data:`imagegen.contract.VRAM_KINDS`.

    Returns
    -------
    callable
        To be called whenever the numbers are wanted.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return engine_memory
    try:
        driver: Any = importlib.import_module("pynvml")
        driver.nvmlInit()
        handle = _find(driver, int(index or 0), os.environ)
    except (ImportError, ValueError) as error:
        _LOG.info("device memory is not read from NVML: %s", error)
        return engine_memory
    except Exception as error:  # noqa: BLE001 - NVMLError; its class is known only after the import
        _LOG.warning("device memory cannot be read from NVML: %s", error)
        return engine_memory

    def joined() -> dict[str, int]:
        told = driver.nvmlDeviceGetMemoryInfo(handle)
        return {**engine_memory(), "device_used": told.used, "device_total": told.total}

    return joined


def _find(driver: Any, index: int, environment: Mapping[str, str]) -> Any:
    """Find the driver's handle of the device that the process knows by an index of its own."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "").strip()
    if not visible:
        return driver.nvmlDeviceGetHandleByIndex(index)
    name = visible.split(",")[index].strip() if index < len(visible.split(",")) else ""
    if name.isdecimal():
        return driver.nvmlDeviceGetHandleByIndex(int(name))
    if name.startswith(("GPU-", "MIG-")):
        return driver.nvmlDeviceGetHandleByUUID(name)
    raise ValueError(f"CUDA_VISIBLE_DEVICES={visible} names no device {index}")
