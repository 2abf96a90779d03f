/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteOrder;
import org.apache.spark.serializer.DeserializationStream;
import org.apache.spark.sql.catalyst.expressions.UnsafeRow;
import org.apache.spark.unsafe.Platform;
import scala.Tuple2;
import scala.collection.AbstractIterator;
import scala.collection.Iterator;
import scala.reflect.ClassTag;

/**
 * The rows in a stream, each {int size, big endian; bytes}. Spark's own stream asks a BufferedInputStream, which takes
 * a lock, for each byte of a size, and copies each row; here rows lie where they were read to. There are two such
 * buffers: what a row lies in is not written to before the next one is asked for, as with Spark's. A stream of less than
 * the first one, as most are of a shuffle with many partitions, has no other.
 */
final class RowStream extends DeserializationStream {
  private static final int FIRST_BYTES = 4 << 10;
  private static final int BUFFER_BYTES = 16 << 10;
  private static final int PIECE_BYTES = 256; // less is not worth a read
  private static final int SIZE_BYTES = 4;
  private static final int END = -1;
  private static final boolean LITTLE_ENDIAN = ByteOrder.nativeOrder() == ByteOrder.LITTLE_ENDIAN;
  private static final byte[] NOTHING = {};

  private final InputStream in;
  private final UnsafeRow row;
  private final Tuple2<Object, Object> pair; // Spark's has the key 0, too
  private byte[] buffer = new byte[FIRST_BYTES];
  private byte[] other;
  private int at;
  private int end;

  RowStream(InputStream in, int fields) {
    this.in = in;
    this.row = new UnsafeRow(fields);
    this.pair = new Tuple2<>(0, row);
  }

  @Override
  public Iterator<Tuple2<Object, Object>> asKeyValueIterator() {
    return new Rows();
  }

  @Override
  public Iterator<Object> asIterator() {
    throw new UnsupportedOperationException("Rows have keys.");
  }

  /** It was not written, and nobody asks. */
  @Override
  public <T> T readKey(ClassTag<T> type) {
    return null;
  }

  @Override
  @SuppressWarnings("unchecked")
  public <T> T readValue(ClassTag<T> type) {
    try {
      int size = readSize();
      if (size == END) {
        throw new EOFException("There are no more rows.");
      }
      return (T) readRow(size);
    } catch (IOException e) {
      return fail(e);
    }
  }

  @Override
  public <T> T readObject(ClassTag<T> type) {
    throw new UnsupportedOperationException("Rows have keys.");
  }

  @Override
  public void close() {
    try {
      in.close();
    } catch (IOException e) {
      fail(e);
    }
  }

  /** What Scala need not declare. */
  @SuppressWarnings("unchecked")
  private static <T, E extends Throwable> T fail(Throwable e) throws E {
    throw (E) e;
  }

  /** END, and closed, behind the last row. */
  private int readSize() throws IOException {
    if (end - at < SIZE_BYTES && !fill(SIZE_BYTES)) {
      if (end > at) {
        throw new EOFException("A stream of rows ends in the size of one.");
      }
      in.close();
      buffer = NOTHING; // who holds the stream need not hold these; the last row has its own reference
      other = null;
      at = end = 0;
      return END;
    }
    int size = Platform.getInt(buffer, Platform.BYTE_ARRAY_OFFSET + at);
    size = LITTLE_ENDIAN ? Integer.reverseBytes(size) : size;
    if (size < 0) {
      throw new IOException("A row cannot have " + size + " bytes.");
    }
    at += SIZE_BYTES;
    return size;
  }

  private UnsafeRow readRow(int size) throws IOException {
    if (end - at < size && !fill(size)) {
      throw new EOFException("A stream of rows ends in one.");
    }
    row.pointTo(buffer, Platform.BYTE_ARRAY_OFFSET + at, size);
    at += size;
    return row;
  }

  /** So many bytes lie side by side from `at` on; false: there are no more. The last row stays where it is. */
  private boolean fill(int bytes) throws IOException {
    int most = buffer.length;
    if (other != null || most - at < bytes || most - end < PIECE_BYTES) {
      most = Math.max(BUFFER_BYTES, bytes); // behind a giant row no further, so that there is one such array at most
      turn(most);
    }
    while (end - at < bytes) {
      int got = in.read(buffer, end, most - end);
      if (got < 0) {
        return false;
      }
      end += got;
    }
    return true;
  }

  /** What is left goes to the beginning of the other buffer, which has so many bytes at least. */
  private void turn(int bytes) {
    int left = end - at;
    byte[] to = other != null && other.length >= bytes ? other : new byte[bytes];
    System.arraycopy(buffer, at, to, 0, left);
    other = buffer;
    buffer = to;
    at = 0;
    end = left;
  }

  private final class Rows extends AbstractIterator<Tuple2<Object, Object>> {
    private int size;

    Rows() {
      size = begin();
    }

    private int begin() {
      try {
        return readSize();
      } catch (IOException e) {
        return RowStream.<Integer, RuntimeException>fail(e);
      }
    }

    @Override
    public boolean hasNext() {
      return size != END;
    }

    @Override
    public Tuple2<Object, Object> next() {
      if (size == END) {
        throw new java.util.NoSuchElementException("There are no more rows.");
      }
      try {
        readRow(size);
        size = readSize();
      } catch (IOException e) {
        return fail(e);
      }
      return pair;
    }
  }
}
