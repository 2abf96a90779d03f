// SPDX-License-Identifier: Apache-2.0
package carbide.oracle;

/** What a thread that drives tells the others. */
public interface Turn {
    /** Is this task waiting in an earlier call? */
    boolean isBlocked(long task);

    /** From here on this thread may be found waiting, on behalf of that task. */
    void mayWait(long task);

    /** The call came back with this; true: it had waited, and somebody else drives. */
    boolean isOver(String result);
}
