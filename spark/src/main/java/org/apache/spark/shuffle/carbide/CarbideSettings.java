/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.util.Locale;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.SparkConf;
import org.apache.spark.io.CompressionCodec$;
import org.apache.spark.shuffle.sort.SortShuffleManager;

/** What the configuration asks for, and whether that can be done here. */
final class CarbideSettings {
  private static final String LOCAL_IO = "org.apache.spark.shuffle.sort.io.LocalDiskShuffleDataIO";
  private static final int BATCH_BYTES_MIN = 4096;
  private static final int BATCH_BYTES_MAX = 64 << 20;

  final boolean enabled;
  final int batchBytes;
  final int codec;
  final int level;
  final int blockBytes;
  final int checksum;
  /** Attempts at one task give their files the same names. */
  final boolean namesShared;

  /** What may lie in memory before it must leave, as for Spark's own writer: mostly no limit. */
  final long recordsMost;
  final long bytesMost;

  private final int maxPartitions;
  private final String libraryPath;
  private final String refusal;

  CarbideSettings(SparkConf conf) {
    long batch = conf.getSizeAsBytes("spark.shuffle.carbide.batch", "256k");
    batchBytes = (int) Math.max(BATCH_BYTES_MIN, Math.min(BATCH_BYTES_MAX, batch));
    maxPartitions = conf.getInt("spark.shuffle.carbide.maxPartitions", 65536);
    libraryPath =
        conf.get("spark.shuffle.carbide.libraryPath", System.getProperty("carbide.library.path", ""));
    enabled = conf.getBoolean("spark.shuffle.carbide.enabled", true);
    codec = codecOf(conf);
    level = conf.getInt("spark.io.compression.zstd.level", 1);
    blockBytes = (int) conf.getSizeAsBytes("spark.io.compression.lz4.blockSize", "32k");
    checksum = checksumOf(conf);
    namesShared = conf.getBoolean("spark.shuffle.useOldFetchProtocol", false);
    recordsMost = conf.getInt("spark.shuffle.spill.numElementsForceSpillThreshold", Integer.MAX_VALUE);
    bytesMost = conf.getSizeAsBytes("spark.shuffle.spill.maxSizeInBytesForSpillThreshold", Long.MAX_VALUE);
    refusal = refusalOf(conf);
  }

  /** Null: carbide can write this shuffle. Otherwise why not. */
  String refusal(ShuffleDependency<?, ?, ?> dependency) {
    if (refusal != null) {
      return refusal;
    }
    if (dependency.mapSideCombine()) {
      return "it combines on the map side";
    }
    if (!SortShuffleManager.canUseSerializedShuffle(dependency)) {
      return "its serialized records cannot be moved about";
    }
    int partitions = dependency.partitioner().numPartitions();
    if (partitions < 1 || partitions > maxPartitions) {
      return "it has " + partitions + " partitions";
    }
    return libraryRefusal();
  }

  String libraryRefusal() {
    String failure = CarbideNative.load(libraryPath);
    return failure == null ? null : "the library cannot be loaded: " + failure;
  }

  private String refusalOf(SparkConf conf) {
    if (!enabled) {
      return "spark.shuffle.carbide.enabled is false";
    }
    if (!conf.getBoolean("spark.memory.offHeap.enabled", false)
        || conf.getSizeAsBytes("spark.memory.offHeap.size", "0") <= 0) {
      return "off-heap memory is not enabled";
    }
    if (conf.getBoolean("spark.io.encryption.enabled", false)) {
      return "it is encrypted";
    }
    if (codec < 0) {
      return "its codec is neither lz4 nor zstd";
    }
    if (checksum < 0) {
      return "its checksum is neither ADLER32 nor CRC32 nor CRC32C";
    }
    if (conf.getBoolean("spark.shuffle.sync", false)) {
      return "spark.shuffle.sync is set";
    }
    return LOCAL_IO.equals(conf.get("spark.shuffle.sort.io.plugin.class", LOCAL_IO))
        ? null
        : "another class than Spark's own stores its files";
  }

  private static int codecOf(SparkConf conf) {
    if (!conf.getBoolean("spark.shuffle.compress", true)) {
      return CarbideNative.CODEC_NONE;
    }
    switch (CompressionCodec$.MODULE$.getCodecName(conf).toLowerCase(Locale.ROOT)) {
      case "lz4":
      case "org.apache.spark.io.lz4compressioncodec":
        return CarbideNative.CODEC_LZ4;
      case "zstd":
      case "org.apache.spark.io.zstdcompressioncodec":
        return CarbideNative.CODEC_ZSTD;
      default:
        return -1;
    }
  }

  private static int checksumOf(SparkConf conf) {
    if (!conf.getBoolean("spark.shuffle.checksum.enabled", true)) {
      return CarbideNative.CHECKSUM_NONE;
    }
    switch (conf.get("spark.shuffle.checksum.algorithm", "ADLER32").toUpperCase(Locale.ROOT)) {
      case "ADLER32":
        return CarbideNative.CHECKSUM_ADLER32;
      case "CRC32":
        return CarbideNative.CHECKSUM_CRC32;
      case "CRC32C":
        return CarbideNative.CHECKSUM_CRC32C;
      default:
        return -1;
    }
  }
}
