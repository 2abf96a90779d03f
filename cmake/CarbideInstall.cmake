# SPDX-License-Identifier: Apache-2.0
# Command, libraries, headers, CMake package, pkg-config file, man pages and completions.

include(CMakePackageConfigHelpers)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/carbide")

install(TARGETS carbide EXPORT carbide-targets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
if(TARGET carbide_shared)
    install(TARGETS carbide_shared EXPORT carbide-targets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
endif()
if(TARGET carbide_command)
    install(TARGETS carbide_command RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/carbide" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
    FILES_MATCHING PATTERN "*.h")

install(EXPORT carbide-targets NAMESPACE carbide:: DESTINATION "${package_dir}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/carbide-config.cmake.in"
    "${PROJECT_BINARY_DIR}/carbide-config.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/carbide-config-version.cmake"
    COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/carbide-config.cmake"
    "${PROJECT_BINARY_DIR}/carbide-config-version.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/CarbideDependencies.cmake" DESTINATION "${package_dir}")

configure_file("${PROJECT_SOURCE_DIR}/cmake/carbide.pc.in" "${PROJECT_BINARY_DIR}/carbide.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/carbide.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

file(GLOB man_pages CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/man/*.1")
install(FILES ${man_pages} DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")

set(completions "${PROJECT_SOURCE_DIR}/completions")
foreach(shell_file IN ITEMS
        "carbide.bash:${CMAKE_INSTALL_DATADIR}/bash-completion/completions:carbide"
        "_carbide:${CMAKE_INSTALL_DATADIR}/zsh/site-functions:_carbide"
        "carbide.fish:${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d:carbide.fish")
    string(REPLACE ":" ";" parts "${shell_file}")
    list(GET parts 0 source)
    list(GET parts 1 folder)
    list(GET parts 2 name)
    install(FILES "${completions}/${source}" DESTINATION "${folder}" RENAME "${name}" OPTIONAL)
endforeach()
