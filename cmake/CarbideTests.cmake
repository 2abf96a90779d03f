# SPDX-License-Identifier: Apache-2.0
#
# tests/<room>/test_<file>.c            one executable, linked with libcarbide.a: internal names are visible to it
# tests/<room>/test_<file>.sh, .py      run as it is, with the environment below
# tests/fault                           only in builds with CARBIDE_FAULTS; they run nothing else
#
# The label of a test is its folder. A line "ctest-timeout: SECONDS", "ctest-labels: a;b" or "ctest-args: ..." in one of the
# first 20 lines of a test (in a comment) says what differs: 240 s, the folder, none; "ctest-wraps: NAME..." has the test's own
# wrap_NAME called instead of these functions of the library (ld --wrap). A test that ends with 77 was
# skipped and has said why. Labels with a meaning of their own: oracle (needs peers or data), long (minutes), fault (also by
# a name with "fault" in it: the only ones that run in builds with CARBIDE_FAULTS).
# Tests find CARBIDE (the command), CARBIDE_BUILD and CARBIDE_SOURCE in their environment.

set(CARBIDE_TEST_TIMEOUT_FACTOR 1 CACHE STRING "Multiplies every test's time limit (scripts/test --long)")
find_path(CMOCKA_INCLUDE_DIR cmocka.h)
find_library(CMOCKA_LIBRARY cmocka)
mark_as_advanced(CMOCKA_INCLUDE_DIR CMOCKA_LIBRARY)
if(NOT CMOCKA_INCLUDE_DIR OR NOT CMOCKA_LIBRARY)
    message(FATAL_ERROR "The tests need cmocka, which is not here (or set CARBIDE_BUILD_TESTS=OFF).\n"
        "On Debian and Ubuntu: scripts/setup test")
endif()

set(carbide_build_kind plain)
if(CARBIDE_SANITIZE)
    set(carbide_build_kind ${CARBIDE_SANITIZE})
endif()
set(carbide_debug_build 0)
if(CARBIDE_DEBUG)
    set(carbide_debug_build 1)
endif()
set(carbide_test_environment
    "CARBIDE_DEBUG_BUILD=${carbide_debug_build}"
    "CARBIDE=${PROJECT_BINARY_DIR}/bin/carbide"
    "CARBIDE_BUILD=${PROJECT_BINARY_DIR}"
    "CARBIDE_SOURCE=${PROJECT_SOURCE_DIR}"
    "CARBIDE_BUILD_KIND=${carbide_build_kind}"
    "ASAN_OPTIONS=abort_on_error=1:detect_stack_use_after_return=1:allocator_may_return_null=1"
    "UBSAN_OPTIONS=print_stacktrace=1"
    "TSAN_OPTIONS=allocator_may_return_null=1:halt_on_error=1:second_deadlock_stack=1")

add_library(carbide_test_flags INTERFACE)
target_include_directories(carbide_test_flags INTERFACE
    "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/tests")
target_include_directories(carbide_test_flags SYSTEM INTERFACE
    "${CMOCKA_INCLUDE_DIR}" "${CARBIDE_XXHASH_INCLUDE_DIR}")
target_link_libraries(carbide_test_flags INTERFACE
    carbide_flags carbide carbide::lz4 carbide::zstd carbide::zlib "${CMOCKA_LIBRARY}" Threads::Threads m)

file(GLOB carbide_support_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/support/*.c")
if(carbide_support_sources)
    add_library(carbide_test_support STATIC ${carbide_support_sources})
    set_target_properties(carbide_test_support PROPERTIES
        ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
    target_link_libraries(carbide_test_support PUBLIC carbide_test_flags)
endif()

# What the first lines of a test say about "ctest-${what}:".
function(carbide_test_setting file what default out)
    file(STRINGS "${file}" lines LIMIT_COUNT 20)
    set(value "${default}")
    foreach(line IN LISTS lines)
        if(line MATCHES "ctest-${what}: *([^*]*)")
            string(STRIP "${CMAKE_MATCH_1}" value)
        endif()
    endforeach()
    set(${out} "${value}" PARENT_SCOPE)
endfunction()

function(carbide_register_test name file room)
    carbide_test_setting("${file}" timeout 120 timeout)
    carbide_test_setting("${file}" labels "" labels)
    if(name MATCHES "fault")
        list(APPEND labels fault)
    endif()
    math(EXPR timeout "${timeout} * ${CARBIDE_TEST_TIMEOUT_FACTOR}")
    if(CARBIDE_SANITIZE)
        math(EXPR timeout "${timeout} * 4")
    endif()
    set_tests_properties(${name} PROPERTIES
        TIMEOUT ${timeout}
        LABELS "${room};${labels}"
        SKIP_RETURN_CODE 77
        ENVIRONMENT "${carbide_test_environment}")
endfunction()

file(GLOB carbide_tests CONFIGURE_DEPENDS
    "${PROJECT_SOURCE_DIR}/tests/*/test_*.c"
    "${PROJECT_SOURCE_DIR}/tests/*/test_*.sh"
    "${PROJECT_SOURCE_DIR}/tests/*/test_*.py")
foreach(file IN LISTS carbide_tests)
    cmake_path(GET file PARENT_PATH folder)
    cmake_path(GET folder FILENAME room)
    cmake_path(GET file STEM name)
    cmake_path(GET file EXTENSION LAST_ONLY extension)
    string(REGEX REPLACE "^test_" "${room}." test "${name}")
    if(room IN_LIST CARBIDE_ROOMS_ALL AND NOT room IN_LIST CARBIDE_ROOMS)
        continue()
    endif()
    if(room STREQUAL "fault" AND NOT CARBIDE_FAULTS)
        continue()
    endif()
    if(room STREQUAL "net" AND (NOT TARGET carbide_net OR (name MATCHES "web|html" AND NOT CARBIDE_HAVE_WEB)))
        continue()
    endif()
    if(room MATCHES "^(cli|oracle|fault)$" AND NOT TARGET carbide_command AND NOT extension STREQUAL ".c")
        continue()
    endif()
    carbide_test_setting("${file}" args "" arguments)
    separate_arguments(arguments)
    if(extension STREQUAL ".c")
        set(target "test_${room}_${name}")
        add_executable(${target} "${file}")
        set_target_properties(${target} PROPERTIES
            OUTPUT_NAME "${name}" RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests/${room}")
        if(TARGET carbide_test_support)
            target_link_libraries(${target} PRIVATE carbide_test_support)
        endif()
        target_link_libraries(${target} PRIVATE carbide_test_flags)
        if(room STREQUAL "net")
            target_link_libraries(${target} PRIVATE carbide_net carbide::hiredis)
        endif()
        carbide_test_setting("${file}" wraps "" wraps)
        separate_arguments(wraps)
        foreach(wrap IN LISTS wraps)
            target_link_options(${target} PRIVATE "LINKER:--wrap=${wrap}")
        endforeach()
        if(room STREQUAL "cli" AND TARGET carbide_cli)
            target_sources(${target} PRIVATE $<TARGET_OBJECTS:carbide_cli>)
            target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/cli")
            if(TARGET carbide_net)
                target_link_libraries(${target} PRIVATE carbide_net)
            endif()
        endif()
        add_test(NAME ${test} COMMAND ${target} ${arguments})
    elseif(extension STREQUAL ".py")
        add_test(NAME ${test} COMMAND python3 -B "${file}" ${arguments})
    else()
        add_test(NAME ${test} COMMAND bash "${file}" ${arguments})
    endif()
    carbide_register_test(${test} "${file}" ${room})
endforeach()

# Programs that tests in other languages use: tests/oracle/<name>.c is tests/oracle/<name>.
file(GLOB carbide_test_tools CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/oracle/*.c")
list(FILTER carbide_test_tools EXCLUDE REGEX "/test_[^/]*$")
foreach(file IN LISTS carbide_test_tools)
    cmake_path(GET file STEM name)
    add_executable(oracle_${name} "${file}")
    set_target_properties(oracle_${name} PROPERTIES
        OUTPUT_NAME "${name}" RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests/oracle")
    target_link_libraries(oracle_${name} PRIVATE carbide_test_flags)
endforeach()

# Each public header compiles alone, as C11 and as C++17.
file(GLOB carbide_headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/carbide/*.h")
include(CheckLanguage)
check_language(CXX)
if(CMAKE_CXX_COMPILER)
    enable_language(CXX)
endif()
set(header_units_c "")
set(header_units_cxx "")
foreach(header IN LISTS carbide_headers)
    cmake_path(GET header STEM name)
    foreach(extension IN ITEMS c cxx)
        set(unit "${PROJECT_BINARY_DIR}/tests/headers/${name}.${extension}")
        file(CONFIGURE OUTPUT "${unit}" CONTENT "#include \"carbide/${name}.h\"\n#include \"carbide/${name}.h\"\nextern int carbide_header_unit;\n")
        list(APPEND header_units_${extension} "${unit}")
    endforeach()
endforeach()
if(header_units_c)
    add_library(carbide_headers_c OBJECT ${header_units_c})
    set_target_properties(carbide_headers_c PROPERTIES C_STANDARD 11)
    if(CMAKE_CXX_COMPILER)
        add_library(carbide_headers_cxx OBJECT ${header_units_cxx})
        set_target_properties(carbide_headers_cxx PROPERTIES CXX_STANDARD 17 CXX_EXTENSIONS OFF)
    endif()
    foreach(target IN ITEMS carbide_headers_c carbide_headers_cxx)
        if(TARGET ${target})
            target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/include")
            target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic
                $<$<BOOL:${CARBIDE_WARNINGS_AS_ERRORS}>:-Werror>)
        endif()
    endforeach()
endif()

# Rules about the source itself.
add_test(NAME house.layers COMMAND "${PROJECT_SOURCE_DIR}/scripts/check-layers")
add_test(NAME house.sizes COMMAND "${PROJECT_SOURCE_DIR}/scripts/check-sizes")
set(house_tests house.layers house.sizes)
if(TARGET carbide_shared AND NOT CARBIDE_SANITIZE)
    add_test(NAME house.exports
        COMMAND "${PROJECT_SOURCE_DIR}/scripts/check-exports" $<TARGET_FILE:carbide_shared>)
    list(APPEND house_tests house.exports)
endif()
set_tests_properties(${house_tests} PROPERTIES LABELS house TIMEOUT 60)
