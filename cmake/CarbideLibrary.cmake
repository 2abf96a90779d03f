# SPDX-License-Identifier: Apache-2.0
# libcarbide.a and libcarbide.so out of the rooms of src/. The objects are compiled once.

set(CARBIDE_ROOMS_ALL base memory spill store serve simulate record operator format)
set(CARBIDE_ONLY_ROOMS "" CACHE STRING "Rooms to build, when not all; for while one of them is under repair")
mark_as_advanced(CARBIDE_ONLY_ROOMS)
set(CARBIDE_ROOMS ${CARBIDE_ROOMS_ALL})
if(CARBIDE_ONLY_ROOMS)
    set(CARBIDE_ROOMS ${CARBIDE_ONLY_ROOMS})
endif()
set(carbide_sources "")
foreach(room IN LISTS CARBIDE_ROOMS)
    file(GLOB_RECURSE room_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/${room}/*.c")
    list(APPEND carbide_sources ${room_sources})
endforeach()

find_path(CARBIDE_XXHASH_INCLUDE_DIR xxhash.h)
mark_as_advanced(CARBIDE_XXHASH_INCLUDE_DIR)
if(NOT CARBIDE_XXHASH_INCLUDE_DIR)
    message(FATAL_ERROR "carbide needs xxhash.h, which is not here.\nOn Debian and Ubuntu: scripts/setup build")
endif()

add_library(carbide_objects OBJECT ${carbide_sources})
target_include_directories(carbide_objects
    PUBLIC "${PROJECT_SOURCE_DIR}/include" PRIVATE "${PROJECT_SOURCE_DIR}/src")
target_include_directories(carbide_objects SYSTEM PRIVATE "${CARBIDE_XXHASH_INCLUDE_DIR}")
target_link_libraries(carbide_objects
    PRIVATE carbide_flags carbide::lz4 carbide::zstd carbide::zlib Threads::Threads)
if(CARBIDE_WITH_OPENSSL)
    target_compile_definitions(carbide_objects PRIVATE CARBIDE_HAVE_OPENSSL)
    target_link_libraries(carbide_objects PRIVATE OpenSSL::Crypto)
endif()

# Names of targets inside the build; installed they are carbide::carbide and carbide::carbide_shared.
function(carbide_add_library target kind suffix)
    add_library(${target} ${kind} $<TARGET_OBJECTS:carbide_objects>)
    add_library(carbide::${target} ALIAS ${target})
    set_target_properties(${target} PROPERTIES
        OUTPUT_NAME carbide
        LINKER_LANGUAGE C
        VERSION ${PROJECT_VERSION}
        SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
    target_include_directories(${target} PUBLIC
        $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
    target_link_libraries(${target} PRIVATE
        carbide::lz4${suffix} carbide::zstd${suffix} carbide::zlib${suffix} Threads::Threads)
    if(CARBIDE_WITH_OPENSSL)
        target_link_libraries(${target} PRIVATE OpenSSL::Crypto)
    endif()
endfunction()

carbide_add_library(carbide STATIC "")
if(CARBIDE_BUILD_SHARED)
    carbide_add_library(carbide_shared SHARED "_shared")
    target_link_options(carbide_shared PRIVATE -Wl,-z,relro,-z,now)
    if(CARBIDE_SANITIZE MATCHES "address|thread|fuzzer")
        # clang links its runtime into executables only
        set_property(TARGET carbide_shared PROPERTY LINK_OPTIONS "")
    endif()
endif()

# libcarbide-net: what speaks to other servers, and the libraries that takes. The core links none of them.
if(CARBIDE_HAVE_HIREDIS AND NOT CARBIDE_ONLY_ROOMS)
    file(GLOB carbide_net_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/net/*.c")
    if(CARBIDE_HAVE_WEB)
        include(CarbideWeb)
    endif()
    if(NOT CARBIDE_HAVE_WEB)
        list(FILTER carbide_net_sources EXCLUDE REGEX "/(web|web_page|html|cluster)\\.c$")
    endif()
    add_library(carbide_net STATIC ${carbide_net_sources})
    add_library(carbide::carbide_net ALIAS carbide_net)
    set_target_properties(carbide_net PROPERTIES OUTPUT_NAME carbide-net)
    target_include_directories(carbide_net
        PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> PRIVATE "${PROJECT_SOURCE_DIR}/src")
    target_link_libraries(carbide_net
        PUBLIC carbide PRIVATE $<BUILD_INTERFACE:carbide_flags> carbide::hiredis Threads::Threads)
    if(CARBIDE_HAVE_WEB)
        target_include_directories(carbide_net SYSTEM PRIVATE "${CARBIDE_microhttpd_INCLUDE_DIR}")
        target_link_libraries(carbide_net INTERFACE
            $<BUILD_INTERFACE:carbide_microhttpd> $<INSTALL_INTERFACE:carbide::microhttpd>)
    endif()
endif()
