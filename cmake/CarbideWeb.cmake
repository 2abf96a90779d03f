# SPDX-License-Identifier: Apache-2.0
# carbide_microhttpd: what the command and the tests link for web pages.
#
# libmicrohttpd's archive is what a static command can have, but distributions build it with TLS, and GnuTLS has no archive
# that links. carbide asks it for no TLS, so what it would call of GnuTLS ends here, in functions that are never called. They
# are in the command and the tests alone: who uses libcarbide-net links the shared library, and may have GnuTLS itself.

include(CheckCSourceCompiles)
add_library(carbide_microhttpd INTERFACE)
set(web_inside OFF)
if(CARBIDE_microhttpd_ARCHIVE AND CMAKE_NM)
    execute_process(COMMAND "${CMAKE_NM}" -u "${CARBIDE_microhttpd_ARCHIVE}" OUTPUT_VARIABLE names ERROR_QUIET)
    string(REGEX MATCHALL "gnutls_[A-Za-z0-9_]+" names "${names}")
    list(REMOVE_DUPLICATES names)
    set(text "/* Made by cmake/CarbideWeb.cmake, which says why. */\n")
    foreach(name IN LISTS names)
        string(APPEND text "long ${name}(void);\nlong ${name}(void) {\n    return 0;\n}\n")
    endforeach()
    set(web_no_tls "${PROJECT_BINARY_DIR}/web_no_tls.c")
    file(CONFIGURE OUTPUT "${web_no_tls}" CONTENT "${text}" @ONLY)
    set(CMAKE_REQUIRED_LIBRARIES "${CARBIDE_microhttpd_ARCHIVE}" Threads::Threads)
    set(CMAKE_REQUIRED_INCLUDES "${CARBIDE_microhttpd_INCLUDE_DIR}")
    if(CARBIDE_STATIC_COMMAND)
        set(CMAKE_REQUIRED_FLAGS -fPIE)
        set(CMAKE_REQUIRED_LINK_OPTIONS -static-pie)
    endif()
    check_c_source_compiles("${text}
        #include <microhttpd.h>
        int main(void) { return MHD_start_daemon(0, 0, 0, 0, 0, 0, MHD_OPTION_END) == 0; }" CARBIDE_WEB_INSIDE)
    foreach(name IN ITEMS LIBRARIES INCLUDES FLAGS LINK_OPTIONS)
        unset(CMAKE_REQUIRED_${name})
    endforeach()
    set(web_inside ${CARBIDE_WEB_INSIDE})
endif()
if(web_inside)
    add_library(carbide_no_tls STATIC "${web_no_tls}")
    target_link_libraries(carbide_microhttpd INTERFACE "${CARBIDE_microhttpd_ARCHIVE}" carbide_no_tls Threads::Threads)
elseif(CARBIDE_STATIC_COMMAND)
    message(STATUS "libmicrohttpd cannot be linked into a static command here: there are no web pages")
    set(CARBIDE_HAVE_WEB OFF)
else()
    target_link_libraries(carbide_microhttpd INTERFACE carbide::microhttpd)
endif()
