/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.util.Objects;

/** What a case demands. */
final class Check {
    private Check() {}

    static void that(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError("not so: " + what);
        }
    }

    static void same(Object expected, Object got, String what) {
        boolean equal = expected instanceof Number && got instanceof Number
            ? ((Number) expected).longValue() == ((Number) got).longValue() : Objects.equals(expected, got);
        that(equal, what + ": expected " + expected + ", got " + got);
    }
}
