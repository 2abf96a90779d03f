# SPDX-License-Identifier: Apache-2.0
# bench/*.c, each an executable in build/PRESET/bench. They are not tests.

file(GLOB carbide_bench_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/bench/*.c")
foreach(file IN LISTS carbide_bench_sources)
    cmake_path(GET file STEM name)
    add_executable(bench_${name} "${file}")
    set_target_properties(bench_${name} PROPERTIES
        OUTPUT_NAME "${name}" RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bench")
    target_include_directories(bench_${name} PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
    target_link_libraries(bench_${name} PRIVATE carbide_flags carbide Threads::Threads m)
    target_link_options(bench_${name} PRIVATE -Wl,--as-needed)
endforeach()

# io_uring is only ever measured, beside the threads that are used instead (bench/io.c says why).
find_path(CARBIDE_URING_INCLUDE_DIR liburing.h)
find_library(CARBIDE_URING_LIBRARY uring)
mark_as_advanced(CARBIDE_URING_INCLUDE_DIR CARBIDE_URING_LIBRARY)
if(TARGET bench_io AND CARBIDE_URING_INCLUDE_DIR AND CARBIDE_URING_LIBRARY)
    target_compile_definitions(bench_io PRIVATE CARBIDE_BENCH_LIBURING)
    target_include_directories(bench_io SYSTEM PRIVATE "${CARBIDE_URING_INCLUDE_DIR}")
    target_link_libraries(bench_io PRIVATE "${CARBIDE_URING_LIBRARY}")
endif()
