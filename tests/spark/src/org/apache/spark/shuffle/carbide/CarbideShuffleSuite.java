/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import org.apache.spark.ShuffleSuite;

/** Spark's own cases for any shuffle manager, with the manager and the settings that -Dcarbide.test.conf names. */
public class CarbideShuffleSuite extends ShuffleSuite {
    static {
        Runtime.getRuntime().addShutdownHook(
            new Thread(() -> System.out.println("WRITERS " + Writers.counted() + " spills=" + Writers.count("nativeSpills"))));
    }

    public CarbideShuffleSuite() {
        Settings.each((key, value) -> conf().set(key, value));
    }
}
