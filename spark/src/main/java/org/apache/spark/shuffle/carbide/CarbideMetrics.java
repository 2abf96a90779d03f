/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import com.codahale.metrics.Counter;
import com.codahale.metrics.MetricRegistry;
import org.apache.spark.metrics.source.Source;

/**
 * How many map tasks were written by carbide, with how many spills, and how many by Spark's own writers; where
 * carbide's time went, in nanoseconds. One a process.
 */
final class CarbideMetrics implements Source {
  static final CarbideMetrics INSTANCE = new CarbideMetrics();

  private final MetricRegistry registry = new MetricRegistry();
  final Counter nativeWriters = registry.counter("writers.native");
  final Counter sparkWriters = registry.counter("writers.spark");
  final Counter spills = registry.counter("spills");

  final Counter copying = registry.counter("time.copy");
  final Counter compressing = registry.counter("time.compress");
  final Counter spilling = registry.counter("time.spill");
  final Counter merging = registry.counter("time.merge");
  final Counter writing = registry.counter("time.write");

  private CarbideMetrics() {}

  /** Of a writer that has ended. */
  void add(long[] figures) {
    spills.inc(figures[CarbideNative.FIGURE_SPILLS]);
    copying.inc(figures[CarbideNative.FIGURE_COPY_NS]);
    compressing.inc(figures[CarbideNative.FIGURE_COMPRESS_NS]);
    spilling.inc(figures[CarbideNative.FIGURE_SPILL_NS]);
    merging.inc(figures[CarbideNative.FIGURE_MERGE_NS]);
    writing.inc(figures[CarbideNative.FIGURE_WRITE_NS]);
  }

  @Override
  public String sourceName() {
    return "CarbideShuffle";
  }

  @Override
  public MetricRegistry metricRegistry() {
    return registry;
  }
}
