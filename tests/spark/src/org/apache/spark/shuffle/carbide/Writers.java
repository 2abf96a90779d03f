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

    /** Where carbide's time went in this JVM, in nanoseconds: by these names, in this order. */
    static final String[] PHASES = {"copy", "compress", "spill", "merge", "file"};

    static long[] nanos() {
        try {
            Class<?> manager = Class.forName("org.apache.spark.shuffle.carbide.CarbideShuffleManager");
            return (long[]) manager.getMethod("nativeNanos").invoke(null);
        } catch (ReflectiveOperationException e) {
            return new long[PHASES.length];
        }
    }

    /** Since `before`. */
    static String timed(long[] before) {
        long[] now = nanos();
        StringBuilder line = new StringBuilder();
        for (int i = 0; i < PHASES.length; i++) {
            line.append(' ').append(PHASES[i]).append('=').append(now[i] - before[i]);
        }
        return line.substring(1);
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
