# SPDX-License-Identifier: Apache-2.0
# The command: sees include/ only, and carries the library inside.

file(GLOB carbide_cli_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cli/*.c")
set(carbide_cli_main "${PROJECT_SOURCE_DIR}/cli/main.c")
set(carbide_cli_rest ${carbide_cli_sources})
list(REMOVE_ITEM carbide_cli_rest "${carbide_cli_main}")

if(EXISTS "${carbide_cli_main}")
    # Everything but main, so that tests/cli can link with it.
    add_library(carbide_cli OBJECT ${carbide_cli_rest})
    target_include_directories(carbide_cli PUBLIC "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/cli")
    target_link_libraries(carbide_cli PRIVATE carbide_flags)
    add_executable(carbide_command "${carbide_cli_main}" $<TARGET_OBJECTS:carbide_cli>)
    set_target_properties(carbide_command PROPERTIES OUTPUT_NAME carbide)
    target_include_directories(carbide_command PRIVATE "${PROJECT_SOURCE_DIR}/cli")
    target_link_libraries(carbide_command PRIVATE carbide_flags carbide)
    target_link_options(carbide_command PRIVATE -Wl,--as-needed -Wl,--gc-sections)
endif()
