/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import com.codahale.metrics.Counter;
import com.codahale.metrics.MetricRegistry;
import org.apache.spark.metrics.source.Source;

/** How many map tasks were written by carbide, with how many spills, and how many by Spark's own writers. One a process. */
final class CarbideMetrics implements Source {
  static final CarbideMetrics INSTANCE = new CarbideMetrics();

  private final MetricRegistry registry = new MetricRegistry();
  final Counter nativeWriters = registry.counter("writers.native");
  final Counter sparkWriters = registry.counter("writers.spark");
  final Counter spills = registry.counter("spills");

  private CarbideMetrics() {}

  @Override
  public String sourceName() {
    return "CarbideShuffle";
  }

  @Override
  public MetricRegistry metricRegistry() {
    return registry;
  }
}
