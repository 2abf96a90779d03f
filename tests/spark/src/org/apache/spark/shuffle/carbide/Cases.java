/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import static org.apache.spark.shuffle.carbide.Check.same;
import static org.apache.spark.shuffle.carbide.Check.that;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.spark.TaskKilledException;
import org.apache.spark.executor.TaskMetrics;
import org.apache.spark.scheduler.MapStatus;
import org.apache.spark.serializer.SerializationStream;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.shuffle.sort.SerializedShuffleHandle;
import org.apache.spark.shuffle.sort.SortShuffleManager;
import org.apache.spark.sql.catalyst.expressions.UnsafeRow;
import org.apache.spark.storage.ShuffleBlockId;
import org.mockito.Mockito;
import scala.Option;
import scala.Product2;
import scala.Tuple2;
import scala.reflect.ClassTag$;

/**
 * One writer at a time, looked at from outside: what Spark's UnsafeShuffleWriterSuite asks of Spark's writer, asked of whichever writer
 * the manager gives, and what no case of Spark's asks of a plug-in: checksums, corruption, spilling that others cause.
 */
public final class Cases {
    private interface Case {
        void run() throws Exception;
    }

    private final Map<String, Case> cases = new LinkedHashMap<>();

    public static void main(String[] names) {
        Cases all = new Cases();
        all.ofOneWriter();
        if (Writers.wanted()) {
            all.ofKills();
        }
        all.ofSpills();
        all.ofChecksums();
        all.ofFormats();
        int failed = 0;
        for (Map.Entry<String, Case> one : all.cases.entrySet()) {
            if (names.length > 0 && !Arrays.asList(names).contains(one.getKey())) {
                continue;
            }
            try {
                one.getValue().run();
                System.out.println("CASE " + one.getKey() + " passed");
            } catch (Throwable e) {
                failed++;
                System.out.println("CASE " + one.getKey() + " FAILED " + e);
                e.printStackTrace();
            }
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    private static <E extends Throwable> void throwing(Class<E> type, Case what) throws Exception {
        try {
            what.run();
        } catch (Throwable e) {
            that(type.isInstance(e), type.getSimpleName() + " thrown, not " + e);
            return;
        }
        throw new AssertionError("nothing was thrown, expected " + type.getSimpleName());
    }

    private static Map<Object, Integer> counted(Iterable<? extends Product2<Object, Object>> records) {
        Map<Object, Integer> counts = new HashMap<>();
        records.forEach(r -> counts.merge(r, 1, Integer::sum));
        return counts;
    }

    private static List<Tuple2<Object, Object>> numbered(int count) {
        List<Tuple2<Object, Object>> records = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            records.add(new Tuple2<>(i, "record " + i * 31L));
        }
        return records;
    }

    private static List<Tuple2<Object, Object>> random(int count, int bytes) {
        Random random = new Random(42);
        List<Tuple2<Object, Object>> records = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            byte[] value = new byte[bytes];
            random.nextBytes(value);
            records.add(new Tuple2<>(i, ByteBuffer.wrap(value)));
        }
        return records;
    }

    private static void roundTrip(List<Tuple2<Object, Object>> records, boolean spills, String... settings) throws Exception {
        try (Fixture f = new Fixture(settings).open()) {
            f.write(records.iterator());
            same(counted(records), counted(f.records()), "records");
            TaskMetrics metrics = f.task.taskMetrics();
            same(records.size(), metrics.shuffleWriteMetrics().recordsWritten(), "records written");
            same(f.data().length(), metrics.shuffleWriteMetrics().bytesWritten(), "bytes written");
            same(spills, metrics.memoryBytesSpilled() > 0, "memory spilled");
            same(spills, metrics.diskBytesSpilled() > 0, "disk spilled to");
            that(metrics.peakExecutionMemory() > 0, "a peak of memory");
        }
    }

    // ---- the cases of UnsafeShuffleWriterSuite that speak of what is seen from outside ----

    private void ofOneWriter() {
        cases.put("mustCallWriteBeforeSuccessfulStop", () -> {
            try (Fixture f = new Fixture().open()) {
                throwing(IllegalStateException.class, () -> f.writer.stop(true));
            }
        });
        cases.put("doNotNeedToCallWriteBeforeUnsuccessfulStop", () -> {
            try (Fixture f = new Fixture().open()) {
                f.writer.stop(false);
            }
        });
        cases.put("writeFailurePropagates", () -> {
            try (Fixture f = new Fixture().open()) {
                throwing(UnsupportedOperationException.class, () -> f.write(new Iterator<Tuple2<Object, Object>>() {
                    @Override
                    public boolean hasNext() {
                        throw new UnsupportedOperationException("panda");
                    }

                    @Override
                    public Tuple2<Object, Object> next() {
                        return null;
                    }
                }));
                f.writer.stop(false);
            }
        });
        cases.put("failureAfterManyRecordsPropagates", () -> {
            try (Fixture f = new Fixture("spark.memory.offHeap.size=4m").open()) {
                Iterator<Tuple2<Object, Object>> records = random(10000, 1000).iterator();
                throwing(UnsupportedOperationException.class, () -> f.write(new Iterator<Tuple2<Object, Object>>() {
                    private int left = 9000;

                    @Override
                    public boolean hasNext() {
                        return true;
                    }

                    @Override
                    public Tuple2<Object, Object> next() {
                        if (left-- == 0) {
                            throw new UnsupportedOperationException("panda");
                        }
                        return records.next();
                    }
                }));
                f.writer.stop(false);
                same(Collections.emptyList(), f.files(".data"), "files of data");
                TaskMetrics metrics = f.task.taskMetrics();
                that(metrics.memoryBytesSpilled() > 0 && metrics.diskBytesSpilled() > 0 && metrics.peakExecutionMemory() > 0,
                    "what a failed task spilled and held");
            }
        });
        cases.put("writeEmptyIterator", () -> {
            try (Fixture f = new Fixture().open()) {
                f.write(Collections.emptyIterator());
                same(0L, f.data().length(), "bytes");
                that(Arrays.equals(new long[Fixture.PARTITIONS + 1], f.offsets()), "an index of zeros");
                TaskMetrics metrics = f.task.taskMetrics();
                same(0, metrics.shuffleWriteMetrics().recordsWritten(), "records");
                same(0, metrics.shuffleWriteMetrics().bytesWritten(), "bytes written");
                same(0, metrics.diskBytesSpilled() + metrics.memoryBytesSpilled(), "spilled");
            }
        });
        cases.put("writeWithoutSpilling", () -> roundTrip(numbered(Fixture.PARTITIONS), false));
        cases.put("writeManyWithoutSpilling", () -> roundTrip(numbered(100000), false));
        cases.put("mapStatusAndLengthsAgree", () -> {
            try (Fixture f = new Fixture().open()) {
                MapStatus status = f.write(numbered(1000).iterator());
                long[] offsets = f.offsets();
                for (int p = 0; p < Fixture.PARTITIONS; p++) {
                    same(offsets[p + 1] - offsets[p], f.writer.getPartitionLengths()[p], "length of " + p);
                    that(status.getSizeForBlock(p) >= offsets[p + 1] - offsets[p], "size in the map status");
                }
                same(0, status.mapId(), "map id");
                same(f.env.blockManager().shuffleServerId(), status.location(), "location");
            }
        });
        cases.put("aSecondAttemptReplacesNothing", () -> {
            try (Fixture f = new Fixture().open()) {
                f.write(numbered(1000).iterator());
                byte[] first = f.block(1);
                f.open().write(numbered(1000).iterator());
                that(Arrays.equals(first, f.block(1)), "the first attempt's bytes");
                same(1, f.files(".data").size(), "files of data");
            }
        });
        cases.put("emptyPartitionsHaveNoBytes", () -> {
            try (Fixture f = new Fixture(1000).open()) {
                List<Tuple2<Object, Object>> records = Arrays.asList(new Tuple2<>(3, "x"), new Tuple2<>(998, "y"), new Tuple2<>(3, "z"));
                f.write(records.iterator());
                same(counted(records), counted(f.records()), "records");
                same(0, f.block(0).length + f.block(4).length + f.block(999).length, "bytes of empty partitions");
            }
        });
    }

    // ---- spilling ----

    /** What is killed commits nothing; what was unregistered while it was written leaves nothing. Spark's own writers do not ask. */
    private void ofKills() {
        cases.put("killedTaskCommitsNothing", () -> {
            try (Fixture f = new Fixture().open()) {
                f.task.markInterrupted("a test");
                throwing(TaskKilledException.class, () -> f.write(numbered(100).iterator()));
                f.writer.stop(false);
                same(Collections.emptyList(), f.files(""), "files");
            }
        });
        cases.put("shuffleIsUnregisteredMeanwhile", () -> {
            try (Fixture f = new Fixture().open()) {
                f.env.shuffleManager().unregisterShuffle(f.dependency.shuffleId());
                f.write(numbered(100).iterator());
                same(Collections.emptyList(), f.files(""), "files");
            }
        });
        cases.put("taskKilledAfterItsCommitLeavesNothing", () -> {
            try (Fixture f = new Fixture().open()) {
                f.write(numbered(100).iterator());
                same(3, f.files("").size(), "files before the task's end");
                f.task.markInterrupted("a test");
                f.task.markTaskCompleted(Option.empty());
                same(Collections.emptyList(), f.files(""), "files");
            }
        });
        cases.put("commitThatFailsAfterItsShuffleIsUnregisteredLeavesNothing", () -> {
            try (Fixture f = new Fixture().open()) {
                f.env.shuffleManager().unregisterShuffle(f.dependency.shuffleId());
                File stone = new File(f.data(), "stone"); // where the data would go there is a folder that cannot be removed
                that(f.data().mkdir() && stone.createNewFile(), "a folder in the way");
                throwing(Exception.class, () -> f.write(numbered(100).iterator())); // of another type in each version of Spark
                f.writer.stop(false);
                same(Collections.singletonList(stone), f.files(""), "files");
                that(stone.delete() && f.data().delete(), "the way is free");
            }
        });
    }

    private void ofSpills() {
        String[] small = {"spark.memory.offHeap.size=4m", "spark.buffer.pageSize=128k"};
        cases.put("writeEnoughDataToTriggerSpill", () -> roundTrip(random(40, 1 << 20), true, "spark.memory.offHeap.size=16m"));
        cases.put("writeEnoughRecordsToTriggerSpill", () -> roundTrip(numbered(400000), true, "spark.memory.offHeap.size=1m", "spark.buffer.pageSize=128k"));
        cases.put("writeMoreRecordsThanMayLieInMemory", () -> {
            long before = Writers.count("nativeSpills");
            roundTrip(numbered(1000), true, "spark.shuffle.spill.numElementsForceSpillThreshold=100");
            same(Writers.wanted() ? 9L : 0L, Writers.count("nativeSpills") - before, "spills");
        });
        if (Writers.wanted()) { // Spark has it since 4.1
            cases.put("writeMoreBytesThanMayLieInMemory", () -> roundTrip(random(5000, 1000), true,
                "spark.shuffle.spill.maxSizeInBytesForSpillThreshold=1m", "spark.buffer.pageSize=128k"));
        }
        cases.put("writeRecordsThatAreBiggerThanDiskWriteBufferSize", () -> roundTrip(random(1, (int) (2.5 * (1 << 20))), false));
        cases.put("writeRecordsThatAreBiggerThanMaxRecordSize", () -> {
            List<Tuple2<Object, Object>> records = random(1, 1);
            records.addAll(random(1, (1 << 20) - 4));
            records.addAll(random(1, 1 << 20));
            roundTrip(records, false, "spark.buffer.pageSize=1m");
        });
        cases.put("spilledPartitionsMerge", () -> {
            for (String codec : new String[] {"lz4", "zstd"}) {
                roundTrip(random(30000, 300), true, "spark.memory.offHeap.size=4m", "spark.buffer.pageSize=128k", "spark.io.compression.codec=" + codec);
            }
            roundTrip(random(30000, 300), true, "spark.memory.offHeap.size=4m", "spark.buffer.pageSize=128k", "spark.shuffle.compress=false");
        });
        cases.put("otherConsumersMakeItSpill", () -> {
            List<Tuple2<Object, Object>> records = numbered(60000);
            try (Fixture f = new Fixture().open()) {
                int[] seen = {0};
                long[] most = {0};
                Iterator<Tuple2<Object, Object>> inner = records.iterator();
                f.write(new Iterator<Tuple2<Object, Object>>() {
                    @Override
                    public boolean hasNext() {
                        return inner.hasNext();
                    }

                    @Override
                    public Tuple2<Object, Object> next() {
                        if (seen[0]++ % 7001 == 7000) { // in the middle of a batch too
                            try {
                                most[0] = Math.max(most[0], f.takeAll());
                            } catch (IOException e) {
                                throw new IllegalStateException(e);
                            }
                        }
                        return inner.next();
                    }
                });
                same(counted(records), counted(f.records()), "records");
                that(f.task.taskMetrics().memoryBytesSpilled() > 0, "memory spilled");
                that(most[0] > (64L << 20) * 9 / 10, "the other got nearly all of 64 MiB, not " + most[0]);
                f.checkChecksums("ADLER32");
            }
        });
        if (Writers.wanted()) { // Spark's own cannot be asked by another thread
            cases.put("anotherThreadMakesItSpill", Cases::anotherThread);
        }
        if (Writers.wanted()) { // Spark's own asks for a name, and another, until it has one on a disk that there is
            cases.put("aDiskThatIsLostTakesNoSpills", Cases::lostDisk);
        }
        cases.put("spillFilesAreDeletedWhenStoppingAfterError", () -> {
            try (Fixture f = new Fixture(small).open()) {
                int[] left = {5000};
                Random random = new Random(42);
                throwing(IllegalStateException.class, () -> f.write(new Iterator<Tuple2<Object, Object>>() {
                    @Override
                    public boolean hasNext() {
                        return true;
                    }

                    @Override
                    public Tuple2<Object, Object> next() {
                        if (left[0]-- == 0) {
                            throw new IllegalStateException("enough");
                        }
                        byte[] value = new byte[4000];
                        random.nextBytes(value);
                        return new Tuple2<>(left[0], value);
                    }
                }));
                f.writer.stop(false);
                same(0, f.offHeapUsed(), "off-heap memory after a failure");
            }
        });
        cases.put("peakMemoryIsWhatWasHeldAtMost", () -> {
            try (Fixture f = new Fixture("spark.memory.offHeap.size=8m", "spark.buffer.pageSize=128k").open()) {
                f.write(random(40000, 500).iterator());
                long peak = f.task.taskMetrics().peakExecutionMemory();
                that(peak > 2 << 20 && peak <= 8 << 20, "a peak within 8 MiB, not " + peak);
            }
        });
        cases.put("noMemoryAtAllIsSaidSo", () -> {
            try (Fixture f = new Fixture("spark.memory.offHeap.size=1m", "spark.buffer.pageSize=256k").open()) {
                try {
                    List<Tuple2<Object, Object>> records = random(1000, 1000);
                    f.write(records.iterator());
                    same(counted(records), counted(f.records()), "records"); // it got by on so little
                } catch (OutOfMemoryError | IOException e) {
                    System.out.println("said: " + e);
                    f.writer.stop(false);
                }
            }
        });
    }

    /** It holds Spark's lock of the task while it waits for what the writer spills or gives back, of which it wants all but a MiB. */
    private static void anotherThread() throws Exception {
        List<Tuple2<Object, Object>> records = random(60000, 300);
        try (Fixture f = new Fixture("spark.memory.offHeap.size=8m", "spark.buffer.pageSize=128k", "spark.shuffle.carbide.batch=32k").open()) {
            AtomicBoolean ended = new AtomicBoolean();
            AtomicReference<Throwable> wrong = new AtomicReference<>();
            Thread other = new Thread(() -> {
                try {
                    while (!ended.get()) {
                        f.take(7L << 20);
                    }
                } catch (Throwable e) {
                    wrong.set(e);
                }
            });
            other.start();
            try {
                f.write(records.iterator());
            } finally {
                ended.set(true);
                other.join();
            }
            same(null, wrong.get(), "what the other thread met");
            same(counted(records), counted(f.records()), "records");
            that(f.task.taskMetrics().memoryBytesSpilled() > 0, "memory spilled");
            f.checkChecksums("ADLER32");
        }
    }

    /** Of eight disks, one that has none of the files that the task commits. */
    private static void lostDisk() throws Exception {
        List<Tuple2<Object, Object>> records = random(30000, 300);
        String disks = IntStream.range(0, 8).mapToObj(i -> "$folder/disk" + i).collect(Collectors.joining(","));
        try (Fixture f = new Fixture("spark.local.dir=" + disks, "spark.memory.offHeap.size=4m", "spark.buffer.pageSize=128k")) {
            List<File> used = Stream.of("data", "index", "checksum.ADLER32")
                .map(end -> f.env.blockManager().diskBlockManager().getFile("shuffle_" + f.dependency.shuffleId() + "_0_0." + end))
                .map(file -> file.getParentFile().getParentFile()).collect(Collectors.toList());
            File lost = Arrays.stream(f.env.blockManager().diskBlockManager().localDirs()).filter(disk -> !used.contains(disk)).findFirst().get();
            that(lost.delete(), "a disk is lost");
            f.open().write(records.iterator());
            same(counted(records), counted(f.records()), "records");
            that(f.task.taskMetrics().diskBytesSpilled() > 0, "disk spilled to");
        }
    }

    // ---- checksums ----

    private void ofChecksums() {
        boolean young = !org.apache.spark.package$.MODULE$.SPARK_VERSION().startsWith("3."); // Spark 3.5 refuses CRC32C itself
        for (String algorithm : young ? new String[] {"ADLER32", "CRC32", "CRC32C"} : new String[] {"ADLER32", "CRC32"}) {
            cases.put("checksumFileWithoutSpill-" + algorithm, () -> checksums(algorithm, 1000, "spark.memory.offHeap.size=64m"));
            cases.put("checksumFileWithSpill-" + algorithm, () -> checksums(algorithm, 400000, "spark.memory.offHeap.size=1m"));
        }
        cases.put("noChecksumsWhereNoneAreWanted", () -> {
            try (Fixture f = new Fixture("spark.shuffle.checksum.enabled=false").open()) {
                f.write(numbered(100).iterator());
                for (String file : new String[] {"ADLER32", "CRC32", "CRC32C"}) {
                    that(!f.checksums(file).exists(), "no file of checksums");
                }
            }
        });
        cases.put("corruptionIsSeenByTheReader", () -> {
            try (Fixture f = new Fixture().open()) { // lz4's blocks have checksums of their own
                f.write(random(1000, 100).iterator());
                byte[] bytes = f.block(2);
                bytes[bytes.length / 2] ^= 0x10;
                throwing(IOException.class, () -> {
                    java.io.InputStream in = f.env.serializerManager().wrapStream(new ShuffleBlockId(f.dependency.shuffleId(), 0, 2),
                        new java.io.ByteArrayInputStream(bytes));
                    byte[] sink = new byte[8192];
                    while (in.read(sink) >= 0) {
                        continue;
                    }
                });
            }
        });
        cases.put("rowBasedChecksumsAreSparks", () -> rowBasedChecksums("org.apache.spark.shuffle.checksum.OutputStreamRowBasedChecksum",
            numbered(500), null, "ADLER32"));
        cases.put("rowBasedChecksumsOfRowsAreSparks", () -> {
            List<Tuple2<Object, Object>> rows = new ArrayList<>();
            for (int i = 0; i < 500; i++) {
                byte[] bytes = new byte[24 + 8 * (i % 5)];
                Arrays.fill(bytes, 8, bytes.length, (byte) (i * 31));
                UnsafeRow row = new UnsafeRow(ROW_FIELDS);
                row.pointTo(bytes, bytes.length);
                rows.add(new Tuple2<>(i, row));
            }
            rowBasedChecksums("org.apache.spark.sql.catalyst.expressions.UnsafeRowChecksum", rows, rowSerializer());
        });
        cases.put("rowsAreReadAsBySpark", Cases::rowsAreReadAsBySpark);
        cases.put("rowsThatAreCutOffAreFound", Cases::rowsThatAreCutOffAreFound);
        cases.put("fewRowsAreReadToLittleAndNothingIsHeldBehindTheLast", Cases::whatRowsAreReadTo);
        cases.put("sparksReaderFindsOurSerializerForRowsAlone", Cases::serializerOfRows);
    }

    private static final int ROW_FIELDS = 2;

    private static Serializer rowSerializer() throws Exception {
        Class<?> type = Class.forName("org.apache.spark.sql.execution.UnsafeRowSerializer");
        return (Serializer) type.getConstructors()[0].newInstance(ROW_FIELDS, null);
    }

    /** Rows of any size, of the same bytes over and over, as Spark's serializer writes them. */
    private static byte[] rowsOfSizes(int... sizes) throws Exception {
        java.io.ByteArrayOutputStream out = new java.io.ByteArrayOutputStream();
        SerializationStream stream = rowSerializer().newInstance().serializeStream(out);
        for (int i = 0; i < sizes.length; i++) {
            byte[] bytes = new byte[sizes[i]];
            Arrays.fill(bytes, (byte) i);
            UnsafeRow row = new UnsafeRow(ROW_FIELDS);
            row.pointTo(bytes, bytes.length);
            stream.writeKey(i, ClassTag$.MODULE$.Object());
            stream.writeValue(row, ClassTag$.MODULE$.Object());
        }
        stream.flush();
        return out.toByteArray();
    }

    private static final class InPieces extends java.io.ByteArrayInputStream {
        private final int most;
        boolean closed;

        InPieces(byte[] bytes, int most) {
            super(bytes);
            this.most = most;
        }

        @Override
        public synchronized int read(byte[] to, int offset, int count) {
            return super.read(to, offset, Math.min(count, most));
        }

        @Override
        public void close() {
            closed = true;
        }
    }

    private static void rowsAreReadAsBySpark() throws Exception {
        Random random = new Random(7);
        for (int round = 0; round < 60; round++) {
            int[] sizes = random.ints(round * 5, 0, round % 3 == 0 ? 5000 : 40).map(n -> 24 + 8 * n).toArray();
            byte[] bytes = rowsOfSizes(sizes);
            InPieces in = new InPieces(bytes, 1 + random.nextInt(20000));
            scala.collection.Iterator<Tuple2<Object, Object>> theirs =
                rowSerializer().newInstance().deserializeStream(new java.io.ByteArrayInputStream(bytes)).asKeyValueIterator();
            scala.collection.Iterator<Tuple2<Object, Object>> ours = new RowStream(in, ROW_FIELDS).asKeyValueIterator();
            while (theirs.hasNext()) {
                that(ours.hasNext(), "a row less than Spark reads");
                Tuple2<Object, Object> pair = ours.next(), expected = theirs.next();
                ours.hasNext(); // the row is still there
                same(expected._1(), pair._1(), "the key");
                same(expected._2(), pair._2(), "the row");
                same(ROW_FIELDS, ((UnsafeRow) pair._2()).numFields(), "its fields");
            }
            that(!ours.hasNext() && !ours.hasNext(), "a row more than Spark reads");
            that(in.closed, "its stream is closed at the end, as Spark's");
            throwing(java.util.NoSuchElementException.class, ours::next);
        }
    }

    /** Otherwise nobody would notice: Spark's own reads the same. */
    private static void serializerOfRows() throws Exception {
        java.lang.reflect.Field place = org.apache.spark.ShuffleDependency.class.getDeclaredField("serializer");
        place.setAccessible(true);
        try (Fixture f = new Fixture()) {
            Object before = place.get(f.dependency);
            RowSerializer.readFor(f.dependency);
            that(place.get(f.dependency) == before, "another serializer stays");
            place.set(f.dependency, rowSerializer());
            for (int again = 0; again < 2; again++) {
                RowSerializer.readFor(f.dependency);
                that(f.dependency.serializer() instanceof RowSerializer, "rows are read by us");
            }
            that(f.dependency.serializer().newInstance().deserializeStream(new InPieces(new byte[0], 1)) instanceof RowStream, "their stream is ours");
            that(f.dependency.serializer().supportsRelocationOfSerializedObjects(), "what Spark's says of itself");
            place.set(f.dependency, before);
        }
    }

    private static void rowsThatAreCutOffAreFound() throws Exception {
        byte[] bytes = rowsOfSizes(24, 32);
        for (int cut = 0; cut < bytes.length; cut++) {
            if (cut == 0 || cut == 28) {
                continue; // behind a row
            }
            byte[] some = Arrays.copyOf(bytes, cut);
            throwing(java.io.EOFException.class, () -> {
                scala.collection.Iterator<?> rows = new RowStream(new InPieces(some, 5), ROW_FIELDS).asKeyValueIterator();
                while (rows.hasNext()) {
                    rows.next();
                }
            });
        }
        bytes[0] = (byte) 0x80;
        throwing(IOException.class, () -> new RowStream(new InPieces(bytes, 5), ROW_FIELDS).asKeyValueIterator());
    }

    private static int held(RowStream stream) throws Exception {
        int bytes = 0;
        for (String name : new String[] {"buffer", "other"}) {
            java.lang.reflect.Field field = RowStream.class.getDeclaredField(name);
            field.setAccessible(true);
            byte[] buffer = (byte[]) field.get(stream);
            bytes += buffer != null ? buffer.length : 0;
        }
        return bytes;
    }

    private static void whatRowsAreReadTo() throws Exception {
        int[] few = new int[60];
        int[] many = new int[6000];
        Arrays.fill(few, 56);
        Arrays.fill(many, 56);
        for (int[] sizes : new int[][] {{}, {24}, few, many, {24, 1 << 20, 24}}) {
            RowStream stream = new RowStream(new InPieces(rowsOfSizes(sizes), Integer.MAX_VALUE), ROW_FIELDS);
            scala.collection.Iterator<Tuple2<Object, Object>> rows = stream.asKeyValueIterator();
            int most = 0;
            while (rows.hasNext()) {
                most = Math.max(most, held(stream));
                rows.next();
            }
            that(most <= (sizes.length <= few.length && Arrays.stream(sizes).sum() < 4096 ? 4096 : (32 << 10) + (sizes == many ? 0 : 1 << 20)),
                most + " bytes for " + sizes.length + " rows");
            same(0, held(stream), "bytes behind the last row");
        }
    }

    private static void checksums(String algorithm, int count, String size) throws Exception {
        try (Fixture f = new Fixture("spark.shuffle.checksum.algorithm=" + algorithm, size, "spark.buffer.pageSize=128k").open()) {
            f.write(numbered(count).iterator());
            f.checkChecksums(algorithm);
        }
    }

    /** Spark 4.1's checksums of rows whatever their order: the map status has what Spark's own writer gives. */
    private static void rowBasedChecksums(String type, List<Tuple2<Object, Object>> records, Serializer serializer, Object... arguments)
        throws Exception {
        java.lang.reflect.Method value;
        try {
            value = MapStatus.class.getMethod("checksumValue");
        } catch (NoSuchMethodException e) {
            System.out.println("this Spark has none");
            return;
        }
        long[] values = new long[3];
        for (int i = 0; i < values.length; i++) {
            try (Fixture f = new Fixture()) {
                Class<?> checksum = Class.forName(type);
                Object array = java.lang.reflect.Array.newInstance(checksum.getSuperclass(), Fixture.PARTITIONS);
                for (int p = 0; p < Fixture.PARTITIONS; p++) {
                    java.lang.reflect.Array.set(array, p, checksum.getConstructors()[0].newInstance(arguments));
                }
                org.apache.spark.ShuffleDependency<Object, Object, Object> dependency = Mockito.spy(f.dependency);
                dependency.getClass().getMethod("rowBasedChecksums").invoke(Mockito.doReturn(array).when(dependency));
                if (serializer != null) {
                    Mockito.doReturn(serializer).when(dependency).serializer();
                }
                f.handle = new SerializedShuffleHandle<>(f.dependency.shuffleId(), dependency);
                SortShuffleManager own = i == 0 ? new SortShuffleManager(f.env.conf()) : null;
                if (own != null) {
                    f.writer = own.getWriter(f.handle, 0, f.task, f.task.taskMetrics().shuffleWriteMetrics());
                } else {
                    f.open();
                    Collections.shuffle(records, new Random(i));
                }
                values[i] = (long) value.invoke(f.write(records.iterator()));
                if (own != null) {
                    own.unregisterShuffle(f.dependency.shuffleId());
                }
            }
        }
        that(values[0] != 0, "a checksum of Spark's");
        same(values[0], values[1], "the checksum of rows");
        same(values[0], values[2], "the checksum of rows in another order");
    }

    // ---- formats, and who writes ----

    private void ofFormats() {
        for (String codec : new String[] {"lz4", "zstd"}) {
            for (String block : new String[] {"1k", "32k", "256k", "4m"}) {
                cases.put("codec-" + codec + "-" + block, () -> roundTrip(numbered(30000), false, "spark.io.compression.codec=" + codec,
                    "spark.io.compression.lz4.blockSize=" + block, "spark.io.compression.zstd.bufferSize=" + block));
            }
        }
        cases.put("codec-zstd-levels", () -> {
            for (String level : new String[] {"-2147483648", "-3", "1", "9"}) {
                roundTrip(numbered(5000), false, "spark.io.compression.codec=zstd", "spark.io.compression.zstd.level=" + level);
            }
        });
        cases.put("uncompressed", () -> roundTrip(numbered(30000), false, "spark.shuffle.compress=false"));
        cases.put("bytesThatDoNotCompress", () -> roundTrip(random(3000, 1000), false));
        cases.put("batchesOfAllSizes", () -> {
            for (String batch : new String[] {"4k", "5000", "64k", "16m"}) {
                roundTrip(random(300, 3000), false, "spark.shuffle.carbide.batch=" + batch);
            }
        });
        cases.put("anotherScala", () -> {
            throwing(IllegalStateException.class, () -> CarbideShuffleManager.checkScala("2.12.18"));
            CarbideShuffleManager.checkScala(scala.util.Properties.versionNumberString());
        });
        if (Writers.wanted()) {
            cases.put("foldersThatCWouldCallOtherwiseAreLeftToSpark", Cases::namesOfFolders);
        }
        String[][] theirs = {{"spark.io.compression.codec=snappy"}, {"spark.io.compression.codec=lzf"}, {"spark.io.encryption.enabled=true"},
            {"spark.memory.offHeap.enabled=false"}, {"spark.serializer=org.apache.spark.serializer.JavaSerializer"},
            {"spark.shuffle.carbide.enabled=false"}};
        for (String[] settings : theirs) {
            cases.put("leftToSpark-" + settings[0], () -> {
                List<Tuple2<Object, Object>> records = numbered(1000);
                try (Fixture f = new Fixture(settings).open(false)) {
                    f.write(records.iterator());
                    same(counted(records), counted(f.records()), "records");
                }
            });
        }
    }

    /** Where the locale is not UTF-8 Java gives a folder whose name is not ASCII other bytes than C would. */
    private static void namesOfFolders() throws Exception {
        String locale = System.getProperty("sun.jnu.encoding");
        File plain = new File("/plain");
        File other = new File("/gr\u00fc\u00df");
        try {
            for (String names : new String[] {"UTF-8", "ISO-8859-1", "ANSI_X3.4-1968"}) {
                System.setProperty("sun.jnu.encoding", names);
                that(CarbideNative.means(plain, plain), "ASCII means the same in " + names);
                same(names.equals("UTF-8"), CarbideNative.means(plain, other), "whether both mean the same in " + names);
            }
            if (!locale.equals("UTF-8")) {
                return; // no such folder can be made here
            }
            System.setProperty("sun.jnu.encoding", "ISO-8859-1");
            List<Tuple2<Object, Object>> records = numbered(1000);
            try (Fixture f = new Fixture("spark.local.dir=$folder/gr\u00fc\u00df").open(false)) {
                f.write(records.iterator());
                same(counted(records), counted(f.records()), "records");
            }
        } finally {
            System.setProperty("sun.jnu.encoding", locale);
        }
    }
}
