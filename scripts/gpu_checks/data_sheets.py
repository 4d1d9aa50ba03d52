"""What NVIDIA's data sheets say of GPUs, to compare measured ceilings with."""

from collections.abc import Mapping

#: By the name that NVML gives: bytes/s of memory, and operations/s per dtype of products on dense matrices, which are
#: half of what most sheets show with sparsity. float32 is without tensor cores, as TF32 is off by default. Half
#: precision adds up in fp32, which is slower on GeForce.
DATA_SHEETS: Mapping[str, Mapping[str, float]] = {
    name: {"bandwidth": bandwidth, "float32": fp32, "bfloat16": half, "float16": half, "int8": int8}
    for name, bandwidth, fp32, half, int8 in (
        # "NVIDIA H100 Tensor Core GPU", data sheet: SXM5 and PCIe
        ("NVIDIA H100 80GB HBM3", 3.35e12, 67e12, 989e12, 1979e12),
        ("NVIDIA H100 PCIe", 2.0e12, 51e12, 756e12, 1513e12),
        # "NVIDIA H200 Tensor Core GPU", data sheet: SXM
        ("NVIDIA H200", 4.8e12, 67e12, 989e12, 1979e12),
        # "NVIDIA A100 Tensor Core GPU", data sheet
        ("NVIDIA A100-SXM4-80GB", 2.039e12, 19.5e12, 312e12, 624e12),
        ("NVIDIA A100 80GB PCIe", 1.935e12, 19.5e12, 312e12, 624e12),
        ("NVIDIA A100-SXM4-40GB", 1.555e12, 19.5e12, 312e12, 624e12),
        # "NVIDIA L4 Tensor Core GPU" and "NVIDIA L40S", data sheets
        ("NVIDIA L4", 300e9, 30.3e12, 121e12, 242e12),
        ("NVIDIA L40S", 864e9, 91.6e12, 362e12, 733e12),
        # "NVIDIA Ada GPU Architecture", white paper, appendix A
        ("NVIDIA GeForce RTX 4090", 1.008e12, 82.6e12, 165.2e12, 660.6e12),
    )
}
