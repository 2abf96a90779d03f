/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.IOException;
import java.lang.reflect.Field;
import org.apache.spark.Partitioner;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.sql.catalyst.expressions.UnsafeRow;
import org.apache.spark.util.AccumulatorV2;
import scala.Product2;
import scala.collection.Iterator;

/**
 * Rows of Spark SQL go to the batch as they lie, with no serializer between. What UnsafeRowSerializer does beside
 * writing them, adding their sizes to the exchange's metric (adaptive execution plans with it), is done here. Loaded
 * only where the serializer is that class: a program without SQL has no UnsafeRow.
 */
final class SqlRows {
  private static final String SERIALIZER = "org.apache.spark.sql.execution.UnsafeRowSerializer";

  private final AccumulatorV2<Object, Object> dataSize;

  private SqlRows(AccumulatorV2<Object, Object> dataSize) {
    this.dataSize = dataSize;
  }

  static boolean serializes(Serializer serializer) {
    return serializer.getClass().getName().equals(SERIALIZER);
  }

  /** Null: this serializer is not the one that we know. */
  @SuppressWarnings("unchecked") // SQLMetric counts Longs
  static SqlRows of(Serializer serializer) {
    try {
      Field field = serializer.getClass().getDeclaredField("dataSize");
      field.setAccessible(true);
      return new SqlRows((AccumulatorV2<Object, Object>) field.get(serializer));
    } catch (ReflectiveOperationException e) {
      return null;
    }
  }

  <K, V> long write(
      Iterator<Product2<K, V>> records, Partitioner partitioner, RecordBatch batch, RowChecksums checksums)
      throws IOException {
    long count = 0;
    long bytes = 0;
    while (records.hasNext()) {
      Product2<K, V> record = records.next();
      K key = record._1();
      int partition = partitioner.getPartition(key);
      UnsafeRow row = (UnsafeRow) record._2();
      int size = row.getSizeInBytes();
      batch.putRow(partition, row.getBaseObject(), row.getBaseOffset(), size);
      if (checksums != null) {
        checksums.update(partition, key, row);
      }
      count++;
      bytes += size;
    }
    if (dataSize != null) {
      dataSize.add(bytes);
    }
    return count;
  }
}
