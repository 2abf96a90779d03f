/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.DataInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.zip.Checksum;
import org.apache.spark.HashPartitioner;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkContext;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContextImpl;
import org.apache.spark.api.java.JavaPairRDD;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.memory.MemoryConsumer;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.memory.MemoryTestingUtils;
import org.apache.spark.scheduler.MapStatus;
import org.apache.spark.serializer.DeserializationStream;
import org.apache.spark.shuffle.IndexShuffleBlockResolver;
import org.apache.spark.shuffle.ShuffleHandle;
import org.apache.spark.shuffle.ShuffleWriter;
import org.apache.spark.shuffle.sort.SortShuffleManager;
import org.apache.spark.storage.ShuffleBlockId;
import scala.Option;
import scala.Product2;
import scala.Tuple2;
import scala.jdk.javaapi.CollectionConverters;

/** A Spark of one thread, a shuffle of it, and one map task's writer: what the cases look at. */
final class Fixture implements AutoCloseable {
    static final int PARTITIONS = 4;

    final SparkConf conf = new SparkConf(false);
    final SparkContext spark;
    final SparkEnv env;
    final TaskContextImpl task;
    final ShuffleDependency<Object, Object, Object> dependency;
    ShuffleHandle handle;
    final IndexShuffleBlockResolver resolver;
    ShuffleWriter<Object, Object> writer;
    private final File folder;

    Fixture(String... settings) throws IOException {
        this(PARTITIONS, settings);
    }

    @SuppressWarnings("unchecked")
    Fixture(int partitions, String... settings) throws IOException {
        folder = Files.createTempDirectory("cases").toFile();
        conf.setMaster("local[1]").setAppName("cases").set("spark.local.dir", folder.getPath());
        conf.set("spark.ui.enabled", "false").set("spark.driver.host", "127.0.0.1").set("spark.driver.bindAddress", "127.0.0.1");
        conf.set("spark.serializer", "org.apache.spark.serializer.KryoSerializer");
        conf.set("spark.memory.offHeap.enabled", "true").set("spark.memory.offHeap.size", "64m");
        conf.set("spark.shuffle.sort.bypassMergeThreshold", "1"); // where it is Spark's writer, the one that spills
        Settings.each(conf::set);
        for (String setting : settings) {
            conf.set(setting.substring(0, setting.indexOf('=')), setting.substring(setting.indexOf('=') + 1).replace("$folder", folder.getPath()));
        }
        spark = new SparkContext(conf);
        spark.setLogLevel("OFF");
        env = SparkEnv.get();
        task = (TaskContextImpl) MemoryTestingUtils.fakeTaskContext(env);
        JavaPairRDD<Object, Object> pairs = new JavaSparkContext(spark).parallelize(Collections.<Tuple2<Object, Object>>emptyList(), 1)
            .mapToPair(pair -> pair);
        dependency = (ShuffleDependency<Object, Object, Object>) pairs.partitionBy(new HashPartitioner(partitions)).rdd().dependencies().head();
        handle = dependency.shuffleHandle();
        resolver = ((SortShuffleManager) env.shuffleManager()).shuffleBlockResolver();
    }

    /** A writer of attempt 0; it is carbide's, or Spark's where `ours` is false. */
    Fixture open(boolean ours) {
        long before = Writers.count("nativeWriters");
        long sparks = Writers.count("sparkWriters");
        writer = env.shuffleManager().getWriter(handle, 0, task, task.taskMetrics().shuffleWriteMetrics());
        if (Writers.measured()) {
            Check.same(before + (ours ? 1 : 0), Writers.count("nativeWriters"), "native writers");
            Check.same(sparks + (ours ? 0 : 1), Writers.count("sparkWriters"), "Spark's writers");
        }
        return this;
    }

    Fixture open() {
        return open(true);
    }

    MapStatus write(Iterator<? extends Product2<Object, Object>> records) throws IOException {
        writer.write(CollectionConverters.<Product2<Object, Object>>asScala((Iterator<Product2<Object, Object>>) (Iterator<?>) records));
        Option<MapStatus> status = writer.stop(true);
        Check.that(status.isDefined(), "a map status");
        return status.get();
    }

    // ---- what was written ----

    File data() {
        return resolver.getDataFile(dependency.shuffleId(), 0);
    }

    File checksums(String algorithm) throws IOException {
        return files(".checksum." + algorithm).stream().findFirst().orElse(new File(folder, "none"));
    }

    List<File> files(String end) throws IOException {
        try (Stream<java.nio.file.Path> all = Files.walk(folder.toPath())) {
            return all.map(java.nio.file.Path::toFile).filter(f -> f.isFile() && f.getName().endsWith(end)).collect(Collectors.toList());
        }
    }

    long[] offsets() throws IOException {
        File index = files(".index").get(0);
        long[] offsets = new long[(int) (index.length() / Long.BYTES)];
        try (DataInputStream in = new DataInputStream(Files.newInputStream(index.toPath()))) {
            for (int i = 0; i < offsets.length; i++) {
                offsets[i] = in.readLong();
            }
        }
        return offsets;
    }

    byte[] block(int partition) throws IOException {
        long[] offsets = offsets();
        byte[] bytes = new byte[(int) (offsets[partition + 1] - offsets[partition])];
        if (bytes.length > 0) {
            try (RandomAccessFile file = new RandomAccessFile(data(), "r")) {
                file.seek(offsets[partition]);
                file.readFully(bytes);
            }
        }
        return bytes;
    }

    /** Every record of the file, as Spark's reader unwraps and reads it, and each in the partition that is its own. */
    List<Tuple2<Object, Object>> records() throws IOException {
        List<Tuple2<Object, Object>> all = new ArrayList<>();
        for (int p = 0; p < dependency.partitioner().numPartitions(); p++) {
            byte[] bytes = block(p);
            if (bytes.length == 0) {
                continue;
            }
            InputStream in = env.serializerManager().wrapStream(new ShuffleBlockId(dependency.shuffleId(), 0, p),
                new java.io.ByteArrayInputStream(bytes));
            DeserializationStream stream = dependency.serializer().newInstance().deserializeStream(in);
            scala.collection.Iterator<Tuple2<Object, Object>> records = stream.asKeyValueIterator();
            while (records.hasNext()) {
                Tuple2<Object, Object> record = records.next();
                Check.same(p, dependency.partitioner().getPartition(record._1()), "the partition of " + record._1());
                all.add(record);
            }
            stream.close();
        }
        return all;
    }

    /** The file of checksums holds what the algorithm says of each partition's bytes. */
    void checkChecksums(String algorithm) throws IOException {
        File file = checksums(algorithm);
        Check.that(file.exists(), "a file of checksums");
        try (DataInputStream in = new DataInputStream(Files.newInputStream(file.toPath()))) {
            for (int p = 0; p < dependency.partitioner().numPartitions(); p++) {
                Checksum sum = algorithm.equals("ADLER32") ? new java.util.zip.Adler32()
                    : algorithm.equals("CRC32") ? new java.util.zip.CRC32() : new java.util.zip.CRC32C();
                byte[] bytes = block(p);
                sum.update(bytes, 0, bytes.length);
                Check.same(sum.getValue(), in.readLong(), algorithm + " of partition " + p);
            }
            Check.same(-1, in.read(), "the end of the checksums");
        }
    }

    // ---- memory ----

    long offHeapUsed() {
        return env.memoryManager().offHeapExecutionMemoryUsed();
    }

    /** Another consumer of the task that wants all there is: Spark asks the writer to spill. */
    long takeAll() throws IOException {
        return take(1L << 40);
    }

    long take(long bytes) {
        Greedy greedy = new Greedy();
        long got = greedy.acquireMemory(bytes);
        greedy.freeMemory(got);
        return got;
    }

    private final class Greedy extends MemoryConsumer {
        Greedy() {
            super(task.taskMemoryManager(), 1 << 20, MemoryMode.OFF_HEAP);
        }

        @Override
        public long spill(long size, MemoryConsumer trigger) {
            return 0;
        }
    }

    /** Ends the task; nothing of it may be left. */
    @Override
    public void close() throws IOException {
        try {
            task.markTaskCompleted(Option.empty());
            Check.same(0, task.taskMemoryManager().cleanUpAllAllocatedMemory(), "memory left behind");
            Check.same(0, offHeapUsed(), "off-heap memory left behind");
            env.shuffleManager().unregisterShuffle(dependency.shuffleId());
            Check.same(Collections.emptyList(), files(""), "files left behind");
        } finally {
            spark.stop();
        }
    }
}
