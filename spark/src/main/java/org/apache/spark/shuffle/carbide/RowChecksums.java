/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import org.apache.spark.ShuffleDependency;
import org.apache.spark.shuffle.checksum.RowBasedChecksum;

/** Checksums of rows, which Spark 4.1 and later may want so as to tell whether a task did the same again. */
final class RowChecksums {
  private static final boolean EXIST = exist();

  private final RowBasedChecksum[] checksums;

  private RowChecksums(RowBasedChecksum[] checksums) {
    this.checksums = checksums;
  }

  private static boolean exist() {
    try {
      ShuffleDependency.class.getMethod("rowBasedChecksums");
      return true;
    } catch (NoSuchMethodException e) {
      return false;
    }
  }

  /** Null: none are wanted. */
  static RowChecksums of(ShuffleDependency<?, ?, ?> dependency) {
    if (!EXIST) {
      return null;
    }
    RowBasedChecksum[] checksums = dependency.rowBasedChecksums();
    return checksums == null || checksums.length == 0 ? null : new RowChecksums(checksums);
  }

  void update(int partition, Object key, Object value) {
    checksums[partition].update(key, value);
  }

  long value() {
    return RowBasedChecksum.getAggregatedChecksumValue(checksums);
  }
}
