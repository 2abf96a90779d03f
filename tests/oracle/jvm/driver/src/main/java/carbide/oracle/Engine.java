// SPDX-License-Identifier: Apache-2.0
package carbide.oracle;

import java.util.Map;

/** One original memory manager. Its methods are called by whoever drives at the time, one at a time. */
public interface Engine {
    /**
     * A new manager in place of the one before. Answers what follows "ok" ("" or " size=..."). What the class throws comes
     * out, and the manager before stays.
     */
    String configure(Map<String, String> words) throws Throwable;

    /**
     * Answers the result. Around a call of the original that may wait, it calls turn.mayWait(task) and turn.isOver(): when the
     * latter is true somebody else drives by now, and nothing but `return` may follow.
     */
    String run(String[] words, Turn turn) throws Throwable;

    /** "evicted{...}" of the operation, or "". */
    String evicted();

    String state();
}
