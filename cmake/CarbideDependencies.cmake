# SPDX-License-Identifier: Apache-2.0
# The compression libraries, as imported targets. Also used by the installed package.
#
# carbide::X is the static archive where there is one: code that is mapped by nobody else should at least be small, and
# a budget of 8 MiB feels every library that is loaded whole. carbide::X_shared is what libcarbide.so links with.

function(carbide_find_codec name header library)
    find_path(CARBIDE_${name}_INCLUDE_DIR ${header})
    find_library(CARBIDE_${name}_ARCHIVE NAMES lib${library}.a)
    find_library(CARBIDE_${name}_LIBRARY NAMES ${library})
    mark_as_advanced(CARBIDE_${name}_INCLUDE_DIR CARBIDE_${name}_ARCHIVE CARBIDE_${name}_LIBRARY)
    if(NOT CARBIDE_${name}_INCLUDE_DIR OR NOT CARBIDE_${name}_LIBRARY)
        message(FATAL_ERROR
            "carbide needs ${name} (${header} and lib${library}), which is not here.\n"
            "On Debian and Ubuntu: scripts/setup build")
    endif()
    set(static "${CARBIDE_${name}_ARCHIVE}")
    if(NOT static)
        set(static "${CARBIDE_${name}_LIBRARY}")
    endif()
    if(NOT TARGET carbide::${name})
        add_library(carbide::${name} UNKNOWN IMPORTED)
        set_target_properties(carbide::${name} PROPERTIES
            IMPORTED_LOCATION "${static}"
            INTERFACE_INCLUDE_DIRECTORIES "${CARBIDE_${name}_INCLUDE_DIR}")
        add_library(carbide::${name}_shared UNKNOWN IMPORTED)
        set_target_properties(carbide::${name}_shared PROPERTIES
            IMPORTED_LOCATION "${CARBIDE_${name}_LIBRARY}"
            INTERFACE_INCLUDE_DIRECTORIES "${CARBIDE_${name}_INCLUDE_DIR}")
    endif()
endfunction()

carbide_find_codec(lz4 lz4frame.h lz4)
carbide_find_codec(zstd zstd.h zstd)
carbide_find_codec(zlib zlib.h z)

# Some distributions build lz4's archive against xxhash's instead of lz4's own copy of it.
find_library(CARBIDE_xxhash_ARCHIVE NAMES libxxhash.a)
mark_as_advanced(CARBIDE_xxhash_ARCHIVE)
if(CARBIDE_xxhash_ARCHIVE)
    set_property(TARGET carbide::lz4 PROPERTY INTERFACE_LINK_LIBRARIES "${CARBIDE_xxhash_ARCHIVE}")
endif()

# Sealed files of blocks (carbide/cipher.h). Only who calls for a cipher links it: the command does not.
option(CARBIDE_WITH_OPENSSL "AES-GCM for blocks on disk, by OpenSSL" OFF)
if(CARBIDE_WITH_OPENSSL)
    find_package(OpenSSL 3.0 REQUIRED COMPONENTS Crypto)
endif()

# A directory in Redis (src/net). Who has no hiredis has no libcarbide-net, and the command no --directory.
option(CARBIDE_WITH_HIREDIS "Build libcarbide-net where hiredis is" ON)
set(CARBIDE_HAVE_HIREDIS OFF)
if(CARBIDE_WITH_HIREDIS)
    find_path(CARBIDE_hiredis_INCLUDE_DIR hiredis/hiredis.h)
    find_library(CARBIDE_hiredis_ARCHIVE NAMES libhiredis.a)
    find_library(CARBIDE_hiredis_LIBRARY NAMES hiredis)
    mark_as_advanced(CARBIDE_hiredis_INCLUDE_DIR CARBIDE_hiredis_ARCHIVE CARBIDE_hiredis_LIBRARY)
    if(CARBIDE_hiredis_INCLUDE_DIR AND (CARBIDE_hiredis_ARCHIVE OR CARBIDE_hiredis_LIBRARY))
        set(CARBIDE_HAVE_HIREDIS ON)
        if(NOT TARGET carbide::hiredis)
            set(static "${CARBIDE_hiredis_ARCHIVE}")
            if(NOT static)
                set(static "${CARBIDE_hiredis_LIBRARY}")
            endif()
            add_library(carbide::hiredis UNKNOWN IMPORTED)
            set_target_properties(carbide::hiredis PROPERTIES
                IMPORTED_LOCATION "${static}"
                INTERFACE_INCLUDE_DIRECTORIES "${CARBIDE_hiredis_INCLUDE_DIR}")
        endif()
    endif()
endif()

# Pages of figures by HTTP (carbide/web.h), a part of libcarbide-net where libmicrohttpd is too.
option(CARBIDE_WITH_MICROHTTPD "Build web pages into libcarbide-net where libmicrohttpd is" ON)
set(CARBIDE_HAVE_WEB OFF)
if(CARBIDE_WITH_MICROHTTPD AND CARBIDE_HAVE_HIREDIS)
    find_path(CARBIDE_microhttpd_INCLUDE_DIR microhttpd.h)
    find_library(CARBIDE_microhttpd_ARCHIVE NAMES libmicrohttpd.a)
    find_library(CARBIDE_microhttpd_LIBRARY NAMES microhttpd)
    mark_as_advanced(CARBIDE_microhttpd_INCLUDE_DIR CARBIDE_microhttpd_ARCHIVE CARBIDE_microhttpd_LIBRARY)
    if(CARBIDE_microhttpd_INCLUDE_DIR AND CARBIDE_microhttpd_LIBRARY)
        set(CARBIDE_HAVE_WEB ON)
        if(NOT TARGET carbide::microhttpd)
            add_library(carbide::microhttpd UNKNOWN IMPORTED)
            set_target_properties(carbide::microhttpd PROPERTIES
                IMPORTED_LOCATION "${CARBIDE_microhttpd_LIBRARY}"
                INTERFACE_INCLUDE_DIRECTORIES "${CARBIDE_microhttpd_INCLUDE_DIR}")
        endif()
    endif()
endif()
