"""The packages that cells depend on. An engine's own package, if it is not here, is in its row of engines.ENGINES."""

import importlib.util
import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Literal

from inference_benchmark.machine import compiler, cublas


@dataclass(frozen=True)
class Package:
    """A package that a measurement uses.

    name: for import and in records. needed_for: precisions of transformers, and values of options. is_dependency:
    whether it is installed with this project, not on demand. in_software: whether every record has its version, in
    ``software``. compared_in: the part of a record with the version that has to agree within an environment:
    ``software``, or ``model`` of the cells that used the package; None if versions may differ. lock: the file in envs/
    from which it is installed without the packages that it would replace. on_pypi: its name on PyPI, if that is another
    one. builds: further names there, of other builds of the same source. build_cpu_s: the CPU time that pip takes to
    compile it where no index has a wheel.
    """

    name: str
    needed_for: tuple[str, ...] = ()
    is_dependency: bool = False
    in_software: bool = False
    compared_in: Literal["software", "model"] | None = "model"
    lock: str | None = None
    missing_for_gpu: Callable[[], str | None] = lambda: None
    on_pypi: str = ""
    builds: tuple[str, ...] = ()
    build_cpu_s: int = 0

    def __str__(self) -> str:
        return self.name

    @property
    def distribution(self) -> str:
        """Its name on PyPI."""
        return self.on_pypi or self.name.replace("_", "-")

    def is_in(self, names: Container[str]) -> bool:
        """Whether it or another build of it is among packages by their names on PyPI."""
        return any(each in names for each in (self.distribution, *self.builds))

    @property
    def install(self) -> str:
        """The arguments of ``pip install``."""
        return f"--no-deps -r envs/{self.lock}" if self.lock else self.distribution

    @property
    def version(self) -> str | None:
        """The version of the module that is imported, with its place where that is no installed package, such as a
        checkout in PYTHONPATH: ``5.24.0.dev0 (/src/transformers)``. None without one."""
        spec = importlib.util.find_spec(self.name)  # finds, and does not import
        if spec is None:
            return None
        place = Path(next(iter(spec.submodule_search_locations or ()), spec.origin))
        installed = (
            metadata.distributions(name=each, path=[str(place.parent)]) for each in (self.distribution, *self.builds)
        )
        beside = next(chain.from_iterable(installed), None)
        if beside and beside.read_text("METADATA"):  # a checkout may have the older PKG-INFO
            return beside.version
        return f"{_stated_version(place) or (beside.version if beside else 'unknown')} ({place})"

    @property
    def is_missing(self) -> bool:
        """Whether it would have to be installed."""
        return not self.is_dependency and importlib.util.find_spec(self.name) is None


def _stated_version(package: Path) -> str | None:
    """The version that the files of a package give; None where they do not give it as a text."""
    paths = filter(Path.exists, map(package.joinpath, ("version.py", "__init__.py")))
    texts = (path.read_text(encoding="utf-8") for path in paths)
    found = (re.search(r"""^__version__\b[^=\n]*= *["']([^"']+)""", text, re.MULTILINE) for text in texts)
    return next((match[1] for match in found if match), None)


#: In Package.needed_for: every engine that loads weights.
WEIGHTS = "weights"


def _dependency(name: str, *needed_for: str, compared_in: Literal["software"] | None = "software") -> Package:
    return Package(name, needed_for, is_dependency=True, in_software=True, compared_in=compared_in)


PACKAGES = {
    package.name: package
    for package in (
        _dependency("torch", WEIGHTS),
        _dependency("transformers", WEIGHTS),
        _dependency("accelerate", WEIGHTS),
        _dependency("bitsandbytes", "int8", "int8-threshold-0", "nf4"),
        *(_dependency(name, compared_in=None) for name in ("tokenizers", "safetensors", "numpy", "snakemake")),
        Package("ctranslate2", in_software=True, missing_for_gpu=cublas.missing),
        Package("torchao", ("int8-weight-only", "int4-weight-only")),
        Package("hqq", ("quantized-8bit", "quantized-4bit", "quantized-2bit")),
        # Its fastest kernels, Marlin, are built when weights are loaded.
        Package("gptqmodel", ("gptq", "awq"), lock="gptqmodel.lock", missing_for_gpu=compiler.missing_nvcc),
        Package("optimum", ("gptq",), compared_in=None, lock="gptqmodel.lock"),
        Package(
            "llama_cpp",
            missing_for_gpu=compiler.missing_to_build_llama_cpp,
            on_pypi="llama-cpp-python",
            build_cpu_s=1000,
        ),
    )
}


def hidden_for(precision: str) -> tuple[str, ...]:
    """Packages that a process must not import that workers of this precision are forked from.

    transformers imports torchao wherever it is installed, and torchao asks CUDA for its devices, which a fork cannot
    use then. What else is installed for a precision may need it, as gptqmodel does.
    """
    is_needed = any(precision in each.needed_for and not each.is_dependency for each in PACKAGES.values())
    return () if is_needed else ("torchao",)
