/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.util.Arrays;
import org.apache.spark.Partitioner;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.executor.TaskMetrics;
import org.apache.spark.scheduler.MapStatus;
import org.apache.spark.serializer.SerializationStream;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.shuffle.IndexShuffleBlockResolver;
import org.apache.spark.shuffle.ShuffleWriteMetricsReporter;
import org.apache.spark.shuffle.ShuffleWriter;
import org.apache.spark.shuffle.sort.SerializedShuffleHandle;
import org.apache.spark.storage.BlockManager;
import org.apache.spark.unsafe.Platform;
import org.apache.spark.util.TaskCompletionListener;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import scala.Option;
import scala.Product2;
import scala.collection.Iterator;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/** Writes the output of one map task: records to C in batches, C's file to Spark's resolver. */
final class CarbideShuffleWriter<K, V> extends ShuffleWriter<K, V> {
  private static final Logger LOG = LoggerFactory.getLogger(CarbideShuffleWriter.class);
  /** What C takes; Spark's may be set to anything. */
  private static final long PAGE_BYTES_MIN = 64 << 10;

  private static final long PAGE_BYTES_MAX = 1 << 30;
  private static final ClassTag<Object> OBJECT = ClassTag$.MODULE$.Object();

  private final ShuffleDependency<K, V, V> dependency;
  private final Partitioner partitioner;
  private final long mapId;
  private final TaskContext context;
  private final ShuffleWriteMetricsReporter metrics;
  private final CarbideSettings settings;
  private final CarbideShuffleManager manager;
  private final CarbideMemory memory;
  private final RowChecksums rowChecksums;
  private final long[] lengths;

  private long handle;
  private MapStatus status;
  private boolean stopped;

  CarbideShuffleWriter(
      SerializedShuffleHandle<K, V> shuffle,
      long mapId,
      TaskContext context,
      ShuffleWriteMetricsReporter metrics,
      CarbideSettings settings,
      CarbideShuffleManager manager) {
    this.dependency = shuffle.dependency();
    this.partitioner = dependency.partitioner();
    this.mapId = mapId;
    this.context = context;
    this.metrics = metrics;
    this.settings = settings;
    this.manager = manager;
    this.memory = new CarbideMemory(context.taskMemoryManager());
    this.rowChecksums = RowChecksums.of(dependency);
    this.lengths = new long[partitioner.numPartitions()];
  }

  @Override
  public void write(Iterator<Product2<K, V>> records) throws IOException {
    try {
      open();
      long count = append(records);
      commit(count);
      reportWritten(count);
      BlockManager blocks = SparkEnv.get().blockManager();
      long checksum = rowChecksums == null ? 0 : rowChecksums.value();
      status = MapStatuses.of(blocks.shuffleServerId(), lengths, mapId, checksum);
    } finally {
      reportMemory();
      close();
    }
  }

  @Override
  public Option<MapStatus> stop(boolean success) {
    boolean first = !stopped;
    stopped = true;
    close();
    if (first && success && status == null) {
      throw new IllegalStateException("Cannot call stop(true) without having called write()");
    }
    return first && success ? Option.apply(status) : Option.empty();
  }

  @Override
  public long[] getPartitionLengths() {
    return lengths;
  }

  private void open() throws IOException {
    handle =
        CarbideNative.open(
            folders(),
            lengths.length,
            settings.codec,
            settings.level,
            settings.blockBytes,
            settings.checksum,
            Math.max(PAGE_BYTES_MIN, Math.min(PAGE_BYTES_MAX, context.taskMemoryManager().pageSizeBytes())),
            memory);
    memory.opened(handle);
    // A task that is killed may end without a stop.
    context.addTaskCompletionListener((TaskCompletionListener) this::ended);
  }

  /** To spill to: a disk that was lost while Spark ran is none, as long as there is another. */
  private static String[] folders() {
    File[] all = SparkEnv.get().blockManager().diskBlockManager().localDirs();
    File[] sound = Arrays.stream(all).filter(File::canWrite).toArray(File[]::new);
    return Arrays.stream(sound.length > 0 ? sound : all).map(File::getPath).toArray(String[]::new);
  }

  private long append(Iterator<Product2<K, V>> records) throws IOException {
    RecordBatch batch = new RecordBatch(handle, memory, settings);
    try {
      Serializer serializer = dependency.serializer();
      SqlRows rows = SqlRows.serializes(serializer) ? SqlRows.of(serializer) : null;
      long count =
          rows != null ? rows.write(records, partitioner, batch, rowChecksums) : serialize(records, serializer, batch);
      batch.flush();
      return count;
    } finally {
      batch.close();
    }
  }

  /** Any serializer whose records can be moved about: one record at a time into a buffer, and from there to the batch. */
  private long serialize(Iterator<Product2<K, V>> records, Serializer serializer, RecordBatch batch)
      throws IOException {
    ExposedBuffer buffer = new ExposedBuffer();
    SerializationStream stream = serializer.newInstance().serializeStream(buffer);
    long count = 0;
    while (records.hasNext()) {
      Product2<K, V> record = records.next();
      K key = record._1();
      V value = record._2();
      int partition = partitioner.getPartition(key);
      buffer.reset();
      stream.writeKey(key, OBJECT);
      stream.writeValue(value, OBJECT);
      stream.flush();
      batch.put(partition, buffer.bytes(), Platform.BYTE_ARRAY_OFFSET, buffer.size());
      if (rowChecksums != null) {
        rowChecksums.update(partition, key, value);
      }
      count++;
    }
    return count;
  }

  private void commit(long count) throws IOException {
    int shuffleId = dependency.shuffleId();
    IndexShuffleBlockResolver resolver = manager.shuffleBlockResolver();
    context.killTaskIfInterrupted(); // Spark looks between records; what follows may take long
    File file = resolver.createTempFile(resolver.getDataFile(shuffleId, mapId));
    try {
      long[] checksums = new long[0];
      if (count > 0) { // otherwise there is an index and no data, as with Spark's writers
        checksums = new long[settings.checksum == CarbideNative.CHECKSUM_NONE ? 0 : lengths.length];
        CarbideNative.write(handle, file.getPath(), lengths, checksums);
      }
      context.killTaskIfInterrupted();
      try {
        resolver.writeMetadataFileAndCommit(shuffleId, mapId, lengths, checksums, file);
      } finally {
        manager.committed(shuffleId, mapId);
      }
    } finally {
      if (file.exists() && !file.delete()) {
        LOG.error("{} cannot be removed.", file);
      }
    }
  }

  private void reportWritten(long count) {
    long bytes = 0;
    for (long length : lengths) {
      bytes += length;
    }
    metrics.incRecordsWritten(count);
    metrics.incBytesWritten(bytes);
  }

  /** Of a task that fails too: Spark shows what it spilled. */
  private synchronized void reportMemory() {
    if (handle == 0) {
      return;
    }
    long[] figures = new long[CarbideNative.FIGURE_COUNT];
    CarbideNative.figures(handle, figures);
    metrics.incWriteTime(figures[CarbideNative.FIGURE_WRITE_NS]);
    TaskMetrics task = context.taskMetrics();
    task.incMemoryBytesSpilled(figures[CarbideNative.FIGURE_SPILLED_BYTES]);
    task.incDiskBytesSpilled(figures[CarbideNative.FIGURE_SPILL_FILE_BYTES]);
    task.incPeakExecutionMemory(figures[CarbideNative.FIGURE_PEAK_BYTES]);
    CarbideMetrics.INSTANCE.add(figures);
  }

  private void ended(TaskContext task) {
    close();
    if (task.isInterrupted() && !settings.namesShared) {
      manager.discard(dependency.shuffleId(), mapId);
    }
  }

  private synchronized void close() {
    if (handle != 0) {
      memory.closed();
      CarbideNative.close(handle);
      handle = 0;
    }
  }

  /** A ByteArrayOutputStream that shows its bytes. */
  private static final class ExposedBuffer extends ByteArrayOutputStream {
    private static final int FIRST_BYTES = 4096;

    ExposedBuffer() {
      super(FIRST_BYTES);
    }

    byte[] bytes() {
      return buf;
    }
  }
}
