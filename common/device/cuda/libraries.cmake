# Finds CUDA's libraries: in the toolkit, else where Python wheels put them (site-packages/nvidia), where they have no plain .so and
# are linked by the file that carries the version. Sets, as cache variables, THORAX_{CUDART,CUBLAS,CUDNN,NCCL}_LIBRARY and
# THORAX_{CUDNN,NCCL}_INCLUDE; THORAX_CUDA_MISSING is the list of those that are nowhere.
set(THORAX_CUDA_WHEELS "" CACHE PATH
    "A folder of Python packages with nvidia/ in it, to look in for cuDNN, NCCL, cuBLAS and the CUDA runtime; empty: python3's own")

# The folders of Python packages that have anything of NVIDIA's.
function(thorax_find_wheels out)
  set(folders ${THORAX_CUDA_WHEELS})
  find_program(THORAX_WHEELS_PYTHON python3)
  if(NOT folders AND THORAX_WHEELS_PYTHON)
    execute_process(COMMAND ${THORAX_WHEELS_PYTHON} -c
      "import site, sys; print(';'.join(dict.fromkeys([p for p in sys.path if p.endswith('-packages')] + site.getsitepackages() + [site.getusersitepackages()])))"
      OUTPUT_VARIABLE folders ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
  set(found "")
  foreach(folder ${folders})
    if(IS_DIRECTORY ${folder}/nvidia)
      list(APPEND found ${folder}/nvidia)
    elseif(folder MATCHES "/nvidia/?$" AND IS_DIRECTORY ${folder})
      list(APPEND found ${folder})
    endif()
  endforeach()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

# CUDA 13's wheels share nvidia/cu13; older ones, and cuDNN's and NCCL's of any time, have a folder each.
function(thorax_find_cuda_libraries toolkit_includes toolkit_libraries major)
  thorax_find_wheels(wheels)
  set(includes "")
  set(libraries "")
  foreach(wheel ${wheels})
    file(GLOB here LIST_DIRECTORIES true ${wheel}/*/include)
    list(APPEND includes ${here})
    file(GLOB here LIST_DIRECTORIES true ${wheel}/*/lib ${wheel}/*/lib64)
    list(APPEND libraries ${here})
  endforeach()
  find_library(THORAX_CUDART_LIBRARY NAMES cudart libcudart.so.${major} HINTS ${toolkit_libraries} PATHS ${libraries})
  find_library(THORAX_CUBLAS_LIBRARY NAMES cublas libcublas.so.${major} HINTS ${toolkit_libraries} PATHS ${libraries})
  find_library(THORAX_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${toolkit_libraries} PATHS ${libraries})
  find_library(THORAX_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${toolkit_libraries} PATHS ${libraries})
  # The header that came with the library, where several lie about.
  get_filename_component(cudnn "${THORAX_CUDNN_LIBRARY}" DIRECTORY)
  get_filename_component(nccl "${THORAX_NCCL_LIBRARY}" DIRECTORY)
  find_path(THORAX_CUDNN_INCLUDE cudnn.h HINTS ${cudnn}/../include ${toolkit_includes} PATHS ${includes})
  find_path(THORAX_NCCL_INCLUDE nccl.h HINTS ${nccl}/../include ${toolkit_includes} PATHS ${includes})
  set(missing "")
  foreach(part CUDART_LIBRARY CUBLAS_LIBRARY CUDNN_INCLUDE CUDNN_LIBRARY NCCL_INCLUDE NCCL_LIBRARY)
    if(NOT THORAX_${part})
      list(APPEND missing THORAX_${part})
    endif()
  endforeach()
  set(THORAX_CUDA_MISSING "${missing}" PARENT_SCOPE)
endfunction()
