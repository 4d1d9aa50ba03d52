# Leaves out of a build of llama-cpp-python what the engine llama-cpp does not use (docs/environments.md).
# The package asks for llama.cpp's common library in CMake's cache, which a variable goes before (CMP0126).
set(LLAMA_BUILD_COMMON OFF)
