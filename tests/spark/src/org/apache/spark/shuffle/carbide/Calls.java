/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.spark.SparkConf;
import org.apache.spark.memory.MemoryConsumer;
import org.apache.spark.memory.SparkOutOfMemoryError;
import org.apache.spark.memory.TaskMemoryManager;
import org.apache.spark.memory.TestMemoryManager;

/**
 * The library's calls with arguments that nobody should pass: lengths, offsets, levels and sizes that are negative, huge or one too
 * many, arrays and buffers of the wrong kind, handles that were closed or never were, from several threads too. What cannot be must
 * throw, a closed handle must be found out, and in the end nothing may be left. That the JVM lives is what `run` sees.
 */
public final class Calls {
    private static final int BATCH_BYTES = 64 << 10;
    private static final int ROUNDS = 8;
    private static final int CALLS = 1500;
    private static final int RACES = 40;
    private static final long MEMORY_BYTES = 4 << 20;
    private static final int[] INTS = {Integer.MIN_VALUE, Integer.MIN_VALUE + 1, -65536, -2, -1, 0, 1, 2, 3, 4, 7, 8, 63, 64, 65, 200, 4096, 32768,
        65536, 1 << 24, (1 << 24) + 1, (32 << 20) + 1, Integer.MAX_VALUE - 1, Integer.MAX_VALUE};
    private static final long[] LONGS = {Long.MIN_VALUE, -4096, -1, 0, 1, 4095, 4096, 65535, 65536, 1 << 20, (1L << 30) + 1, 1L << 32, 1L << 44,
        Long.MAX_VALUE - 4095, Long.MAX_VALUE};

    /** A writer that was opened with arguments that can be. */
    private static final class Writer {
        final long handle;
        final int partitions;
        final CarbideMemory memory;
        boolean closed;

        Writer(long handle, int partitions, CarbideMemory memory) {
            this.handle = handle;
            this.partitions = partitions;
            this.memory = memory;
            memory.opened(handle);
        }
    }

    private final Random random;
    private final File folder;
    private final String[] folders;
    private final TaskMemoryManager task;
    private final CarbideMemory memory;
    private final List<Writer> writers = new ArrayList<>();
    private final ByteBuffer batch = ByteBuffer.allocateDirect(BATCH_BYTES).order(ByteOrder.nativeOrder());
    private final boolean failing; // some are opened whose folder is missing
    private int threw;
    private int worked;

    private Calls(long seed, File folder, long bytes) {
        this.random = new Random(seed);
        failing = seed % 2 == 0;
        this.folder = folder;
        this.folders = new String[] {folder.getPath()};
        TestMemoryManager manager =
            new TestMemoryManager(new SparkConf(false).set("spark.memory.offHeap.enabled", "true").set("spark.memory.offHeap.size", "64m"));
        manager.limit(bytes);
        task = new TaskMemoryManager(manager, 0);
        memory = new CarbideMemory(task);
    }

    public static void main(String[] arguments) throws Exception {
        long seed = arguments.length > 0 ? Long.parseLong(arguments[0]) : 20;
        String failure = CarbideNative.load(System.getProperty("carbide.library.path", ""));
        Check.same(null, failure, "why the library cannot be loaded");
        File folder = Files.createTempDirectory("calls").toFile();
        ofLevels(folder);
        ofNames(folder);
        ofHugeRows(folder);
        ofTwoThreads();
        int threw = 0;
        int worked = 0;
        for (int round = 0; round < ROUNDS; round++) {
            Calls calls = new Calls(seed + round, folder, MEMORY_BYTES);
            for (int i = 0; i < CALLS; i++) {
                calls.any();
            }
            calls.end();
            threw += calls.threw;
            worked += calls.worked;
        }
        for (int race = 0; race < RACES; race++) {
            new Calls(seed + race, folder, MEMORY_BYTES).race();
        }
        Check.same(0, CarbideNative.writers(), "writers left behind");
        Check.same(0, folder.list().length, "files left behind");
        Check.that(folder.delete(), "the folder is gone");
        System.out.printf("CALLS threw=%d worked=%d races=%d%n", threw, worked, RACES);
        System.out.printf("CASE calls %s%n", threw > 1000 && worked > 1000 ? "passed" : "FAILED: " + threw + " threw, " + worked + " worked");
    }

    /** Levels of zstd that there are not: it takes the nearest. */
    private static void ofLevels(File folder) throws IOException {
        for (int level : new int[] {Integer.MIN_VALUE, -1, 0, Integer.MAX_VALUE}) {
            Calls calls = new Calls(0, folder, MEMORY_BYTES);
            try {
                CarbideNative.close(CarbideNative.open(calls.folders, 1, CarbideNative.CODEC_ZSTD, level, 0, 0, 0, calls.memory));
            } catch (SparkOutOfMemoryError e) {
                Check.that(level > 0, "no memory at level " + level); // the highest takes much
            }
        }
    }

    /** What Java calls a file C calls the same, and a NUL ends no name. */
    private static void ofNames(File folder) throws IOException {
        Calls calls = new Calls(0, folder, MEMORY_BYTES);
        String[] names = System.getProperty("sun.jnu.encoding").equals("UTF-8")
            ? new String[] {"plain", "gr\u00fc\u00df", "\u65e5\u672c", "\ud83d\ude00", "a\ud834\udd1eb\udbff\udfff"}
            : new String[] {"plain"};
        for (String name : names) {
            File below = new File(folder, name);
            Check.that(below.mkdir(), "a folder is made");
            long handle = CarbideNative.open(new String[] {below.getPath()}, 1, CarbideNative.CODEC_LZ4, 0, 0, 0, 0, calls.memory);
            CarbideNative.write(handle, new File(below, name).getPath(), new long[1], null);
            CarbideNative.close(handle);
            Check.that(new File(below, name).delete() && below.delete(), name + " is where Java looks for it");
        }
        for (String wrong : new String[] {null, "a\0b", folder.getPath() + "\0"}) {
            Check.that(refuses(() -> CarbideNative.open(new String[] {wrong}, 1, CarbideNative.CODEC_LZ4, 0, 0, 0, 0, calls.memory)),
                "a folder's name that cannot be is refused");
        }
    }

    /** A row's size and what is put before it are more than an int holds: it goes in pieces, and C refuses the first. */
    private static void ofHugeRows(File folder) throws IOException {
        Calls calls = new Calls(0, folder, MEMORY_BYTES);
        long handle = CarbideNative.open(calls.folders, 1, CarbideNative.CODEC_LZ4, 0, 0, 0, 0, calls.memory);
        RecordBatch batch = new RecordBatch(handle, calls.memory, new CarbideSettings(new SparkConf(false)));
        Check.that(refuses(() -> batch.putRow(1, null, 0, Integer.MAX_VALUE - 7)), "a row for partition 1 of 1 is refused");
        batch.close();
        CarbideNative.close(handle);
    }

    /** One thread acquires while another releases: what is held is known all the same. */
    private static void ofTwoThreads() throws InterruptedException {
        int times = 1 << 20;
        TestMemoryManager manager = new TestMemoryManager(new SparkConf(false));
        CarbideMemory memory = new CarbideMemory(new TaskMemoryManager(manager, 0) { // gives whatever is asked for, with no lock
            @Override
            public long acquireExecutionMemory(long bytes, MemoryConsumer consumer) {
                return bytes;
            }

            @Override
            public void releaseExecutionMemory(long bytes, MemoryConsumer consumer) {
                // it was never taken from anybody
            }
        });
        memory.acquire(times);
        AtomicReference<Throwable> wrong = new AtomicReference<>();
        Thread[] threads = {started(wrong, () -> {
            for (int i = 0; i < times; i++) {
                memory.acquire(1);
            }
        }), started(wrong, () -> {
            for (int i = 0; i < times; i++) {
                memory.release(1);
            }
        })};
        for (Thread thread : threads) {
            thread.join();
        }
        Check.same(null, wrong.get(), "what was thrown");
        Check.same((long) times, memory.getUsed(), "bytes held");
        memory.release(times);
        Check.same(0L, memory.getUsed(), "bytes held in the end");
    }

    private static boolean refuses(Call call) throws IOException {
        try {
            call.run();
            return false;
        } catch (IllegalArgumentException e) {
            return true;
        }
    }

    // ---- arguments ----

    private int number() {
        return random.nextInt(8) == 0 ? random.nextInt() : INTS[random.nextInt(INTS.length)];
    }

    private long longNumber() {
        return random.nextInt(8) == 0 ? random.nextLong() : LONGS[random.nextInt(LONGS.length)];
    }

    private boolean rarely() {
        return random.nextInt(6) == 0;
    }

    /** Null: what comes is no writer's handle. */
    private Writer writer() {
        return writers.isEmpty() || rarely() ? null : writers.get(random.nextInt(writers.size()));
    }

    private long handleOf(Writer writer) {
        if (writer != null) {
            return writer.handle;
        }
        // Never one of an open writer: its generation has other bits.
        return writers.isEmpty() || random.nextBoolean() ? -1 - (longNumber() & Long.MAX_VALUE) / 2
            : writers.get(random.nextInt(writers.size())).handle + ((long) (1 + random.nextInt(1000)) << 40);
    }

    private String[] wrongFolders() {
        switch (random.nextInt(4)) {
            case 0: return null;
            case 1: return new String[0];
            case 2: return new String[] {folder.getPath(), null};
            default: return new String[] {null};
        }
    }

    private ByteBuffer buffer() {
        switch (random.nextInt(12)) {
            case 0: return null;
            case 1: return ByteBuffer.allocate(64);
            case 2: return ByteBuffer.allocateDirect(0);
            case 3: return batch.asReadOnlyBuffer();
            case 4: return batch.duplicate().position(BATCH_BYTES - 5).slice();
            default: return batch;
        }
    }

    private long[] longs(int right) {
        switch (random.nextInt(8)) {
            case 0: return null;
            case 1: return new long[0];
            case 2: return new long[right + 1];
            case 3: return new long[Math.max(right - 1, 0)];
            default: return new long[right];
        }
    }

    private String file() {
        switch (random.nextInt(6)) {
            case 0: return null;
            case 1: return "";
            case 2: return folder.getPath();
            case 3: return folder.getPath() + "/none/file";
            default: return folder.getPath() + "/file";
        }
    }

    /** Records that can be; how many bytes they have. */
    private int fillWell(Random random, ByteBuffer to, int partitions, int most) {
        to.clear();
        while (to.position() + 16 < most) {
            int length = Math.min(random.nextInt(rarelyLong(random) ? 8000 : 60), most - to.position() - 8);
            to.putInt(random.nextInt(partitions)).putInt(length);
            for (int i = 0; i < length; i++) {
                to.put((byte) (i * length));
            }
        }
        return to.position();
    }

    private static boolean rarelyLong(Random random) {
        return random.nextInt(40) == 0;
    }

    private void fillBadly() {
        batch.clear();
        switch (random.nextInt(3)) {
            case 0:
                while (batch.remaining() >= 4) {
                    batch.putInt(random.nextInt());
                }
                break;
            case 1:
                while (batch.remaining() >= 8) {
                    batch.putInt(number()).putInt(number());
                }
                break;
            default: // all is well until one record
                int at = fillWell(random, batch, 1, BATCH_BYTES - 64);
                batch.position(at);
                batch.putInt(random.nextBoolean() ? 0 : number()).putInt(number());
        }
    }

    // ---- calls ----

    private interface Call {
        void run() throws IOException;
    }

    /** True: it returned. What it throws is one of four things. */
    private boolean returns(Call call) {
        try {
            call.run();
            worked++;
            return true;
        } catch (IllegalArgumentException | IllegalStateException | IOException | SparkOutOfMemoryError e) {
            Check.that(e.getMessage() != null && !e.getMessage().isEmpty(), "a message");
            threw++;
            return false;
        }
    }

    private void any() throws IOException {
        switch (random.nextInt(16)) {
            case 0: open(); break;
            case 1: openBadly(); break;
            case 2: returns(() -> CarbideNative.address(buffer())); break;
            case 3: close(); break;
            case 4: write(); break;
            case 5: figures(); break;
            case 6:
            case 7: spill(); break;
            case 8:
            case 9: appendBadly(); break;
            default: appendWell();
        }
    }

    private void open() throws IOException {
        if (writers.stream().filter(w -> !w.closed).count() >= 6) {
            close();
            return;
        }
        int partitions = new int[] {1, 2, 3, 50, 200, 5000}[random.nextInt(6)];
        int codec = random.nextInt(3);
        int block = new int[] {0, 64, 65, 4096, 100000}[random.nextInt(5)];
        boolean cannotSpill = failing && random.nextInt(8) == 0;
        String[] where = cannotSpill ? new String[] {folder.getPath() + "/none"} : folders; // known when it spills
        CarbideMemory memory = new CarbideMemory(task);
        long handle = CarbideNative.open(where, partitions, codec, random.nextInt(5) - 1, block, random.nextInt(4), random.nextBoolean() ? 0 : 65536, memory);
        Check.that(handle > 0, "a handle");
        writers.add(new Writer(handle, partitions, memory));
        worked++;
    }

    /** One argument at least is wrong. */
    private void openBadly() {
        String[] where = folders;
        int[] numbers = {1, 1, 1, 0, 1};
        long page = 0;
        CarbideMemory from = memory;
        switch (random.nextInt(7)) {
            case 0: where = wrongFolders(); break;
            case 1: from = null; break;
            case 2: page = random.nextBoolean() ? -1 - (longNumber() & Long.MAX_VALUE) / 2 : (1L << 30) + 1 + (longNumber() & Long.MAX_VALUE) / 4; break;
            case 3: numbers[0] = random.nextBoolean() ? -(number() >>> 1) : (1 << 24) + 1 + (number() >>> 2); break;
            case 4: numbers[1] = random.nextBoolean() ? -1 - (number() >>> 1) : 3 + (number() >>> 2); break;
            case 5: numbers[3] = random.nextBoolean() ? -1 - (number() >>> 1) : (32 << 20) + 1 + (number() >>> 2); break;
            default: numbers[4] = random.nextBoolean() ? -1 - (number() >>> 1) : 4 + (number() >>> 2);
        }
        String[] folders = where;
        CarbideMemory memory = from;
        long bytes = page;
        Check.that(!returns(() -> CarbideNative.open(folders, numbers[0], numbers[1], number(), numbers[3], numbers[4], bytes, memory)),
            "thrown: " + Arrays.toString(where) + Arrays.toString(numbers) + page + from);
    }

    private void appendWell() {
        Writer writer = writer();
        int bytes = fillWell(random, batch, writer != null ? writer.partitions : 4, 1 + random.nextInt(BATCH_BYTES));
        demandClosedIsFound(writer, () -> CarbideNative.append(handleOf(writer), batch, bytes));
    }

    private void appendBadly() {
        Writer writer = writer();
        fillBadly();
        int bytes = random.nextBoolean() ? number() : random.nextInt(BATCH_BYTES + 2);
        demandClosedIsFound(writer, () -> CarbideNative.append(handleOf(writer), buffer(), bytes));
    }

    private void spill() {
        Writer writer = writer();
        returns(() -> {
            long released = CarbideNative.spill(handleOf(writer), longNumber());
            Check.that(released >= 0 && (writer != null && !writer.closed || released == 0), "released " + released);
        });
    }

    private void write() {
        Writer writer = writer();
        int right = writer != null ? writer.partitions : 4;
        String name = file();
        long[] lengths = longs(right);
        boolean wrote = demandClosedIsFound(writer, () -> CarbideNative.write(handleOf(writer), name, lengths, longs(right)));
        File file = new File(folder, "file");
        if (wrote) {
            Check.same(file.length(), Arrays.stream(lengths).sum(), "the file's bytes");
        }
        Check.same(wrote, file.delete(), "whether there is a file");
    }

    private void figures() {
        Writer writer = writer();
        demandClosedIsFound(writer, () -> CarbideNative.figures(handleOf(writer), longs(CarbideNative.FIGURE_COUNT)));
    }

    private void close() {
        Writer writer = writer();
        if (writer != null) {
            writer.closed = true;
            writer.memory.closed();
        }
        CarbideNative.close(handleOf(writer));
        Check.same(writers.stream().filter(w -> !w.closed).count(), CarbideNative.writers(), "writers that are open");
    }

    private boolean demandClosedIsFound(Writer writer, Call call) {
        boolean returned = returns(call);
        Check.that(!returned || writer != null && !writer.closed, "a handle that is none was taken");
        return returned;
    }

    private void end() {
        for (Writer writer : writers) {
            writer.memory.closed();
            CarbideNative.close(writer.handle);
            Check.same(0, writer.memory.getUsed(), "memory of a writer left behind");
        }
        Check.same(0, memory.getUsed(), "memory left behind");
        // What Spark had got for somebody before another's spill failed it gives back at the end of the task, which fails too.
        long left = task.cleanUpAllAllocatedMemory();
        Check.that(failing || left == 0, "memory left behind, says the task: " + left);
    }

    // ---- several threads: one appends and writes, others spill and close ----

    private void race() throws Exception {
        int partitions = 1 + random.nextInt(100);
        long handle = CarbideNative.open(folders, partitions, random.nextInt(3), 0, 0, random.nextInt(4), 65536, memory);
        int closesAfter = random.nextInt(30);
        int batches = random.nextInt(40);
        AtomicReference<Throwable> wrong = new AtomicReference<>();
        Random own = new Random(random.nextLong());
        Thread appends = started(wrong, () -> {
            for (int i = 0; i < batches; i++) {
                CarbideNative.append(handle, batch, fillWell(own, batch, partitions, BATCH_BYTES));
            }
            CarbideNative.write(handle, folder.getPath() + "/file", new long[partitions], null);
        });
        Thread spills = started(wrong, () -> {
            for (int i = 0; i < closesAfter; i++) {
                CarbideNative.spill(handle, i);
                CarbideNative.figures(handle, new long[CarbideNative.FIGURE_COUNT]);
            }
            CarbideNative.close(handle);
        });
        appends.join();
        spills.join();
        if (wrong.get() != null) {
            throw new AssertionError("a race", wrong.get());
        }
        Files.deleteIfExists(new File(folder, "file").toPath());
        end();
    }

    private static Thread started(AtomicReference<Throwable> wrong, Call call) {
        Thread thread = new Thread(() -> {
            try {
                call.run();
            } catch (IllegalStateException e) {
                // closed meanwhile
            } catch (Throwable e) {
                wrong.set(e);
            }
        });
        thread.start();
        return thread;
    }
}
