"""The environment variables that records keep, each with the reason. Others change no figure, or are set by this
program: they are not recorded."""

import os
from collections.abc import Mapping
from pathlib import Path

#: Variables that cells of one table have to agree in, by what of their speed, memory or answers they change.
COMPARED = {
    "number of threads": (
        "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "MKL_NUM_THREADS", "MKL_DOMAIN_NUM_THREADS",
        "MKL_DYNAMIC", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
        "TORCHINDUCTOR_CPP_DYNAMIC_THREADS",
    ),
    "CPUs that threads run on": ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET"),
    "whether waiting threads spin or sleep, and how work is divided among threads": (
        "OMP_WAIT_POLICY", "OMP_SCHEDULE", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY",
    ),
    "instructions of the CPU that kernels use": (
        "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA",
        "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "DNNL_CPU_ISA_HINTS", "OPENBLAS_CORETYPE", "BLIS_ARCH_TYPE",
        "FBGEMM_ENABLE_INSTRUCTIONS", "FBGEMM_ENABLE_AVX512_256", "FBGEMM_FORCE_AUTOVEC", "FBGEMM_NO_AUTOVEC",
        "FBGEMM_NO_ASMJIT", "CT2_FORCE_CPU_ISA", "TORCHINDUCTOR_CPP_MARCH", "TORCHINDUCTOR_VEC_ISA_OK",
    ),
    "library and kernels of matrix products": (
        "CT2_USE_MKL", "CT2_PACKED_GEMM", "CT2_USE_EXPERIMENTAL_PACKED_GEMM", "TORCH_BLAS_PREFER_CUBLASLT",
        "TORCH_BLAS_PREFER_HIPBLASLT", "TORCH_LINEAR_FLATTEN_3D", "TORCH_MKLDNN_MATMUL_MIN_DIM",
        "TORCH_MKLDNN_MATMUL_MIN_SIZE", "DISABLE_ADDMM_CUDA_LT", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE",
        "MKL_DISABLE_FAST_MM", "BNB_CUDA_VERSION", "USE_HUB_KERNELS", "FLASH_ATTENTION_DETERMINISTIC",
    ),
    "arithmetic of products": (
        "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "CUBLAS_EMULATE_SINGLE_PRECISION",
        "CUBLAS_EMULATION_STRATEGY", "CT2_CUDA_ALLOW_FP16", "CT2_CUDA_ALLOW_BF16", "CT2_CUDA_TRUE_FP16_GEMM",
        "TRITON_F32_DEFAULT",
    ),
    "how memory is allocated, and which compiled kernels are kept": (
        "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING",
        "THP_MEM_ALLOC_ENABLE", "CT2_CUDA_ALLOCATOR", "CT2_CUDA_CACHING_ALLOCATOR_CONFIG", "MKL_FAST_MEMORY_LIMIT",
        "LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY", "GLIBC_TUNABLES",
        "MALLOC_ARENA_MAX", "MALLOC_CONF", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_",
        "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD",
    ),
    "how a GPU gets its kernels": (
        "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_SCALE_LAUNCH_QUEUES",
        "CUDA_FORCE_PTX_JIT", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
    ),
    "what is compiled, and how": (
        "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE", "TRITON_INTERPRET",
        *(f"TORCHINDUCTOR_{name}" for name in (
            "BENCHMARK_FUSION", "COMPREHENSIVE_PADDING", "COOPERATIVE_REDUCTIONS", "COORDINATE_DESCENT_TUNING",
            "CPP_ENABLE_TILING_HEURISTIC", "CPP_ENABLE_UNSAFE_MATH_OPT_FLAG", "CPP_GEMM_CACHE_BLOCKING",
            "CPP_GEMM_MAX_K_SLICES", "CPP_GEMM_THREAD_FACTORS", "CPP_MIN_CHUNK_SIZE", "CPP_WEIGHT_PREPACK",
            "CPP_WRAPPER", "CUDAGRAPHS", "EMULATE_PRECISION_CASTS", "ENABLE_PDL", "FORCE_LAYOUT_OPT", "FREEZING",
            "GRAPH_PARTITION", "LAYOUT_OPTIMIZATION", "MAX_AUTOTUNE", "MAX_AUTOTUNE_GEMM",
            "MAX_AUTOTUNE_GEMM_BACKENDS", "MAX_AUTOTUNE_POINTWISE", "MEMORY_PLANNING", "MIX_ORDER_REDUCTION",
            "MULTI_KERNEL", "NAN_ASSERTS", "PERSISTENT_REDUCTIONS", "PROLOGUE_FUSION", "SHAPE_PADDING",
            "SIZE_ASSERTS", "USE_FAST_MATH", "USE_STATIC_CUDA_LAUNCHER",
        )),
    ),
    "how fast Python itself is": ("PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC", "PYTHON_GIL", "PYTHON_JIT"),
}  # fmt: skip
#: Variables that need not agree: where packages and libraries are found. The versions of packages are compared.
FREE = ("PYTHONPATH", "LD_LIBRARY_PATH")
#: Variables that a worker does not inherit. The first two, and not the settings of torch, would decide whether products
#: of fp32 matrices run in TF32. Snakemake sets the last for each job; OPENBLAS_NUM_THREADS, set by us, comes before it.
NOT_INHERITED = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "GOTO_NUM_THREADS")

_COMPARED = frozenset(name for names in COMPARED.values() for name in names)
_LIBRARY = str(Path(__file__).resolve().parents[2])


def recorded(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a worker that its record keeps; of PYTHONPATH what does not belong to this program."""
    kept = {name: environ[name] for name in sorted(environ) if name in _COMPARED or name in FREE}
    if "PYTHONPATH" in kept:
        folders = kept.pop("PYTHONPATH").split(os.pathsep)
        if others := os.pathsep.join(folder for folder in folders if folder not in ("", _LIBRARY)):
            kept["PYTHONPATH"] = others
    return kept


def must_agree(name: str) -> bool:
    """Whether cells of one table have to agree in a variable. Records of earlier versions have others too."""
    return name in _COMPARED
