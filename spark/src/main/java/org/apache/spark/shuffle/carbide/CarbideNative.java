/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import org.apache.spark.SparkEnv;
import org.apache.spark.errors.SparkCoreErrors;

/**
 * The calls of libcarbide_spark. A handle is a number that the library looks up: one that was closed, or never
 * was one, throws IllegalStateException, as do lengths and partitions that cannot be.
 */
final class CarbideNative {
  static final int CODEC_NONE = 0;
  static final int CODEC_LZ4 = 1;
  static final int CODEC_ZSTD = 2;

  static final int CHECKSUM_NONE = 0;
  static final int CHECKSUM_ADLER32 = 1;
  static final int CHECKSUM_CRC32 = 2;
  static final int CHECKSUM_CRC32C = 3;

  static final int FIGURE_PEAK_BYTES = 0;
  static final int FIGURE_SPILLED_BYTES = 1;
  static final int FIGURE_SPILL_FILE_BYTES = 2;
  static final int FIGURE_SPILLS = 3;
  static final int FIGURE_WRITE_NS = 4;
  static final int FIGURE_COPY_NS = 5;
  static final int FIGURE_COMPRESS_NS = 6;
  static final int FIGURE_SPILL_NS = 7;
  static final int FIGURE_MERGE_NS = 8;
  static final int FIGURE_COUNT = 9;

  private static final String LIBRARY = "libcarbide_spark.so";
  private static final int ASCII_END = 0x80;
  private static String failure;
  private static boolean tried;

  private CarbideNative() {}

  /** Loads the library once; null, or why it cannot be had. */
  static synchronized String load(String path) {
    if (!tried) {
      tried = true;
      try {
        loadFrom(path);
      } catch (IOException | LinkageError | SecurityException e) {
        failure = e.toString();
      }
    }
    return failure;
  }

  /** C calls files by UTF-8, Java by what its locale has: do both mean the same files by these names? */
  static boolean means(File... files) {
    Charset names = Charset.forName(System.getProperty("sun.jnu.encoding", "UTF-8"));
    return names.equals(StandardCharsets.UTF_8)
        || Arrays.stream(files).allMatch(file -> file.getPath().chars().allMatch(c -> c < ASCII_END));
  }

  static synchronized boolean isLoaded() {
    return tried && failure == null;
  }

  private static void loadFrom(String path) throws IOException {
    if (path != null && !path.isEmpty()) {
      File file = new File(path);
      System.load((file.isDirectory() ? new File(file, LIBRARY) : file).getAbsolutePath());
      return;
    }
    try {
      loadCopy(sparksFolder());
    } catch (IOException | LinkageError e) { // full, or nothing there may be run
      loadCopy(javasFolder());
    }
  }

  /** Spark removes it with the application, whatever ends this process on the way; without a Spark, Java's. */
  private static Path sparksFolder() {
    SparkEnv env = SparkEnv.get();
    return env == null ? javasFolder() : env.blockManager().diskBlockManager().localDirs()[0].toPath();
  }

  private static Path javasFolder() {
    return new File(System.getProperty("java.io.tmpdir")).toPath();
  }

  private static void loadCopy(Path folder) throws IOException {
    String resource = System.getProperty("os.arch") + "/" + LIBRARY;
    try (InputStream in = CarbideNative.class.getResourceAsStream(resource)) {
      if (in == null) {
        throw new IOException("The jar has no " + resource + ".");
      }
      Path copy = Files.createTempFile(folder, "carbide_spark", ".so");
      try {
        Files.copy(in, copy, StandardCopyOption.REPLACE_EXISTING);
        System.load(copy.toString());
      } finally {
        Files.deleteIfExists(copy); // it stays mapped
      }
    }
  }

  /** Called by C: neither Spark gave memory nor could this writer's own be spilled for it. */
  static void refused(long asked, long had) {
    throw SparkCoreErrors.outOfMemoryError(asked, had);
  }

  static native long open(
      String[] folders,
      int partitions,
      int codec,
      int level,
      int blockBytes,
      int checksum,
      long pageBytes,
      CarbideMemory memory)
      throws IOException;

  /** Where a direct buffer's memory begins. */
  static native long address(ByteBuffer buffer);

  /** Takes the records in the first `bytes` of a direct buffer. May spill. */
  static native void append(long handle, ByteBuffer batch, int bytes) throws IOException;

  /** Everything in memory goes to disk; answers the bytes that Spark got back. Any thread. */
  static native long spill(long handle, long bytes) throws IOException;

  /** Writes the file; lengths and checksums, one a partition, are filled in. Nothing can be appended then. */
  static native void write(long handle, String file, long[] lengths, long[] checksums) throws IOException;

  static native void figures(long handle, long[] figures);

  /** Frees all. A second time: nothing. Any thread. */
  static native void close(long handle);

  /** How many are open in this process. */
  static native int writers();
}
