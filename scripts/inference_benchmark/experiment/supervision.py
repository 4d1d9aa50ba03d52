"""How a measurement is supervised."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Supervision:
    """What decides no figure: the ``watch`` settings of config.yaml, and the device that a job needs.

    timeout_s: for each process of a cell. sample_hz: samples of the state of device and machine per second.
    exclusive: ``warn`` or ``fail`` where others use the GPU at the start. device_name: as in Experiment; "" is any.
    patience_s: the longest wait for others to leave the device alone. max_retakes: how often a disturbed round is
    measured again.
    """

    timeout_s: float = 3600
    sample_hz: float = 2
    exclusive: str = "warn"
    device_name: str = ""
    patience_s: float = 0
    max_retakes: int = 0
