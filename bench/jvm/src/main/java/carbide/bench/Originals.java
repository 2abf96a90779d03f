// SPDX-License-Identifier: Apache-2.0
package carbide.bench;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CyclicBarrier;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemoryType;
import org.apache.flink.runtime.memory.MemoryManager;
import org.apache.spark.SparkConf;
import org.apache.spark.memory.MemoryConsumer;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.memory.TaskMemoryManager;
import org.apache.spark.memory.UnifiedMemoryManager;
import org.apache.spark.unsafe.memory.MemoryBlock;

/**
 * Spark's TaskMemoryManager and Flink's MemoryManager do what bench/originals.c has carbide do. Both read lines
 * "CASE THREADS TASKS MILLISECONDS" and answer each with the nanoseconds of one operation of one thread. An operation takes
 * something and gives it back. What a case has made stays until the next one, so that a repetition finds it warm.
 */
public final class Originals {
    static final long GIB = 1L << 30;
    static final int MIB = 1 << 20;
    static final int SEGMENT = 32 * 1024;
    static final int BATCH = 64;
    static final int STEP = 256;

    /** Some operations for the task with this index. */
    interface Work {
        void run(int task, int operations) throws Exception;
    }

    static final class Consumer extends MemoryConsumer {
        Consumer(TaskMemoryManager manager, MemoryMode mode) {
            super(manager, MIB, mode);
        }

        @Override
        public long spill(long size, MemoryConsumer trigger) {
            return 0;
        }
    }

    static volatile long sink;

    static void check(boolean good) {
        if (!good) {
            throw new IllegalStateException("not granted");
        }
    }

    static Work spark(String what, int threads, int tasks) {
        boolean offHeap = what.endsWith("off-heap");
        MemoryMode mode = offHeap ? MemoryMode.OFF_HEAP : MemoryMode.ON_HEAP;
        SparkConf conf = new SparkConf(false)
            .set("spark.memory.offHeap.enabled", Boolean.toString(offHeap))
            .set("spark.memory.offHeap.size", Long.toString(offHeap ? GIB : 0));
        UnifiedMemoryManager manager = new UnifiedMemoryManager(conf, GIB, GIB / 2, 2);
        TaskMemoryManager[] of = new TaskMemoryManager[tasks];
        Consumer[][] consumers = new Consumer[tasks][threads];
        for (int i = 0; i < tasks; i++) {
            of[i] = new TaskMemoryManager(manager, i);
            for (int t = 0; t < threads; t++) {
                consumers[i][t] = new Consumer(of[i], mode);
            }
            check(of[i].acquireExecutionMemory(4096, consumers[i][0]) == 4096);
        }
        if (what.startsWith("acquire")) {
            return (task, operations) -> {
                int thread = task / tasks;
                TaskMemoryManager manager1 = of[task % tasks];
                Consumer consumer = consumers[task % tasks][thread];
                for (int i = 0; i < operations; i++) {
                    check(manager1.acquireExecutionMemory(4096, consumer) == 4096);
                    manager1.releaseExecutionMemory(4096, consumer);
                }
            };
        }
        return (task, operations) -> {
            int thread = task / tasks;
            TaskMemoryManager manager1 = of[task % tasks];
            Consumer consumer = consumers[task % tasks][thread];
            for (int i = 0; i < operations; i++) {
                MemoryBlock page = manager1.allocatePage(MIB, consumer);
                check(page != null);
                manager1.freePage(page, consumer);
            }
        };
    }

    static Work flink(String what, int threads, int tasks) {
        boolean batch = what.startsWith("segments");
        MemoryType type = what.contains("off-heap") ? MemoryType.OFF_HEAP : MemoryType.HEAP;
        MemoryManager manager = new MemoryManager(256L * MIB, 1, SEGMENT, type, what.contains("preallocated"));
        Object[] owners = new Object[tasks];
        for (int i = 0; i < tasks; i++) {
            owners[i] = new Object();
            try {
                manager.allocatePages(owners[i], 1);
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }
        return (task, operations) -> {
            Object owner = owners[task % tasks];
            List<MemorySegment> list = new ArrayList<>(BATCH);
            if (batch) { // an operation is a segment, BATCH of them at a time
                for (int i = 0; i < operations; i += BATCH) {
                    manager.allocatePages(owner, list, BATCH);
                    check(list.size() == BATCH);
                    manager.release(list);
                }
                return;
            }
            for (int i = 0; i < operations; i++) {
                manager.allocatePages(owner, list, 1);
                MemorySegment segment = list.remove(0);
                check(segment.size() == SEGMENT);
                manager.release(segment);
            }
        };
    }

    /** Thread t works for the tasks t, t + threads ...; with one task all work for that one. */
    static double measure(Work work, int threads, int tasks, long millis) throws Exception {
        CyclicBarrier start = new CyclicBarrier(threads);
        double[] ns = new double[threads];
        Throwable[] failure = new Throwable[1];
        Thread[] others = new Thread[threads];
        for (int t = 0; t < threads; t++) {
            final int thread = t;
            others[t] = new Thread(() -> {
                try {
                    start.await();
                    long begin = System.nanoTime();
                    long now;
                    long operations = 0;
                    int task = tasks == 1 ? 0 : thread;
                    do {
                        work.run(thread * tasks + task, STEP);
                        operations += STEP;
                        task += threads;
                        if (task >= tasks) {
                            task = tasks == 1 ? 0 : thread;
                        }
                        now = System.nanoTime();
                    } while (now - begin < millis * 1000000);
                    ns[thread] = (double) (now - begin) / operations;
                } catch (Throwable e) {
                    failure[0] = e;
                }
            });
            others[t].start();
        }
        double sum = 0;
        for (int t = 0; t < threads; t++) {
            others[t].join();
            sum += ns[t];
        }
        if (failure[0] != null) {
            throw new IllegalStateException(failure[0]);
        }
        return sum / threads;
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        String last = "";
        Work work = null;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.trim().split(" ");
            int threads = Integer.parseInt(words[1]);
            int tasks = Integer.parseInt(words[2]);
            String name = words[0] + " " + threads + " " + tasks;
            if (!name.equals(last)) {
                String[] parts = words[0].split(":");
                work = null;
                System.gc();
                work = parts[0].equals("spark") ? spark(parts[1], threads, tasks) : flink(parts[1], threads, tasks);
                last = name;
            }
            System.out.printf("%.2f%n", measure(work, threads, tasks, Long.parseLong(words[3])));
            System.out.flush();
        }
    }
}
