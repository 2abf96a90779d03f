/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import org.apache.spark.SparkEnv;

/** Who wrote, in this JVM: without the count a manager that hands everything to Spark's writers would pass. */
final class Writers {
    private Writers() {}

    static long count(String method) {
        try {
            Class<?> manager = Class.forName("org.apache.spark.shuffle.carbide.CarbideShuffleManager");
            return ((Number) manager.getMethod(method).invoke(null)).longValue();
        } catch (ReflectiveOperationException e) {
            return -1;
        }
    }

    /** Before there is a Spark: is it our manager that the settings name? */
    static boolean wanted() {
        return System.getProperty("carbide.test.conf", "").contains("Carbide");
    }

    static boolean measured() {
        return SparkEnv.get().conf().get("spark.shuffle.manager", "sort").contains("Carbide");
    }

    static String counted() {
        return "native=" + count("nativeWriters") + " spark=" + count("sparkWriters");
    }
}
