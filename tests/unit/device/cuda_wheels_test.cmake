# Where CUDA's libraries are found: a tree of folders as Python wheels make them, with links in place of the libraries, is searched
# by common/device/cuda/libraries.cmake.
#   cmake -DSOURCE=... -DWORK=... -P cuda_wheels_test.cmake
cmake_minimum_required(VERSION 3.20)
set(CMAKE_FIND_LIBRARY_PREFIXES lib)
set(CMAKE_FIND_LIBRARY_SUFFIXES .so)
# The system's own folders are out of the way, and so are those of whoever runs this.
set(CMAKE_FIND_USE_CMAKE_SYSTEM_PATH OFF)
set(CMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH OFF)
set(CMAKE_FIND_USE_CMAKE_ENVIRONMENT_PATH OFF)

file(REMOVE_RECURSE ${WORK})
foreach(file nvidia/cudnn/include/cudnn.h nvidia/cudnn/lib/libcudnn.so.9 nvidia/nccl/include/nccl.h nvidia/nccl/lib/libnccl.so.2
    nvidia/cu13/lib/libcublas.so.13 nvidia/cu13/lib/libcudart.so.13 nvidia/cublas/lib/libcublas.so.12
    nvidia/cuda_runtime/lib/libcudart.so.12)
  get_filename_component(folder ${WORK}/packages/${file} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  file(WRITE ${WORK}/real/${file} "")
  file(CREATE_LINK ${WORK}/real/${file} ${WORK}/packages/${file} SYMBOLIC)
endforeach()
foreach(file libcudart.so libcublas.so)
  file(WRITE ${WORK}/toolkit/lib64/${file} "")
endforeach()

function(forget)
  foreach(part CUDART_LIBRARY CUBLAS_LIBRARY CUDNN_INCLUDE CUDNN_LIBRARY NCCL_INCLUDE NCCL_LIBRARY)
    unset(THORAX_${part} CACHE)
  endforeach()
endfunction()

function(expect what is wanted)
  if(NOT "${is}" STREQUAL "${wanted}")
    message(FATAL_ERROR "${what}: \"${is}\", expected \"${wanted}\"")
  endif()
endfunction()

include(${SOURCE}/common/device/cuda/libraries.cmake)
set(packages ${WORK}/packages/nvidia)

# All of it from wheels, of the toolkit's major version.
set(THORAX_CUDA_WHEELS ${WORK}/packages)
foreach(major 12 13)
  forget()
  thorax_find_cuda_libraries("" "" ${major})
  expect("missing, CUDA ${major}" "${THORAX_CUDA_MISSING}" "")
  expect("cuDNN's header" "${THORAX_CUDNN_INCLUDE}" ${packages}/cudnn/include)
  expect("cuDNN" "${THORAX_CUDNN_LIBRARY}" ${packages}/cudnn/lib/libcudnn.so.9)
  expect("NCCL's header" "${THORAX_NCCL_INCLUDE}" ${packages}/nccl/include)
  expect("NCCL" "${THORAX_NCCL_LIBRARY}" ${packages}/nccl/lib/libnccl.so.2)
endforeach()
expect("CUDA 13's cuBLAS" "${THORAX_CUBLAS_LIBRARY}" ${packages}/cu13/lib/libcublas.so.13)
expect("CUDA 13's runtime" "${THORAX_CUDART_LIBRARY}" ${packages}/cu13/lib/libcudart.so.13)

# The folder of the packages may be named by its nvidia/, too; what the toolkit has comes from there.
forget()
set(THORAX_CUDA_WHEELS ${packages})
thorax_find_cuda_libraries("" ${WORK}/toolkit/lib64 12)
expect("the toolkit's cuBLAS" "${THORAX_CUBLAS_LIBRARY}" ${WORK}/toolkit/lib64/libcublas.so)
expect("the toolkit's runtime" "${THORAX_CUDART_LIBRARY}" ${WORK}/toolkit/lib64/libcudart.so)
expect("cuDNN beside a toolkit" "${THORAX_CUDNN_LIBRARY}" ${packages}/cudnn/lib/libcudnn.so.9)

# Nothing is made up where there is nothing.
forget()
set(THORAX_CUDA_WHEELS ${WORK}/real)
file(REMOVE_RECURSE ${WORK}/real/nvidia/nccl)
thorax_find_cuda_libraries("" "" 13)
expect("missing without NCCL" "${THORAX_CUDA_MISSING}" "THORAX_NCCL_INCLUDE;THORAX_NCCL_LIBRARY")
file(REMOVE_RECURSE ${WORK})
