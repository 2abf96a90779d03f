# SPDX-License-Identifier: Apache-2.0
# tests/fuzz/fuzz_<x>.c with its seeds in tests/fuzz/corpus/<x>/. As a test each target runs for CARBIDE_FUZZ_SECONDS.

set(CARBIDE_FUZZ_SECONDS 20 CACHE STRING "How long each fuzz target runs under ctest")
# What decides over a change must not be chance: the same inputs in the same order, until somebody asks for others. Beside the
# seed that takes addresses that stay (libFuzzer tries the values that code compares, and pointers are among them; where
# setarch may not, they move) and no look at the clock for what it wrote itself (-reload).
set(CARBIDE_FUZZ_SEED 20261121 CACHE STRING "Seed of each fuzz target under ctest; 0 is another one each time")
set(fixed_addresses setarch ${CMAKE_HOST_SYSTEM_PROCESSOR} -R)
execute_process(COMMAND ${fixed_addresses} true RESULT_VARIABLE not_fixed OUTPUT_QUIET ERROR_QUIET)
if(not_fixed)
    set(fixed_addresses "")
endif()
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "libFuzzer comes with clang: set CMAKE_C_COMPILER (on Debian and Ubuntu: scripts/setup all)")
endif()

file(GLOB carbide_fuzz_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/fuzz/fuzz_*.c")
foreach(file IN LISTS carbide_fuzz_sources)
    cmake_path(GET file STEM target)
    string(REGEX REPLACE "^fuzz_" "" name "${target}")
    if(name STREQUAL "redis" AND NOT TARGET carbide_net)
        continue() # no hiredis, nothing that reads what a directory answers
    endif()
    set(seeds "${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name}")
    set(found "${PROJECT_BINARY_DIR}/corpus/${name}")
    file(MAKE_DIRECTORY "${found}")
    add_executable(${target} "${file}")
    target_include_directories(${target} PRIVATE
        "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/tests")
    set_source_files_properties("${file}" PROPERTIES COMPILE_OPTIONS -Wno-missing-prototypes) # LLVMFuzzerTestOneInput
    target_link_libraries(${target} PRIVATE carbide_flags carbide)
    if(name STREQUAL "redis")
        target_link_libraries(${target} PRIVATE carbide_net)
    endif()
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    if(NOT EXISTS "${seeds}")
        set(seeds "")
    endif()
    add_test(NAME fuzz.${name} COMMAND ${fixed_addresses} $<TARGET_FILE:${target}>
        -seed=${CARBIDE_FUZZ_SEED} -reload=0 -max_total_time=${CARBIDE_FUZZ_SECONDS} -timeout=30 -rss_limit_mb=2048 -print_final_stats=1
        -artifact_prefix=${PROJECT_BINARY_DIR}/${name}- "${found}" ${seeds})
    math(EXPR timeout "${CARBIDE_FUZZ_SECONDS} + 60")
    set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT ${timeout})
endforeach()
