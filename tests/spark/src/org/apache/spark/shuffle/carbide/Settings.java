/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.util.function.BiConsumer;

/** What `run` sets: key=value, one a line, in -Dcarbide.test.conf. */
final class Settings {
    private Settings() {}

    static void each(BiConsumer<String, String> use) {
        for (String line : System.getProperty("carbide.test.conf", "").split("\n")) {
            int equals = line.indexOf('=');
            if (equals > 0) {
                use.accept(line.substring(0, equals), line.substring(equals + 1));
            }
        }
    }
}
