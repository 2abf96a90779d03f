/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import com.sun.management.OperatingSystemMXBean;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.util.List;
import org.apache.spark.SparkEnv;
import org.apache.spark.scheduler.SparkListener;
import org.apache.spark.scheduler.SparkListenerStageCompleted;
import org.apache.spark.executor.TaskMetrics;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/**
 * One side of bench/spark: a Spark that lives for the whole run and does what it is told, a line at a time, answering with a line of
 * figures. `noop` makes the rows and drops them; `shuffle` makes them, shuffles and drops them; `hash` shuffles and says what came out.
 */
public final class Load {
    private static final int ROW_BYTES = 136; // an UnsafeRow of these columns
    private static final long FORGET_NS = 3_000_000_000L;

    private final SparkSession spark;
    private final Dataset<Row> rows;
    private final int partitions;
    private final Stages stages = new Stages();

    private Load(SparkSession spark, long megabytes, int maps, int partitions) {
        this.spark = spark;
        this.partitions = partitions;
        this.rows = spark.range(0, megabytes * 1_000_000 / ROW_BYTES, 1, maps).selectExpr("id", "xxhash64(id) as a", "id * 7919 as b",
            "cast(id % 10007 as double) / 8 as c", "cast(id as string) as d", "concat('customer-', id % 100003) as e",
            "if(id % 5 = 0, null, 'https://example.org/a/path/of/a/page') as f");
        spark.sparkContext().addSparkListener(stages);
    }

    public static void main(String[] arguments) throws Exception {
        SparkSession.Builder builder = SparkSession.builder().master("local[2]").appName("load");
        builder.config("spark.sql.adaptive.enabled", "false");
        Settings.each(builder::config);
        SparkSession spark = builder.getOrCreate();
        spark.sparkContext().setLogLevel("ERROR");
        Load load = new Load(spark, Long.parseLong(arguments[0]), Integer.parseInt(arguments[1]), Integer.parseInt(arguments[2]));
        System.out.println("READY " + ManagementFactory.getRuntimeMXBean().getName().split("@")[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            System.out.println("DONE " + load.does(line.trim()));
        }
        System.exit(0);
    }

    private String does(String what) throws Exception {
        Dataset<Row> shuffled = rows.repartition(partitions, rows.col("id"));
        if (what.equals("hash")) {
            List<Row> sums = shuffled.selectExpr("spark_partition_id() p", "xxhash64(*) h").groupBy("p").agg(
                org.apache.spark.sql.functions.expr("count(*)"), org.apache.spark.sql.functions.expr("bit_xor(h)")).orderBy("p").collectAsList();
            return sums.size() + " " + sums.hashCode();
        }
        forget();
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        stages.reset();
        long[] nanos = Writers.nanos();
        long cpu = system.getProcessCpuTime();
        long start = System.nanoTime();
        (what.equals("noop") ? rows : shuffled).write().format("noop").mode("overwrite").save();
        long wall = System.nanoTime() - start;
        cpu = system.getProcessCpuTime() - cpu;
        return String.format("wall=%d process=%d rss=%d %s %s %s", wall, cpu, peak(), stages.figures(), Writers.timed(nanos), Writers.counted());
    }

    /** The most memory that this process ever had, by the kernel. */
    private static long peak() throws IOException {
        for (String line : Files.readAllLines(new File("/proc/self/status").toPath())) {
            if (line.startsWith("VmHWM")) {
                return Long.parseLong(line.replaceAll("[^0-9]", "")) << 10;
            }
        }
        return 0;
    }

    /** Files of earlier shuffles go before a job begins, as do their pages in the kernel's cache: each job finds the machine alike. */
    private static void forget() throws Exception {
        long late = System.nanoTime() + FORGET_NS;
        System.gc(); // Spark's cleaner removes shuffles that nobody knows any more
        while (!SparkEnv.get().blockManager().diskBlockManager().getAllFiles().isEmpty() && System.nanoTime() < late) {
            Thread.sleep(20);
        }
    }

    /** The first stage of a job: the map stage, or the only one. */
    private static final class Stages extends SparkListener {
        private String first;

        synchronized void reset() {
            first = null;
        }

        @Override
        public synchronized void onStageCompleted(SparkListenerStageCompleted stage) {
            TaskMetrics m = stage.stageInfo().taskMetrics();
            if (first == null) {
                first = String.format("cpu=%d run=%d gc=%d write=%d bytes=%d records=%d spilled=%d disk=%d peak=%d", m.executorCpuTime(),
                    m.executorRunTime() * 1_000_000, m.jvmGCTime() * 1_000_000, m.shuffleWriteMetrics().writeTime(),
                    m.shuffleWriteMetrics().bytesWritten(), m.shuffleWriteMetrics().recordsWritten(), m.memoryBytesSpilled(),
                    m.diskBytesSpilled(), m.peakExecutionMemory());
            }
            notifyAll();
        }

        synchronized String figures() throws InterruptedException {
            while (first == null) {
                wait(100);
            }
            return first;
        }
    }
}
