# SPDX-License-Identifier: Apache-2.0
# libcarbide_spark.so: the calls of spark/'s Java classes over the public headers, with libcarbide inside. Where there is
# no JDK there is none.

find_program(CARBIDE_JAVAC javac HINTS ENV JAVA_HOME PATH_SUFFIXES bin)
mark_as_advanced(CARBIDE_JAVAC)
if(CARBIDE_JAVAC)
    file(REAL_PATH "${CARBIDE_JAVAC}" javac)
    cmake_path(GET javac PARENT_PATH jdk)
    cmake_path(GET jdk PARENT_PATH jdk)
endif()
if(CARBIDE_JAVAC AND EXISTS "${jdk}/include/jni.h")
    add_library(carbide_spark MODULE "${PROJECT_SOURCE_DIR}/spark/src/main/native/carbide_jni.c")
    target_include_directories(carbide_spark SYSTEM PRIVATE "${jdk}/include" "${jdk}/include/linux")
    target_link_libraries(carbide_spark PRIVATE carbide_flags carbide::carbide Threads::Threads)
    # Nothing of libcarbide, lz4 or zstd is to meet what else the JVM has loaded.
    target_link_options(carbide_spark PRIVATE -Wl,--exclude-libs,ALL)
endif()
