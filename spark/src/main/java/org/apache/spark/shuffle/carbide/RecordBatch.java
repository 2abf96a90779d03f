/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.spark.unsafe.Platform;

/**
 * Records on their way to C: {int partition, int length, bytes}, in the machine's order, one behind the other. C does
 * not care where a record ends, so what is longer than the room that is left goes in pieces. One thread.
 */
final class RecordBatch {
  private static final int HEADER_BYTES = 8;
  private static final int SIZE_BYTES = 4;
  private static final int ROW_HEADER_BYTES = HEADER_BYTES + SIZE_BYTES;
  private static final boolean LITTLE_ENDIAN = ByteOrder.nativeOrder() == ByteOrder.LITTLE_ENDIAN;

  /** Buffers wait here for the next task: their memory goes only when the garbage collector looks. */
  private static final ConcurrentLinkedQueue<ByteBuffer> IDLE = new ConcurrentLinkedQueue<>();

  private final long handle;
  private final CarbideMemory memory;
  private final long recordsMost;
  private final long bytesMost;
  private final ByteBuffer buffer;
  private final long address;
  private final int capacity;
  private int used;
  private long records; // since this batch last asked for a spill

  RecordBatch(long handle, CarbideMemory memory, CarbideSettings settings) {
    ByteBuffer idle = IDLE.poll();
    this.handle = handle;
    this.memory = memory;
    this.recordsMost = settings.recordsMost;
    this.bytesMost = settings.bytesMost;
    this.capacity = settings.batchBytes;
    this.buffer = idle != null && idle.capacity() == capacity ? idle : ByteBuffer.allocateDirect(capacity);
    this.address = CarbideNative.address(buffer);
  }

  /** A row as UnsafeRowSerializer writes it: its size, big endian, then its bytes. */
  void putRow(int partition, Object base, long offset, int bytes) throws IOException {
    count();
    if (bytes > capacity - used - ROW_HEADER_BYTES) { // a sum might be more than an int holds
      flush();
      if (bytes > capacity - ROW_HEADER_BYTES) {
        putSize(partition, bytes);
        putPieces(partition, base, offset, bytes);
        return;
      }
    }
    long to = address + used;
    putHeader(to, partition, SIZE_BYTES + bytes);
    Platform.putInt(null, to + HEADER_BYTES, bigEndian(bytes));
    Platform.copyMemory(base, offset, null, to + ROW_HEADER_BYTES, bytes);
    used += ROW_HEADER_BYTES + bytes;
  }

  void put(int partition, Object base, long offset, int bytes) throws IOException {
    count();
    putPieces(partition, base, offset, bytes);
  }

  private void putPieces(int partition, Object base, long offset, int bytes) throws IOException {
    int done = 0;
    while (done < bytes) {
      int room = capacity - used - HEADER_BYTES;
      if (room < bytes - done && used > 0) {
        flush();
        continue;
      }
      int piece = Math.min(bytes - done, room);
      putHeader(address + used, partition, piece);
      Platform.copyMemory(base, offset + done, null, address + used + HEADER_BYTES, piece);
      used += HEADER_BYTES + piece;
      done += piece;
    }
  }

  void flush() throws IOException {
    if (used > 0) {
      CarbideNative.append(handle, buffer, used);
      used = 0;
      if (memory.getUsed() >= bytesMost) {
        spill();
      }
    }
  }

  /** One more, behind as many as Spark's settings let lie in memory. */
  private void count() throws IOException {
    if (records >= recordsMost) {
      flush();
      spill();
    }
    records++;
  }

  private void spill() throws IOException {
    CarbideNative.spill(handle, Long.MAX_VALUE);
    records = 0;
  }

  /** Nobody puts anything any more. */
  void close() {
    IDLE.offer(buffer);
  }

  private void putSize(int partition, int bytes) {
    putHeader(address + used, partition, SIZE_BYTES);
    Platform.putInt(null, address + used + HEADER_BYTES, bigEndian(bytes));
    used += ROW_HEADER_BYTES;
  }

  private static void putHeader(long to, int partition, int bytes) {
    Platform.putInt(null, to, partition);
    Platform.putInt(null, to + 4, bytes);
  }

  private static int bigEndian(int value) {
    return LITTLE_ENDIAN ? Integer.reverseBytes(value) : value;
  }
}
