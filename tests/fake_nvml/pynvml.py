"""A fake nvidia-ml-py for machines without a GPU; put this folder first on PYTHONPATH.

FAKE_NVML (JSON) describes the GPUs; without it there are none. Only uuid is required:

{"gpus": [{"uuid": "GPU-a", "name": "NVIDIA Fake A", "memory_bytes": 85899345920, "memory_used_bytes": 0,
           "power_w": 300, "sm_clock_hz": 1.98e9, "memory_clock_hz": 2.619e9, "temperature_c": 40,
           "utilisation": 0, "mig": false, "throttle": ["sw_power_cap"], "processes": [[pid, bytes or null]],
           "refused": true}],    it is another job's: NVML counts it and raises NoPermission
 "ways": {"GPU-a GPU-b": 50}, NVML's level of what two GPUs share, NVLink by default
 "nodes": {"gpu07": [...]},    GPUs of a Slurm node, in addition
 "driver": "570.00",
 "cuda_driver_version": 12080, the newest CUDA that the driver knows
 "init_fails": true,           nvmlInit raises DriverNotLoaded, or the error of this code
 "lost": 15,                   looking at the GPU of index 0 raises the error of this code
 "fail_after": 3,              this many queries of a device's state succeed, all later ones raise Unknown
 "unsupported": ["power"],     queries that raise NotSupported, by the names passed to _state below
 "forbidden": ["power"],       queries that raise NoPermission
 "old_driver": true}           a driver without nvmlDeviceGetCurrentClocksEventReasons
"""

from __future__ import annotations

import json
import os
import time
from types import SimpleNamespace
from typing import Any

NVML_TEMPERATURE_GPU = 0
NVML_CLOCK_SM = 1
NVML_CLOCK_MEM = 2

NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_INVALID_ARGUMENT = 2
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_FUNCTION_NOT_FOUND = 13
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
NVML_ERROR_UNKNOWN = 999

NVML_DEVICE_MIG_ENABLE = 1
NVML_P2P_CAPS_INDEX_NVLINK = 2
NVML_P2P_STATUS_OK = 0
NVML_P2P_STATUS_NOT_SUPPORTED = 5

nvmlClocksEventReasonGpuIdle = 0x1
nvmlClocksEventReasonApplicationsClocksSetting = 0x2
nvmlClocksEventReasonSwPowerCap = 0x4
nvmlClocksEventReasonHwSlowdown = 0x8
nvmlClocksEventReasonSyncBoost = 0x10
nvmlClocksEventReasonSwThermalSlowdown = 0x20
nvmlClocksEventReasonHwThermalSlowdown = 0x40
nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80
nvmlClocksEventReasonDisplayClockSetting = 0x100

_ENERGY_STEP_S = 0.02
_MESSAGES = {
    NVML_ERROR_UNINITIALIZED: "Uninitialized",
    NVML_ERROR_INVALID_ARGUMENT: "Invalid Argument",
    NVML_ERROR_NOT_SUPPORTED: "Not Supported",
    NVML_ERROR_NO_PERMISSION: "Insufficient Permissions",
    NVML_ERROR_NOT_FOUND: "Not Found",
    NVML_ERROR_DRIVER_NOT_LOADED: "Driver Not Loaded",
    NVML_ERROR_LIBRARY_NOT_FOUND: "NVML Shared Library Not Found",
    NVML_ERROR_FUNCTION_NOT_FOUND: "Function Not Found",
    NVML_ERROR_GPU_IS_LOST: "GPU is lost",
    NVML_ERROR_LIB_RM_VERSION_MISMATCH: "RM has detected an NVML/RM version mismatch.",
    NVML_ERROR_UNKNOWN: "Unknown Error",
}

_n_inits = 0
_n_queries = 0


class NVMLError(Exception):
    """NVMLError(code) creates an instance of the subclass for that code, as in the real module."""

    def __new__(cls, value: int) -> NVMLError:
        error = super().__new__(_CLASSES.get(value, cls))
        error.value = value
        return error

    def __str__(self) -> str:
        return _MESSAGES[self.value]


class NVMLLibraryMismatchError(Exception):
    pass


class NVMLError_Uninitialized(NVMLError):
    pass


class NVMLError_InvalidArgument(NVMLError):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


class NVMLError_DriverNotLoaded(NVMLError):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


class NVMLError_FunctionNotFound(NVMLError):
    pass


class NVMLError_GpuIsLost(NVMLError):
    pass


class NVMLError_LibRmVersionMismatch(NVMLError):
    pass


class NVMLError_Unknown(NVMLError):
    pass


_CLASSES = {
    NVML_ERROR_UNINITIALIZED: NVMLError_Uninitialized,
    NVML_ERROR_INVALID_ARGUMENT: NVMLError_InvalidArgument,
    NVML_ERROR_NOT_SUPPORTED: NVMLError_NotSupported,
    NVML_ERROR_NO_PERMISSION: NVMLError_NoPermission,
    NVML_ERROR_NOT_FOUND: NVMLError_NotFound,
    NVML_ERROR_DRIVER_NOT_LOADED: NVMLError_DriverNotLoaded,
    NVML_ERROR_LIBRARY_NOT_FOUND: NVMLError_LibraryNotFound,
    NVML_ERROR_FUNCTION_NOT_FOUND: NVMLError_FunctionNotFound,
    NVML_ERROR_GPU_IS_LOST: NVMLError_GpuIsLost,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH: NVMLError_LibRmVersionMismatch,
    NVML_ERROR_UNKNOWN: NVMLError_Unknown,
}


def nvmlInit() -> None:
    global _n_inits, _n_queries
    if code := _settings().get("init_fails"):
        raise NVMLError(NVML_ERROR_DRIVER_NOT_LOADED if code is True else code)
    _n_queries = _n_queries if _n_inits else 0
    _n_inits += 1


def nvmlShutdown() -> None:
    global _n_inits
    _check_initialised()
    _n_inits -= 1


def nvmlSystemGetDriverVersion() -> str:
    _check_initialised()
    return _settings().get("driver", "570.00")


def nvmlSystemGetCudaDriverVersion_v2() -> int:
    _check_initialised()
    return _settings().get("cuda_driver_version", 12080)


def nvmlDeviceGetCount() -> int:
    _check_initialised()
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    """The handle is the index, because FAKE_NVML may change while a handle is in use."""
    _check_initialised()
    if not 0 <= index < len(_gpus()):
        raise NVMLError(NVML_ERROR_INVALID_ARGUMENT)
    if index == 0 and (code := _settings().get("lost")):
        raise NVMLError(code)
    return _granted(index)


def nvmlDeviceGetHandleByUUID(uuid: str) -> int:
    _check_initialised()
    for index, gpu in enumerate(_gpus()):
        if gpu["uuid"] == uuid:
            return _granted(index)
    raise NVMLError(NVML_ERROR_NOT_FOUND)


def nvmlDeviceGetUUID(handle: int) -> str:
    return _gpus()[handle]["uuid"]


def nvmlDeviceGetName(handle: int) -> str:
    return _gpus()[handle].get("name", "NVIDIA Fake A")


def nvmlDeviceGetMigMode(device: int) -> list[int]:
    _check_initialised()
    if "mig" not in _gpus()[device]:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return [int(_gpus()[device]["mig"])] * 2


def nvmlDeviceGetMemoryInfo(handle: int, version: int | None = None) -> SimpleNamespace:
    """Not counted for fail_after, because listing the devices uses it."""
    _check_initialised()
    if "memory" in _settings().get("unsupported", []):
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    gpu = _gpus()[handle]
    total, used = gpu.get("memory_bytes", 80 * 2**30), gpu.get("memory_used_bytes", 0)
    return SimpleNamespace(total=total, used=used, free=total - used)


def nvmlDeviceGetP2PStatus(device1: int, device2: int, p2pIndex: int) -> int:
    _check_initialised()
    return NVML_P2P_STATUS_OK if _way(device1, device2) is None else NVML_P2P_STATUS_NOT_SUPPORTED


def nvmlDeviceGetTopologyCommonAncestor(device1: int, device2: int) -> int:
    _check_initialised()
    return _way(device1, device2)


def nvmlDeviceGetClockInfo(handle: int, type: int) -> int:
    if type == NVML_CLOCK_SM:
        return round(_state(handle, "sm_clock").get("sm_clock_hz", 1.98e9) / 1e6)
    return round(_state(handle, "memory_clock").get("memory_clock_hz", 2.619e9) / 1e6)


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:
    return _state(handle, "temperature").get("temperature_c", 40)


def nvmlDeviceGetPowerUsage(handle: int) -> int:
    return round(1000 * _state(handle, "power").get("power_w", 300))


def nvmlDeviceGetTotalEnergyConsumption(handle: int) -> int:
    power_w = _state(handle, "energy").get("power_w", 300)
    return round(1000 * power_w * (time.monotonic() // _ENERGY_STEP_S) * _ENERGY_STEP_S)


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:
    return SimpleNamespace(gpu=_state(handle, "utilisation").get("utilisation", 0), memory=0)


def nvmlDeviceGetCurrentClocksEventReasons(handle: int) -> int:
    if _settings().get("old_driver"):
        raise NVMLError(NVML_ERROR_FUNCTION_NOT_FOUND)
    return nvmlDeviceGetCurrentClocksThrottleReasons(handle)


def nvmlDeviceGetCurrentClocksThrottleReasons(handle: int) -> int:
    reasons = _state(handle, "throttle").get("throttle", [])
    return sum(globals()["nvmlClocksEventReason" + reason.title().replace("_", "")] for reason in reasons)


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:
    processes = _state(handle, "processes").get("processes", [])
    return [SimpleNamespace(pid=pid, usedGpuMemory=n_bytes) for pid, n_bytes in processes]


def _settings() -> dict[str, Any]:
    return json.loads(os.environ.get("FAKE_NVML", "{}"))


def _gpus() -> list[dict[str, Any]]:
    node_gpus = _settings().get("nodes", {})
    return _settings().get("gpus", []) + node_gpus.get(os.environ.get("SLURMD_NODENAME"), [])


def _way(*handles: int) -> int | None:
    return _settings().get("ways", {}).get(" ".join(_gpus()[handle]["uuid"] for handle in handles))


def _granted(index: int) -> int:
    if _gpus()[index].get("refused"):
        raise NVMLError(NVML_ERROR_NO_PERMISSION)
    return index


def _check_initialised() -> None:
    if not _n_inits:
        raise NVMLError(NVML_ERROR_UNINITIALIZED)


def _state(handle: int, query: str) -> dict[str, Any]:
    """The state of the device. Raises NVMLError if this query is to fail."""
    global _n_queries
    _check_initialised()
    _n_queries += 1
    if _n_queries > _settings().get("fail_after", float("inf")):
        raise NVMLError(NVML_ERROR_UNKNOWN)
    if query in _settings().get("unsupported", []):
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    if query in _settings().get("forbidden", []):
        raise NVMLError(NVML_ERROR_NO_PERMISSION)
    return _gpus()[handle]
