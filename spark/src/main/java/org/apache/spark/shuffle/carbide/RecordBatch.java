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
  private static final boolean LITTLE_ENDIAN = ByteOrder.nativeOrder() == ByteOrder.LITTLE_ENDIAN;

  /** Buffers wait here for the next task: their memory goes only when the garbage collector looks. */
  private static final ConcurrentLinkedQueue<ByteBuffer> IDLE = new ConcurrentLinkedQueue<>();

  private final long handle;
  private final ByteBuffer buffer;
  private final long address;
  private final int capacity;
  private int used;

  RecordBatch(long handle, int capacity) {
    ByteBuffer idle = IDLE.poll();
    this.handle = handle;
    this.capacity = capacity;
    this.buffer = idle != null && idle.capacity() == capacity ? idle : ByteBuffer.allocateDirect(capacity);
    this.address = CarbideNative.address(buffer);
  }

  /** A row as UnsafeRowSerializer writes it: its size, big endian, then its bytes. */
  void putRow(int partition, Object base, long offset, int bytes) throws IOException {
    int wanted = HEADER_BYTES + SIZE_BYTES + bytes;
    if (wanted > capacity - used) {
      flush();
      if (wanted > capacity) {
        putSize(partition, bytes);
        put(partition, base, offset, bytes);
        return;
      }
    }
    long to = address + used;
    putHeader(to, partition, SIZE_BYTES + bytes);
    Platform.putInt(null, to + HEADER_BYTES, bigEndian(bytes));
    Platform.copyMemory(base, offset, null, to + HEADER_BYTES + SIZE_BYTES, bytes);
    used += wanted;
  }

  void put(int partition, Object base, long offset, int bytes) throws IOException {
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
    }
  }

  /** Nobody puts anything any more. */
  void close() {
    IDLE.offer(buffer);
  }

  private void putSize(int partition, int bytes) {
    putHeader(address + used, partition, SIZE_BYTES);
    Platform.putInt(null, address + used + HEADER_BYTES, bigEndian(bytes));
    used += HEADER_BYTES + SIZE_BYTES;
  }

  private static void putHeader(long to, int partition, int bytes) {
    Platform.putInt(null, to, partition);
    Platform.putInt(null, to + 4, bytes);
  }

  private static int bigEndian(int value) {
    return LITTLE_ENDIAN ? Integer.reverseBytes(value) : value;
  }
}
