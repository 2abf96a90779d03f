/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.File;
import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.spark.SparkConf;
import org.apache.spark.sql.SparkSession;

/**
 * Jobs that shuffle and spill in two executors, one of which is killed (SIGKILL) at a random moment of each: its map outputs are gone
 * or fetched while it dies, stages are done again, and the result must be the same. What those that live still hold is asked of them.
 *
 * Files: what dead executors leave is Spark's to remove, and it knows them by their folders, whatever lies there. Its workers do so when
 * they hear of an application's end, which those of a local cluster may not live to hear; then the end of this process removes them,
 * and `run` looks. A file that Spark's own writers would not have named is one that nobody counts on: there may be none, at any time.
 */
public final class ExecutorKills {
    private static final long SETTLE_NS = 60_000_000_000L;
    /** Spark's writers', broadcasts' and fetches' files, with a number behind it while they are written, and libraries on their way in. */
    private static final Pattern SPARKS = Pattern.compile("(shuffle_\\d+_\\d+_0\\.(data|index|checksum\\.[A-Z0-9]+)|broadcast_\\d+(_\\w+)?)(\\.[0-9a-f-]+)?"
        + "|temp_(shuffle|local)_[0-9a-f-]+|.*_cache|.*_lock|.*\\.jar|(lib(lz4|zstd|snappy)|carbide_spark)[-.\\w]*");

    private final SparkSession spark;
    private final File folder;
    private final Random random;
    private final Set<String> foreign = new TreeSet<>();

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
        String options = conf.get("spark.executor.extraJavaOptions", ""); // what a library's loading leaves would be there too
        conf.set("spark.executor.extraJavaOptions", options + " -Djava.io.tmpdir=" + folder.getPath());
        SparkSession spark = SparkSession.builder().config(conf).getOrCreate();
        spark.sparkContext().setLogLevel("OFF");
        System.out.println("SEED " + seed);
        System.out.println("FOLDER " + folder);
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
            look();
            wrong += result.get() == expected ? 0 : 1;
            if (dead) {
                System.out.printf("KILLED %d of %d executors, %d results wrong%n", ++killed, kills, wrong);
            }
        }
        long open = openWriters();
        spark.stop();
        settle();
        long left = look().size();
        System.out.printf("EXECUTORS killed=%d wrong=%d writers=%d foreign=%d %s left_by_workers=%d%n", kills, wrong, open, foreign.size(), foreign, left);
        return wrong == 0 && open <= 0 && foreign.isEmpty();
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

    /** The workers, if they live that long, remove an application's folders when they hear of its end. */
    private void settle() throws IOException, InterruptedException {
        long late = System.nanoTime() + SETTLE_NS;
        while (!look().isEmpty() && System.nanoTime() < late) {
            Thread.sleep(100);
        }
    }

    /** All files, dead executors' too; those that Spark has no such names for are kept. */
    private List<String> look() throws IOException {
        List<String> names = new ArrayList<>();
        Files.walkFileTree(folder.toPath(), new SimpleFileVisitor<>() {
            @Override
            public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) {
                names.add(file.getFileName().toString());
                return FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult visitFileFailed(Path file, IOException gone) {
                return FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult postVisitDirectory(Path directory, IOException gone) {
                return FileVisitResult.CONTINUE;
            }
        });
        names.stream().filter(name -> !SPARKS.matcher(name).matches()).forEach(foreign::add);
        return names;
    }
}
