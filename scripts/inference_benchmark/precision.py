"""The precisions a cell can ask for, and what each means for weights and activations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """One column of the tables.

    name: as in config.yaml and in paths. note: a second line in table headers, or "".
    weights, activations: dtype names. quantised: weights of linear layers are stored in 8 bits.
    """

    name: str
    weights: str
    activations: str
    note: str = ""
    quantised: bool = False

    @property
    def heading(self) -> str:
        return f"{self.name}<br>{self.note}" if self.note else self.name


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", weights="float32", activations="float32"),
        Precision("bf16", weights="bfloat16", activations="bfloat16"),
        Precision("fp16", weights="float16", activations="float16"),
        # Dettmers et al. 2022, arXiv:2208.07339. Its authors' kernels compute in float16; with
        # bfloat16 activations bitsandbytes casts, and logs a warning, once per matrix product.
        Precision("int8", weights="int8", activations="float16", note="LLM.int8()", quantised=True),
    )
}
