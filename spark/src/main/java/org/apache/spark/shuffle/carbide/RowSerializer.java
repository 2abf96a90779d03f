/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.InputStream;
import java.io.OutputStream;
import java.io.Serializable;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.serializer.DeserializationStream;
import org.apache.spark.serializer.SerializationStream;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.serializer.SerializerInstance;
import scala.reflect.ClassTag;

/**
 * UnsafeRowSerializer, with {@link RowStream} in the place of its own way to read. Reading is Spark's reader's in all
 * else: it asks the dependency that its task was sent for a serializer, and finds this one there.
 */
final class RowSerializer extends Serializer implements Serializable {
  private static final long serialVersionUID = 1;
  private static final Field PLACE = place();

  private final Serializer spark;
  private final int fields;

  private RowSerializer(Serializer spark, int fields) {
    this.spark = spark;
    this.fields = fields;
  }

  private static Field place() {
    try {
      Field field = ShuffleDependency.class.getDeclaredField("serializer");
      field.setAccessible(true);
      return field;
    } catch (ReflectiveOperationException | RuntimeException e) {
      return null;
    }
  }

  /** This task's reader of rows reads by us. Where a Spark has other classes than we know, nothing happens. */
  static void readFor(ShuffleDependency<?, ?, ?> dependency) {
    Serializer spark = dependency.serializer();
    if (PLACE == null || !SqlRows.serializes(spark)) {
      return;
    }
    try {
      Field fields = spark.getClass().getDeclaredField("numFields");
      fields.setAccessible(true);
      PLACE.set(dependency, new RowSerializer(spark, fields.getInt(spark)));
    } catch (ReflectiveOperationException | RuntimeException e) {
      return; // Spark's own reads as well
    }
  }

  @Override
  public SerializerInstance newInstance() {
    return new Instance(spark.newInstance(), fields);
  }

  @Override
  public boolean supportsRelocationOfSerializedObjects() {
    return spark.supportsRelocationOfSerializedObjects();
  }

  private static final class Instance extends SerializerInstance {
    private final SerializerInstance spark;
    private final int fields;

    Instance(SerializerInstance spark, int fields) {
      this.spark = spark;
      this.fields = fields;
    }

    @Override
    public DeserializationStream deserializeStream(InputStream in) {
      return new RowStream(in, fields);
    }

    @Override
    public SerializationStream serializeStream(OutputStream out) {
      return spark.serializeStream(out);
    }

    @Override
    public <T> ByteBuffer serialize(T value, ClassTag<T> type) {
      return spark.serialize(value, type);
    }

    @Override
    public <T> T deserialize(ByteBuffer bytes, ClassTag<T> type) {
      return spark.deserialize(bytes, type);
    }

    @Override
    public <T> T deserialize(ByteBuffer bytes, ClassLoader loader, ClassTag<T> type) {
      return spark.deserialize(bytes, loader, type);
    }
  }
}
