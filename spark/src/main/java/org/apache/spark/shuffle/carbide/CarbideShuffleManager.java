/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.shuffle.BaseShuffleHandle;
import org.apache.spark.shuffle.ShuffleHandle;
import org.apache.spark.shuffle.ShuffleReadMetricsReporter;
import org.apache.spark.shuffle.ShuffleReader;
import org.apache.spark.shuffle.ShuffleWriteMetricsReporter;
import org.apache.spark.shuffle.ShuffleWriter;
import org.apache.spark.shuffle.sort.SerializedShuffleHandle;
import org.apache.spark.shuffle.sort.SortShuffleManager;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import scala.util.Properties;

/**
 * Spark's sort shuffle with carbide as the writer wherever carbide can be it: where a shuffle is registered, the
 * driver chooses; where a task begins, the executor looks whether it has the library and the memory. All else is the
 * parent's, as are all of its files; reading too, but for how rows are taken out of what it has unpacked (RowStream).
 */
public class CarbideShuffleManager extends SortShuffleManager {
  private static final Logger LOG = LoggerFactory.getLogger(CarbideShuffleManager.class);

  private final CarbideSettings settings;
  private final AtomicBoolean registered = new AtomicBoolean();
  private final AtomicBoolean told = new AtomicBoolean();

  /** The map outputs of this process, which unregisterShuffle removes. */
  private final ConcurrentHashMap<Integer, Set<Long>> mapIds = new ConcurrentHashMap<>();

  /** Shuffles whose refusal here the log has told of. */
  private final Set<Integer> refused = ConcurrentHashMap.newKeySet();

  public CarbideShuffleManager(SparkConf conf) {
    super(conf);
    checkScala(Properties.versionNumberString());
    settings = new CarbideSettings(conf);
  }

  /** Classes that were compiled for another Scala fail late, with a word that nobody understands. */
  static void checkScala(String version) {
    if (!version.startsWith("2.13.")) {
      throw new IllegalStateException(
          "carbide-spark is built for Scala 2.13, and this Spark runs on Scala "
              + version
              + ": take the same Spark for Scala 2.13 (its name ends in -scala2.13), or leave spark.shuffle.manager unset.");
    }
  }

  /** Map tasks of this process that carbide wrote for. */
  public static long nativeWriters() {
    return CarbideMetrics.INSTANCE.nativeWriters.getCount();
  }

  /** Map tasks of this process that were left to Spark's own writers. */
  public static long sparkWriters() {
    return CarbideMetrics.INSTANCE.sparkWriters.getCount();
  }

  /** How often what carbide held went to disk, in map tasks of this process that have ended. */
  public static long nativeSpills() {
    return CarbideMetrics.INSTANCE.spills.getCount();
  }

  /**
   * Where the time of this process' map tasks went in carbide, in nanoseconds: copying records to their partitions,
   * compressing, spilling, merging, writing. A task's are added when it ends.
   */
  public static long[] nativeNanos() {
    CarbideMetrics m = CarbideMetrics.INSTANCE;
    return new long[] {
      m.copying.getCount(),
      m.compressing.getCount(),
      m.spilling.getCount(),
      m.merging.getCount(),
      m.writing.getCount()
    };
  }

  /** Those of carbide that are open just now; 0 where the library is not loaded. */
  public static int openWriters() {
    return CarbideNative.isLoaded() ? CarbideNative.writers() : 0;
  }

  @Override
  @SuppressWarnings("unchecked") // without map-side combine values are what is combined
  public <K, V, C> ShuffleHandle registerShuffle(int shuffleId, ShuffleDependency<K, V, C> dependency) {
    String refusal = settings.refusal(dependency);
    if (refusal == null) {
      return new SerializedShuffleHandle<>(shuffleId, (ShuffleDependency<K, V, V>) dependency);
    }
    LOG.info("Shuffle {} is written by Spark's own writer, not carbide's: {}.", shuffleId, refusal);
    return super.registerShuffle(shuffleId, dependency);
  }

  @Override
  @SuppressWarnings("unchecked") // the handle is the one that registerShuffle made
  public <K, V> ShuffleWriter<K, V> getWriter(
      ShuffleHandle handle, long mapId, TaskContext context, ShuffleWriteMetricsReporter metrics) {
    registerMetrics();
    String refusal = refusalHere(handle, context);
    if (refusal != null) {
      if (handle instanceof SerializedShuffleHandle && refused.add(handle.shuffleId())) {
        LOG.info("Shuffle {} is written by Spark's own writer here, not carbide's: {}.", handle.shuffleId(), refusal);
      }
      CarbideMetrics.INSTANCE.sparkWriters.inc();
      return super.getWriter(handle, mapId, context, metrics);
    }
    if (told.compareAndSet(false, true)) {
      LOG.info("carbide writes shuffles in this process.");
    }
    CarbideMetrics.INSTANCE.nativeWriters.inc();
    mapIds.computeIfAbsent(handle.shuffleId(), id -> ConcurrentHashMap.newKeySet()).add(mapId);
    return new CarbideShuffleWriter<>(
        (SerializedShuffleHandle<K, V>) handle, mapId, context, metrics, settings, this);
  }

  /** Spark's reader, which takes rows of SQL out of what it has unpacked in larger pieces. */
  @Override
  public <K, C> ShuffleReader<K, C> getReader(
      ShuffleHandle handle,
      int startMapIndex,
      int endMapIndex,
      int startPartition,
      int endPartition,
      TaskContext context,
      ShuffleReadMetricsReporter metrics) {
    if (settings.enabled && handle instanceof BaseShuffleHandle) {
      RowSerializer.readFor(((BaseShuffleHandle<?, ?, ?>) handle).dependency());
    }
    return super.getReader(handle, startMapIndex, endMapIndex, startPartition, endPartition, context, metrics);
  }

  /**
   * A task that was killed may commit, or fail over it, when its shuffle is unregistered already: then nobody else
   * removes what it wrote.
   */
  void committed(int shuffleId, long mapId) {
    Set<Long> ids = mapIds.get(shuffleId);
    if (ids == null || !ids.contains(mapId)) {
      shuffleBlockResolver().removeDataByMap(shuffleId, mapId);
    }
  }

  /** Of a task that was killed before it ended: Spark takes no status from it, so what it committed has no reader. */
  void discard(int shuffleId, long mapId) {
    Set<Long> ids = mapIds.get(shuffleId);
    if (ids != null) {
      ids.remove(mapId);
    }
    shuffleBlockResolver().removeDataByMap(shuffleId, mapId);
  }

  @Override
  public boolean unregisterShuffle(int shuffleId) {
    refused.remove(shuffleId);
    Set<Long> ids = mapIds.remove(shuffleId);
    if (ids != null) {
      ids.forEach(mapId -> shuffleBlockResolver().removeDataByMap(shuffleId, mapId));
    }
    return super.unregisterShuffle(shuffleId);
  }

  /** A handle says what the driver chose; this process may still lack the library or the memory. */
  private String refusalHere(ShuffleHandle handle, TaskContext context) {
    if (!(handle instanceof SerializedShuffleHandle)) {
      return "the driver chose it";
    }
    String refusal = settings.refusal(((SerializedShuffleHandle<?, ?>) handle).dependency());
    if (refusal == null && context.taskMemoryManager().getTungstenMemoryMode() != MemoryMode.OFF_HEAP) {
      return "its tasks' memory is not off-heap";
    }
    if (refusal == null && !CarbideNative.means(SparkEnv.get().blockManager().diskBlockManager().localDirs())) {
      return "its folders' names are not ASCII, and the locale is not UTF-8";
    }
    return refusal;
  }

  private void registerMetrics() {
    if (registered.compareAndSet(false, true)) {
      SparkEnv.get().metricsSystem().registerSource(CarbideMetrics.INSTANCE);
    }
  }
}
