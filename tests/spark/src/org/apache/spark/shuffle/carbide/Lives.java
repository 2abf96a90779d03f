/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.apache.spark.HashPartitioner;
import org.apache.spark.SparkConf;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaPairRDD;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.network.TransportContext;
import org.apache.spark.network.server.TransportServer;
import org.apache.spark.network.shuffle.ExternalBlockHandler;
import org.apache.spark.network.util.MapConfigProvider;
import org.apache.spark.network.util.TransportConf;
import org.apache.spark.scheduler.ExecutorDecommissionInfo;
import org.apache.spark.scheduler.SparkListener;
import org.apache.spark.scheduler.SparkListenerTaskEnd;
import org.apache.spark.scheduler.cluster.CoarseGrainedSchedulerBackend;
import scala.Option;
import scala.Tuple2;
import scala.jdk.javaapi.CollectionConverters;

/**
 * What happens to tasks and executors of a cluster (local-cluster[2,1,1024]) while carbide writes for them: tasks that fail, files that
 * are lost, executors that are asked to go and those that nobody needs any more. Whatever Spark does not do again with its own files it
 * may not do again with carbide's. (Speculation wants a second machine: Cases has two attempts at one task, and one that is killed.)
 */
public final class Lives {
    private interface Case {
        void run() throws Exception;
    }

    private static final int MAPS = 4;
    private static final int RECORDS = 20000; // of each map task, 100 bytes: more than the task's memory
    private static final long PATIENCE_NS = 120_000_000_000L;

    private static File folder; // one for all: a process asks where its workers' folders are but once

    private Lives() {}

    public static void main(String[] names) throws IOException {
        folder = Files.createTempDirectory("lives").toFile();
        Map<String, Case> cases = new LinkedHashMap<>();
        cases.put("failedTasksAreDoneAgain", Lives::failures);
        cases.put("lostFilesAreWrittenAgain", Lives::lostFiles);
        cases.put("anExecutorThatIsDecommissionedHandsItsFilesOn", Lives::decommission);
        cases.put("executorsThatNobodyNeedsLeaveTheirFilesToTheService", Lives::dynamicAllocation);
        int failed = 0;
        for (Map.Entry<String, Case> one : cases.entrySet()) {
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

    // ---- a cluster, and a shuffle in it ----

    private static final class Cluster extends SparkListener implements AutoCloseable {
        final long began = System.currentTimeMillis();
        final JavaSparkContext spark;
        final AtomicInteger mapTasks = new AtomicInteger();
        final AtomicInteger failed = new AtomicInteger();

        Cluster(String... settings) throws Exception {
            SparkConf conf = new SparkConf(false).setMaster("local-cluster[2,1,1024]").setAppName("lives");
            conf.set("spark.serializer", "org.apache.spark.serializer.KryoSerializer").set("spark.executor.memory", "512m");
            conf.set("spark.memory.offHeap.enabled", "true").set("spark.memory.offHeap.size", "2m").set("spark.buffer.pageSize", "128k");
            conf.set("spark.local.dir", folder.getPath());
            Settings.each(conf::set);
            for (String setting : settings) {
                conf.set(setting.split("=", 2)[0], setting.split("=", 2)[1]);
            }
            spark = new JavaSparkContext(conf);
            spark.setLogLevel("OFF");
            spark.sc().addSparkListener(this);
            until("two executors", () -> executors().size() == 2);
        }

        @Override
        public void onTaskEnd(SparkListenerTaskEnd end) {
            mapTasks.addAndGet(end.taskType().equals("ShuffleMapTask") && end.taskInfo().successful() ? 1 : 0);
            failed.addAndGet(end.taskInfo().failed() ? 1 : 0);
        }

        CoarseGrainedSchedulerBackend backend() {
            return (CoarseGrainedSchedulerBackend) spark.sc().schedulerBackend();
        }

        List<String> executors() {
            return new ArrayList<>(CollectionConverters.asJava(backend().getExecutorIds()));
        }

        /** The first attempt at the first map task may fail, behind half of its records. */
        JavaPairRDD<Integer, String> shuffled(boolean fails) {
            return spark.parallelize(Collections.nCopies(MAPS, 0), MAPS).mapPartitionsWithIndex((place, none) -> Stream.iterate(0, i -> i + 1)
                .limit(RECORDS).map(i -> {
                    if (fails && i == RECORDS / 2 && place == 0 && TaskContext.get().attemptNumber() == 0) {
                        throw new IllegalStateException("panda");
                    }
                    return new Tuple2<>(place * RECORDS + i, String.format("%0100d", i * 31L));
                }).iterator(), false).mapToPair(t -> t).partitionBy(new HashPartitioner(6));
        }

        /** What came out must be what went in; answers how many map tasks it took. */
        int check(JavaPairRDD<Integer, String> shuffled) throws Exception {
            int before = mapTasks.get();
            Tuple2<Long, Long> got = shuffled.mapToPair(r -> new Tuple2<>(1L, r._1() * 7919L + r._2().hashCode()))
                .reduce((a, b) -> new Tuple2<>(a._1() + b._1(), a._2() + b._2()));
            long sum = 0;
            for (int n = 0; n < MAPS * RECORDS; n++) {
                sum += n * 7919L + String.format("%0100d", n % RECORDS * 31L).hashCode();
            }
            Check.same((long) MAPS * RECORDS, got._1(), "records");
            Check.same(sum, got._2(), "their sum");
            spark.sc().listenerBus().waitUntilEmpty(PATIENCE_NS / 1_000_000);
            return mapTasks.get() - before;
        }

        /** Each executor is asked: carbide has written there, and nothing is open. */
        void wrote() {
            if (!Writers.wanted()) {
                return;
            }
            List<Long> written = spark.parallelize(Arrays.asList(1, 2, 3, 4, 5, 6, 7, 8), 8).map(i -> Writers.count("nativeWriters")).collect();
            Check.that(written.stream().anyMatch(n -> n > 0), "carbide wrote: " + written);
            until("closed writers", () -> spark.parallelize(Arrays.asList(1, 2, 3, 4, 5, 6, 7, 8), 8).map(i -> Writers.count("openWriters"))
                .reduce(Math::max) == 0);
        }

        /** Made since this cluster was. */
        List<File> files(String pattern) throws IOException {
            try (Stream<Path> all = Files.walk(folder.toPath())) {
                return all.map(Path::toFile).filter(f -> f.isFile() && f.getName().matches(pattern) && f.lastModified() >= began).toList();
            }
        }

        @Override
        public void close() {
            spark.stop();
        }
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
    }

    private static void until(String what, BooleanSupplier holds) {
        long late = System.nanoTime() + PATIENCE_NS;
        while (!holds.getAsBoolean()) {
            Check.that(System.nanoTime() < late, what);
            pause(50);
        }
    }

    // ---- the cases ----

    private static void failures() throws Exception {
        try (Cluster cluster = new Cluster()) {
            Check.same(MAPS, cluster.check(cluster.shuffled(true)), "map tasks that ended well");
            Check.same(1, cluster.failed.get(), "tasks that failed");
            cluster.wrote();
            Check.same(MAPS, cluster.files(".*\\.data").size(), "files of data");
            Check.same(Collections.emptyList(), cluster.files(".*\\.(data|index)\\.[0-9a-f-]+|temp_shuffle.*"), "what the failed task left");
        }
    }

    private static void lostFiles() throws Exception {
        try (Cluster cluster = new Cluster("spark.shuffle.io.maxRetries=0")) {
            JavaPairRDD<Integer, String> shuffled = cluster.shuffled(false);
            cluster.check(shuffled);
            File lost = cluster.files(".*\\.data").get(0);
            Check.that(lost.delete(), "a file can be lost");
            Check.that(cluster.check(shuffled) > 0, "what was lost is written again");
            cluster.wrote();
        }
    }

    private static void decommission() throws Exception {
        try (Cluster cluster = new Cluster("spark.decommission.enabled=true", "spark.storage.decommission.enabled=true",
            "spark.storage.decommission.shuffleBlocks.enabled=true", "spark.storage.decommission.replicationReattemptInterval=500ms")) {
            JavaPairRDD<Integer, String> shuffled = cluster.shuffled(false);
            cluster.check(shuffled);
            cluster.wrote();
            String goes = cluster.executors().get(0);
            cluster.backend().decommissionExecutor(goes, new ExecutorDecommissionInfo("no longer wanted", Option.empty()), false, false);
            until(goes + " is gone", () -> !cluster.executors().contains(goes));
            Check.same(0, cluster.check(shuffled), "map tasks that were done again");
        }
    }

    private static void dynamicAllocation() throws Exception {
        TransportConf conf = new TransportConf("shuffle", MapConfigProvider.EMPTY);
        try (ExternalBlockHandlers handler = new ExternalBlockHandlers(conf);
            Cluster cluster = new Cluster("spark.shuffle.service.enabled=true", "spark.shuffle.service.port=" + handler.server.getPort(),
                "spark.dynamicAllocation.enabled=true", "spark.dynamicAllocation.minExecutors=0", "spark.dynamicAllocation.initialExecutors=2",
                "spark.dynamicAllocation.executorIdleTimeout=5s")) {
            JavaPairRDD<Integer, String> shuffled = cluster.shuffled(false);
            cluster.check(shuffled);
            cluster.wrote();
            until("all executors are gone", () -> cluster.executors().isEmpty());
            Check.same(0, cluster.check(shuffled), "map tasks that were done again");
        }
    }

    /** The external shuffle service, as a worker would run it. */
    private static final class ExternalBlockHandlers implements AutoCloseable {
        final TransportContext context;
        final TransportServer server;

        ExternalBlockHandlers(TransportConf conf) throws Exception {
            context = new TransportContext(conf, new ExternalBlockHandler(conf, null));
            server = context.createServer();
        }

        @Override
        public void close() {
            server.close();
            context.close();
        }
    }
}
