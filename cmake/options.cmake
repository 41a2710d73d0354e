# Compiler, warnings, sanitizers. Instruction sets are raised by function attributes in kernels/, never here.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE OFF)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

option(MILLRACE_TESTS "build the tests" ON)
option(MILLRACE_BENCH "build the micro-benchmarks" OFF)
option(MILLRACE_EMULATE_TILES "run what is written for AMX tiles on AVX-512 with BF16: to test it, slowly, on machines without tiles" OFF)
set(MILLRACE_SANITIZE "" CACHE STRING "address (with undefined) or thread")

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")
add_compile_options(-Wall -Wextra -Wno-missing-field-initializers -Wno-stringop-overflow -Wno-restrict -Wno-array-bounds -Wno-stringop-overread -Werror=return-type -Werror=unused-result -ffp-contract=off
                    -fno-math-errno -fdiagnostics-color=auto)
if(MILLRACE_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O0)
  add_link_options(-fsanitize=address,undefined)
elseif(MILLRACE_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -O0 -Wno-tsan)
  add_link_options(-fsanitize=thread)
elseif(MILLRACE_SANITIZE)
  message(FATAL_ERROR "MILLRACE_SANITIZE is '${MILLRACE_SANITIZE}'; it must be address, thread or empty")
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${CCACHE})
endif()
