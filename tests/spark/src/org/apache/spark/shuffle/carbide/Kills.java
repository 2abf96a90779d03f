/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.sql.SparkSession;

/**
 * Jobs that shuffle and spill, cancelled at random moments with their tasks' threads interrupted: what must be left is nothing. Spark
 * is asked for its execution memory, the system for open files and mapped memory, the folders for files.
 */
public final class Kills {
    private final SparkSession spark;
    private final File folder;
    private final Random random;

    private Kills(SparkSession spark, File folder, long seed) {
        this.spark = spark;
        this.folder = folder;
        this.random = new Random(seed);
    }

    public static void main(String[] arguments) throws Exception {
        int kills = Integer.parseInt(arguments[0]);
        long seed = arguments.length > 1 ? Long.parseLong(arguments[1]) : System.nanoTime();
        File folder = Files.createTempDirectory("kills").toFile();
        SparkConf conf = new SparkConf().setMaster("local[2]").setAppName("kills");
        conf.set("spark.memory.offHeap.enabled", "true").set("spark.memory.offHeap.size", "8m").set("spark.buffer.pageSize", "256k");
        conf.set("spark.local.dir", folder.getPath()).set("spark.ui.enabled", "false");
        conf.set("spark.sql.adaptive.enabled", "false").set("spark.sql.shuffle.partitions", "50");
        conf.set("spark.unsafe.exceptionOnMemoryLeak", "true");
        Settings.each(conf::set);
        SparkSession spark = SparkSession.builder().config(conf).getOrCreate();
        spark.sparkContext().setLogLevel("OFF");
        System.out.println("SEED " + seed);
        System.exit(new Kills(spark, folder, seed).run(kills) ? 0 : 1);
    }

    private boolean run(int kills) throws Exception {
        long whole = 0;
        for (int i = 0; i < 4; i++) { // how long a job takes, once it is warm
            long start = System.nanoTime();
            job();
            whole = System.nanoTime() - start;
        }
        settle();
        long files = openFiles();
        long expected = job();
        AtomicInteger killed = new AtomicInteger();
        AtomicInteger finished = new AtomicInteger();
        long rss = 0;
        while (killed.get() < kills) {
            int before = killed.get();
            one(whole, killed, finished, expected);
            if (killed.get() > before) {
                System.out.printf("KILLED %d of %d, %d jobs ended before%n", killed.get(), kills, finished.get());
            }
            if (killed.get() == kills / 2 && rss == 0) {
                settle();
                rss = resident();
            }
        }
        boolean clean = settle();
        long left = job();
        settle();
        long opened = openFiles() - files;
        long grown = resident() - rss;
        long memory = SparkEnv.get().memoryManager().executionMemoryUsed();
        List<String> stray = stray();
        long writers = Writers.count("openWriters");
        System.out.printf("KILLS killed=%d finished=%d memory=%d clean=%s writers=%d files=%s open=%d grown_kib=%d same=%s %s%n", killed.get(), finished.get(),
            memory, clean, writers, stray, opened, grown >> 10, left == expected, Writers.counted());
        return clean && memory == 0 && writers <= 0 && stray.isEmpty() && opened <= 4 && left == expected;
    }

    /** Spills: 8 MiB for what takes 60. */
    private long job() {
        return spark.sql("select sum(hash(id, s)), count(*) from (select /*+ repartition(50, id) */ id, repeat(md5(cast(id as string)), 5) s "
            + "from range(0, 300000, 1, 6))").head().getLong(0);
    }

    private void one(long whole, AtomicInteger killed, AtomicInteger finished, long expected) throws InterruptedException {
        String group = "kill-" + killed.get() + "-" + finished.get();
        AtomicLong wrong = new AtomicLong();
        Thread runner = new Thread(() -> {
            spark.sparkContext().setJobGroup(group, group, true);
            try {
                wrong.set(job() == expected ? 0 : 1);
                finished.incrementAndGet();
            } catch (Exception e) {
                killed.incrementAndGet();
            }
        });
        runner.start();
        Thread.sleep((long) (random.nextDouble() * whole / 1e6));
        spark.sparkContext().cancelJobGroup(group);
        runner.join();
        if (wrong.get() != 0) {
            throw new IllegalStateException("a wrong result beside a kill");
        }
    }

    /** Until the killed tasks have ended and what has no owner is collected. */
    private boolean settle() throws Exception {
        for (int i = 0; i < 200; i++) {
            System.gc();
            Thread.sleep(50);
            if (i > 5 && SparkEnv.get().memoryManager().executionMemoryUsed() == 0 && stray().isEmpty()) {
                return true;
            }
        }
        return false;
    }

    /** Temporary files, and data of shuffles that nobody knows any more. */
    private List<String> stray() throws IOException {
        try (Stream<Path> all = Files.walk(folder.toPath())) {
            return all.filter(Files::isRegularFile).map(p -> p.getFileName().toString())
                .filter(name -> name.matches("temp_.*|.*\\.data\\.[0-9a-f-]+|shuffle_.*")).sorted().toList();
        }
    }

    private static long openFiles() {
        return new File("/proc/self/fd").list().length;
    }

    private static long resident() throws IOException {
        for (String line : Files.readAllLines(new File("/proc/self/status").toPath())) {
            if (line.startsWith("VmRSS")) {
                return Long.parseLong(line.replaceAll("[^0-9]", "")) << 10;
            }
        }
        return 0;
    }
}
