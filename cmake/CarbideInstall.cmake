# SPDX-License-Identifier: Apache-2.0
# Command, libraries, headers, CMake package, pkg-config file, man pages and completions.

include(CMakePackageConfigHelpers)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/carbide")

install(TARGETS carbide EXPORT carbide-targets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
if(TARGET carbide_shared)
    install(TARGETS carbide_shared EXPORT carbide-targets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
endif()
if(TARGET carbide_net)
    install(TARGETS carbide_net EXPORT carbide-targets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
else() # a header without its library is of no use
    set(without_net PATTERN "redis_directory.h" EXCLUDE)
endif()
if(NOT CARBIDE_HAVE_WEB)
    list(APPEND without_net PATTERN "web.h" EXCLUDE)
endif()
if(TARGET carbide_command)
    install(TARGETS carbide_command RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/carbide" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
    FILES_MATCHING PATTERN "*.h" ${without_net})

install(EXPORT carbide-targets NAMESPACE carbide:: DESTINATION "${package_dir}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/carbide-config.cmake.in"
    "${PROJECT_BINARY_DIR}/carbide-config.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/carbide-config-version.cmake"
    COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/carbide-config.cmake"
    "${PROJECT_BINARY_DIR}/carbide-config-version.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/CarbideDependencies.cmake" DESTINATION "${package_dir}")

set(CARBIDE_PC_CRYPTO "")
if(CARBIDE_WITH_OPENSSL)
    set(CARBIDE_PC_CRYPTO "-lcrypto")
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/carbide.pc.in" "${PROJECT_BINARY_DIR}/carbide.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/carbide.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

# Man pages are written in scdoc's language; without scdoc there are none. Completions are what the command prints.
set(generated "")
find_program(CARBIDE_SCDOC scdoc)
file(GLOB man_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/man/*.scd")
if(CARBIDE_SCDOC)
    foreach(source IN LISTS man_sources)
        cmake_path(GET source STEM LAST_ONLY page)
        set(page "${PROJECT_BINARY_DIR}/man/${page}")
        add_custom_command(OUTPUT "${page}"
            COMMAND "${CMAKE_COMMAND}" -E make_directory "${PROJECT_BINARY_DIR}/man"
            COMMAND sh -c [["$1" <"$2" >"$3"]] sh "${CARBIDE_SCDOC}" "${source}" "${page}"
            DEPENDS "${source}" VERBATIM)
        list(APPEND generated "${page}")
        install(FILES "${page}" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")
    endforeach()
endif()

if(TARGET carbide_command AND NOT CMAKE_CROSSCOMPILING)
    foreach(shell_file IN ITEMS
            "bash:${CMAKE_INSTALL_DATADIR}/bash-completion/completions:carbide"
            "zsh:${CMAKE_INSTALL_DATADIR}/zsh/site-functions:_carbide"
            "fish:${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d:carbide.fish")
        string(REPLACE ":" ";" parts "${shell_file}")
        list(GET parts 0 shell)
        list(GET parts 1 folder)
        list(GET parts 2 name)
        set(file "${PROJECT_BINARY_DIR}/completions/${name}")
        add_custom_command(OUTPUT "${file}"
            COMMAND "${CMAKE_COMMAND}" -E make_directory "${PROJECT_BINARY_DIR}/completions"
            COMMAND sh -c [["$1" completions "$2" >"$3"]] sh $<TARGET_FILE:carbide_command> ${shell} "${file}"
            DEPENDS carbide_command VERBATIM)
        list(APPEND generated "${file}")
        install(FILES "${file}" DESTINATION "${folder}")
    endforeach()
endif()
if(generated)
    add_custom_target(carbide_generated ALL DEPENDS ${generated})
endif()
