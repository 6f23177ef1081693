"""What the driver tells of a device: its memory, and its own version."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["device_memory", "driver_version"]

_LOG = logging.getLogger(__name__)

_SAME_WITHIN = 0.1
"""Share by which two totals of one device differ at most: NVML's holds what the driver keeps."""


def device_memory(
    device: str, engine_memory: Callable[[], dict[str, int]]
) -> Callable[[], dict[str, int]]:
    """Join what the engine's allocator and the driver know of a device's memory, in bytes.

    The allocator does not see the accelerator's own context and other processes; NVML does. It is
    used where the package ``nvidia-ml-py`` is installed and knows the device. A slice of a GPU
    (MIG) has the same index as the whole, which is another device, with memory of another size.

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
        driver = _nvml()
        handle = _find(driver, int(index or 0), os.environ)
        _check_same(driver.nvmlDeviceGetMemoryInfo(handle).total, engine_memory())
    except (ImportError, ValueError) as error:
        _LOG.info("device memory is not read from NVML: %s", error)
        return engine_memory
    except Exception as error:  # noqa: BLE001 - NVMLError; its class is known only after the import
        _LOG.warning("device memory cannot be read from NVML: %s", error)
        return engine_memory

    def joined() -> dict[str, int]:
        known = engine_memory()
        try:
            told = driver.nvmlDeviceGetMemoryInfo(handle)
        except Exception:  # noqa: BLE001 - NVMLError; a scrape must not lack all else for it
            return known
        return {**known, "device_used": told.used, "device_total": told.total}

    return joined


def driver_version(device: str) -> str:
    """Give the version of a device's driver; empty where there is none, or NVML does not tell."""
    if not device.startswith("cuda"):
        return ""
    try:
        return str(_nvml().nvmlSystemGetDriverVersion())
    except Exception:  # noqa: BLE001 - ImportError or NVMLError
        return ""


def _nvml() -> Any:
    driver = importlib.import_module("pynvml")
    driver.nvmlInit()
    return driver


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


def _check_same(told: int, known: Mapping[str, int]) -> None:
    """Check that the driver speaks of the device that the engine has, by the memory they have."""
    total = known.get("device_total", told)
    if abs(told - total) > _SAME_WITHIN * total:
        raise ValueError(
            f"its device has {told} bytes, the engine's {total}: it may be the whole of a GPU of "
            "which the engine has a slice; name the slice in CUDA_VISIBLE_DEVICES"
        )
