// SPDX-License-Identifier: Apache-2.0
package carbide.oracle.spark;

import carbide.oracle.Engine;
import carbide.oracle.Turn;
import java.io.IOException;
import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.spark.SparkConf;
import org.apache.spark.memory.MemoryConsumer;
import org.apache.spark.memory.MemoryManager;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.memory.SparkOutOfMemoryError;
import org.apache.spark.memory.TaskMemoryManager;
import org.apache.spark.memory.TooLargePageException;
import org.apache.spark.memory.UnifiedMemoryManager;
import org.apache.spark.unsafe.memory.MemoryAllocator;
import org.apache.spark.unsafe.memory.MemoryBlock;

/** Spark 4.2's TaskMemoryManager and MemoryConsumer with the operations of tests/oracle/task_trace.c, which explains them. */
public final class TaskEngine implements Engine {
    private static final long SYSTEM_MAX = 65536;
    private static final int SPILLS_LISTED = 40;

    private MemoryManager manager;
    private final TreeMap<Long, Task> tasks = new TreeMap<>();
    private final StringBuilder spilled = new StringBuilder();
    private int spills;
    private long othersSpilled;

    private static final class Task {
        final TaskMemoryManager memory;
        final List<Consumer> consumers = new ArrayList<>();

        Task(TaskMemoryManager memory) {
            this.memory = memory;
        }
    }

    /** The system, short of memory: no page of more than SYSTEM_MAX. */
    private static final class ShortAllocator implements MemoryAllocator {
        private final MemoryAllocator real;

        ShortAllocator(MemoryAllocator real) {
            this.real = real;
        }

        @Override
        public MemoryBlock allocate(long size) {
            if (size > SYSTEM_MAX) {
                throw new OutOfMemoryError("a page of " + size + " bytes");
            }
            return real.allocate(size);
        }

        @Override
        public void free(MemoryBlock page) {
            real.free(page);
        }
    }

    private final class Consumer extends MemoryConsumer {
        final int index;
        final String kind;
        final List<MemoryBlock> pages = new ArrayList<>();
        MemoryBlock lastFreed;
        long bytes; // acquired, without pages

        Consumer(TaskMemoryManager memory, int index, String kind, long pageBytes, MemoryMode mode) {
            super(memory, pageBytes, mode);
            this.index = index;
            this.kind = kind;
        }

        /** The order of consumers of equal size is that of a HashSet there, and chance; here it is the order of their numbers. */
        @Override
        public int hashCode() {
            return index;
        }

        @Override
        public boolean equals(Object other) {
            return this == other;
        }

        long acquire(long wanted) {
            long granted = acquireMemory(wanted);
            bytes += granted;
            return granted;
        }

        long release(long given) {
            freeMemory(given);
            bytes -= given;
            return given;
        }

        MemoryBlock page(long size) {
            MemoryBlock page = taskMemoryManager.allocatePage(size, this);
            if (page != null) {
                used.getAndAdd(page.size());
            }
            return page;
        }

        MemoryBlock pageOfAtLeast(long required) {
            return allocatePage(required);
        }

        MemoryBlock find(int number) {
            return pages.stream().filter(page -> page.pageNumber == number).findFirst().orElseThrow();
        }

        long free(MemoryBlock page) {
            long size = page.size();
            freePage(page);
            pages.remove(page);
            lastFreed = page;
            return size;
        }

        private long spillAll() {
            long released = 0;
            while (!pages.isEmpty()) {
                released += free(pages.get(0));
            }
            return released + release(bytes);
        }

        private long spillPages(long size) {
            long released = 0;
            while (released < size && !pages.isEmpty()) {
                released += free(pages.get(pages.size() - 1));
            }
            return released;
        }

        @Override
        public long spill(long size, MemoryConsumer trigger) throws IOException {
            long released = switch (kind) {
                case "all" -> spillAll();
                case "some" -> release(Math.min(size, bytes));
                case "half" -> release(bytes - bytes / 2);
                case "others" -> trigger != this ? spillAll() : 0;
                case "pages" -> spillPages(size);
                default -> 0;
            };
            if (++spills <= SPILLS_LISTED) {
                spilled.append(spills > 1 ? " " : "spilled{").append(index).append(':').append(size).append('=').append(released);
            } else {
                othersSpilled += released;
            }
            return released;
        }
    }

    private static MemoryMode mode(String word) {
        return word.equals("off") ? MemoryMode.OFF_HEAP : MemoryMode.ON_HEAP;
    }

    @Override
    public String configure(Map<String, String> words) throws Throwable {
        tasks.values().forEach(task -> task.memory.cleanUpAllAllocatedMemory());
        tasks.clear();
        SparkConf conf = new SparkConf(false)
                .set("spark.memory.offHeap.enabled", Boolean.toString(words.get("mode").equals("off")))
                .set("spark.memory.offHeap.size", words.getOrDefault("offheap", "0"));
        manager = new UnifiedMemoryManager(conf, Long.parseLong(words.get("heap")), Long.parseLong(words.get("storageRegion")), 1);
        for (Field field : MemoryManager.class.getDeclaredFields()) {
            if (MemoryAllocator.class.isAssignableFrom(field.getType())) {
                field.setAccessible(true);
                field.set(manager, new ShortAllocator((MemoryAllocator) field.get(manager)));
            }
        }
        return "";
    }

    private static String describe(Throwable e) {
        String message = e.getMessage();
        if (message == null) {
            return "error:mode"; // an assertion with no words
        }
        return "error:" + (message.startsWith("assertion failed: ") ? message.substring(18) : message);
    }

    /** A page's number and size, or how it was refused. */
    private static String allocate(Consumer consumer, String verb, long bytes) {
        try {
            MemoryBlock page = switch (verb) {
                case "array" -> consumer.allocateArray(bytes).memoryBlock();
                case "need" -> consumer.pageOfAtLeast(bytes);
                default -> consumer.page(bytes);
            };
            if (page == null) {
                return "none";
            }
            consumer.pages.add(page);
            return page.pageNumber + ":" + page.size();
        } catch (SparkOutOfMemoryError e) {
            return "none";
        } catch (TooLargePageException | IllegalStateException | AssertionError e) {
            return describe(e);
        }
    }

    private static String allocateMany(Consumer consumer, long bytes, long count) {
        for (long done = 0; done < count; done++) {
            int before = consumer.pages.size();
            String one = allocate(consumer, "page", bytes);
            if (consumer.pages.size() == before) {
                return done + " then " + one;
            }
        }
        return "" + count;
    }

    private String address(Task task, Consumer consumer, int number, long offset) {
        MemoryBlock page = consumer.find(number);
        long address = task.memory.encodePageNumberAndOffset(page, page.getBaseOffset() + offset);
        return TaskMemoryManager.decodePageNumber(address) + ":" + (task.memory.getOffsetInPage(address) - page.getBaseOffset());
    }

    @Override
    public String run(String[] words, Turn turn) throws Throwable {
        turn.mayWait(Long.parseLong(words[1])); // nothing in these traces does
        String result = operate(words);
        turn.isOver(result);
        return result;
    }

    private String operate(String[] words) {
        spilled.setLength(0);
        spills = 0;
        othersSpilled = 0;
        long id = Long.parseLong(words[1]);
        if (words[0].equals("consumer")) {
            Task task = tasks.computeIfAbsent(id, k -> new Task(new TaskMemoryManager(manager, k)));
            task.consumers.add(
                    new Consumer(task.memory, Integer.parseInt(words[2]), words[4], Long.parseLong(words[5]), mode(words[3])));
            return "ok";
        }
        if (words[0].equals("end")) {
            return "" + tasks.remove(id).memory.cleanUpAllAllocatedMemory();
        }
        Task task = tasks.get(id);
        Consumer consumer = task.consumers.get(Integer.parseInt(words[2]));
        long bytes = words.length > 3 ? Long.parseLong(words[3]) : 0;
        switch (words[0]) {
            case "acquire":
                try {
                    return "" + consumer.acquire(bytes);
                } catch (AssertionError e) {
                    return describe(e);
                }
            case "release":
                consumer.release(bytes);
                return "ok";
            case "pages":
                return allocateMany(consumer, bytes, Long.parseLong(words[4]));
            case "free":
                consumer.free(consumer.find((int) bytes));
                return "ok";
            case "again":
                try {
                    task.memory.freePage(consumer.lastFreed, consumer);
                    return "ok";
                } catch (AssertionError e) {
                    return describe(e);
                }
            case "address":
                return address(task, consumer, (int) bytes, Long.parseLong(words[4]));
            default:
                return allocate(consumer, words[0], bytes);
        }
    }

    @Override
    public String evicted() {
        String more = spills > SPILLS_LISTED ? " +" + (spills - SPILLS_LISTED) + "=" + othersSpilled : "";
        String text = spills > 0 ? spilled + more + "}" : "";
        spills = 0;
        return text;
    }

    @Override
    public String state() {
        StringBuilder text = new StringBuilder();
        text.append("on=").append(manager.onHeapExecutionMemoryPool().memoryUsed()).append('/')
                .append(manager.onHeapExecutionMemoryPool().poolSize()).append('+').append(manager.onHeapStorageMemoryPool().poolSize());
        text.append(" off=").append(manager.offHeapExecutionMemoryPool().memoryUsed()).append('/')
                .append(manager.offHeapExecutionMemoryPool().poolSize()).append('+').append(manager.offHeapStorageMemoryPool().poolSize());
        tasks.forEach((id, task) -> {
            text.append(" task").append(id).append('{').append(task.memory.getMemoryConsumptionForThisTask()).append(" peak=")
                    .append(task.memory.getPeakOnHeapExecutionMemory()).append('+').append(task.memory.getPeakOffHeapExecutionMemory());
            for (Consumer consumer : task.consumers) {
                text.append(' ').append(consumer.index).append('=').append(consumer.getUsed());
            }
            text.append('}');
        });
        return text.toString();
    }
}
