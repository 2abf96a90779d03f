/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.spark.SparkConf;
import org.apache.spark.sql.SparkSession;

/**
 * Jobs that shuffle and spill in two executors, one of which is killed (SIGKILL) at a random moment of each: its map outputs are gone
 * or fetched while it dies, stages are done again, and the result must be the same. What those that live still hold is asked of them;
 * once the application has ended no file may be left, whoever died over it.
 */
public final class ExecutorKills {
    private static final long SETTLE_NS = 60_000_000_000L;

    private final SparkSession spark;
    private final File folder;
    private final Random random;

    private ExecutorKills(SparkSession spark, File folder, long seed) {
        this.spark = spark;
        this.folder = folder;
        this.random = new Random(seed);
    }

    public static void main(String[] arguments) throws Exception {
        int kills = Integer.parseInt(arguments[0]);
        long seed = arguments.length > 1 ? Long.parseLong(arguments[1]) : System.nanoTime();
        File folder = Files.createTempDirectory("executor-kills").toFile();
        SparkConf conf = new SparkConf().setMaster("local-cluster[2,1,1024]").setAppName("executor-kills");
        conf.set("spark.memory.offHeap.enabled", "true").set("spark.memory.offHeap.size", "8m").set("spark.buffer.pageSize", "256k");
        conf.set("spark.executor.memory", "512m").set("spark.local.dir", folder.getPath()).set("spark.ui.enabled", "false");
        conf.set("spark.sql.adaptive.enabled", "false").set("spark.sql.shuffle.partitions", "20");
        // However often executors die: the job goes on.
        conf.set("spark.task.maxFailures", "1000").set("spark.stage.maxConsecutiveAttempts", "1000").set("spark.deploy.maxExecutorRetries", "-1");
        conf.set("spark.shuffle.io.maxRetries", "1").set("spark.shuffle.io.retryWait", "200ms");
        Settings.each(conf::set);
        SparkSession spark = SparkSession.builder().config(conf).getOrCreate();
        spark.sparkContext().setLogLevel("OFF");
        System.out.println("SEED " + seed);
        System.exit(new ExecutorKills(spark, folder, seed).run(kills) ? 0 : 1);
    }

    private boolean run(int kills) throws Exception {
        long whole = 0;
        long expected = 0;
        for (int i = 0; i < 3; i++) { // how long a job takes, once it is warm
            long start = System.nanoTime();
            expected = job();
            whole = System.nanoTime() - start;
        }
        int wrong = 0;
        for (int killed = 0; killed < kills;) {
            AtomicLong result = new AtomicLong();
            Thread runner = new Thread(() -> result.set(job()));
            runner.start();
            Thread.sleep((long) (random.nextDouble() * whole / 1e6));
            boolean dead = killOne();
            runner.join();
            wrong += result.get() == expected ? 0 : 1;
            if (dead) {
                System.out.printf("KILLED %d of %d executors, %d results wrong%n", ++killed, kills, wrong);
            }
        }
        long open = openWriters();
        spark.stop();
        long left = left();
        System.out.printf("EXECUTORS killed=%d wrong=%d writers=%d files=%d%n", kills, wrong, open, left);
        return wrong == 0 && open <= 0 && left == 0;
    }

    /** Spills: 8 MiB for what takes 20 in each task. */
    private long job() {
        return spark.sql("select sum(hash(id, s)), count(*) from (select /*+ repartition(20, id) */ id, repeat(md5(cast(id as string)), 5) s "
            + "from range(0, 300000, 1, 4))").head().getLong(0);
    }

    private boolean killOne() {
        List<ProcessHandle> executors = ProcessHandle.current().descendants()
            .filter(ExecutorKills::isExecutor).collect(Collectors.toList());
        Collections.shuffle(executors, random);
        return !executors.isEmpty() && executors.get(0).destroyForcibly();
    }

    private static boolean isExecutor(ProcessHandle process) {
        try { // ProcessHandle.Info cuts long command lines short
            return new String(Files.readAllBytes(new File("/proc/" + process.pid() + "/cmdline").toPath())).contains("CoarseGrainedExecutorBackend");
        } catch (IOException e) {
            return false; // it has just ended
        }
    }

    /** Of the executors that live, the most that any holds: tasks that open none of their own look. */
    private long openWriters() {
        return spark.range(0, 8, 1, 8).toJavaRDD().map(i -> Writers.count("openWriters")).reduce(Math::max);
    }

    /** The workers remove an application's folders when they hear of its end. */
    private long left() throws IOException, InterruptedException {
        long late = System.nanoTime() + SETTLE_NS;
        long files = files();
        while (files > 0 && System.nanoTime() < late) {
            Thread.sleep(100);
            files = files();
        }
        return files;
    }

    private long files() throws IOException {
        try (Stream<Path> all = Files.walk(folder.toPath())) {
            return all.filter(Files::isRegularFile).count();
        } catch (java.io.UncheckedIOException e) {
            return 1; // something goes just now
        }
    }
}
