# SPDX-License-Identifier: Apache-2.0
# What every target of the project is compiled with. Consumers get none of it.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# Always with symbols: a report from the field needs them, and they cost no memory while it runs.
set(CMAKE_C_FLAGS_RELEASE "-O3 -g -fno-plt -DNDEBUG")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")

add_library(carbide_flags INTERFACE)
target_compile_definitions(carbide_flags INTERFACE
    _GNU_SOURCE
    CARBIDE_VERSION="${PROJECT_VERSION}"
    $<$<BOOL:${CARBIDE_DEBUG}>:CARBIDE_DEBUG>
    $<$<BOOL:${CARBIDE_DEBUG_SLOW}>:CARBIDE_DEBUG_SLOW>
    $<$<BOOL:${CARBIDE_FAULTS}>:CARBIDE_FAULTS>)
target_compile_options(carbide_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes
    -Wmissing-prototypes -Wpointer-arith -Wcast-align -Wwrite-strings -Wundef -Wvla -Wformat=2
    -Wswitch-enum
    # Named constants are enumerators here; using one with a double is no confusion.
    $<$<C_COMPILER_ID:Clang>:-Wno-enum-float-conversion>
    $<$<BOOL:${CARBIDE_WARNINGS_AS_ERRORS}>:-Werror>)

# The baseline is any x86-64; what newer CPUs add is chosen while running (cbi_sys_cpu).
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64" AND NOT CMAKE_C_FLAGS MATCHES "-march=")
    target_compile_options(carbide_flags INTERFACE -march=x86-64)
endif()

if(CARBIDE_SANITIZE)
    add_compile_options(-fsanitize=${CARBIDE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${CARBIDE_SANITIZE})
endif()
if(CARBIDE_COVERAGE)
    add_compile_options(--coverage -fprofile-update=atomic)
    add_link_options(--coverage)
endif()
