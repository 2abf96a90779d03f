/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.lang.reflect.Method;
import org.apache.spark.scheduler.MapStatus;
import org.apache.spark.scheduler.MapStatus$;
import org.apache.spark.storage.BlockManagerId;

/** Makes a MapStatus: with a checksum of rows since Spark 4.1, without one before. */
final class MapStatuses {
  private static final Method APPLY = apply();

  private MapStatuses() {}

  private static Method apply() {
    for (Method method : MapStatus$.class.getMethods()) {
      if (method.getName().equals("apply")) {
        return method;
      }
    }
    throw new IllegalStateException("MapStatus has no apply: this is no Spark that carbide knows.");
  }

  static MapStatus of(BlockManagerId location, long[] lengths, long mapId, long checksum) {
    try {
      return (MapStatus)
          (APPLY.getParameterCount() == 3
              ? APPLY.invoke(MapStatus$.MODULE$, location, lengths, mapId)
              : APPLY.invoke(MapStatus$.MODULE$, location, lengths, mapId, checksum));
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException("MapStatus cannot be made: this is no Spark that carbide knows.", e);
    }
  }
}
