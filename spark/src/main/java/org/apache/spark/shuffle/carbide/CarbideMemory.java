/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.IOException;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.spark.memory.MemoryConsumer;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.memory.TaskMemoryManager;

/** What a task's writer holds, as Spark sees it: C draws bytes through it, Spark makes C spill through it. */
final class CarbideMemory extends MemoryConsumer {
  private volatile long handle;
  private final AtomicLong held = new AtomicLong();

  CarbideMemory(TaskMemoryManager taskMemory) {
    super(taskMemory, taskMemory.pageSizeBytes(), MemoryMode.OFF_HEAP);
  }

  void opened(long writer) {
    handle = writer;
  }

  void closed() {
    handle = 0;
  }

  /** Spark's memory is short. Asked for by this consumer itself, C spills when it is told how little it got. */
  @Override
  public long spill(long size, MemoryConsumer trigger) throws IOException {
    long writer = handle;
    return trigger == this || writer == 0 ? 0 : CarbideNative.spill(writer, size);
  }

  /** Spark 3.5 adds and subtracts with no lock: while one thread acquires, another may spill and release. */
  @Override
  public long getUsed() {
    return held.get();
  }

  /** Called by C, which holds no lock: answers what Spark gives, perhaps less, perhaps nothing. */
  long acquire(long bytes) {
    long got = acquireMemory(bytes);
    held.addAndGet(got);
    return got;
  }

  /** Called by C, which holds no lock. */
  void release(long bytes) {
    held.addAndGet(-bytes);
    freeMemory(bytes);
  }
}
