/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import org.apache.spark.HashPartitioner;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaPairRDD;
import org.apache.spark.api.java.JavaRDD;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import scala.Tuple2;

/**
 * SQL and RDD jobs, all in one JVM; a line for each with the number of rows and a hash of them. Where a job defines an order the hash
 * sees it; elsewhere rows are sorted first, and where it matters which partition a row is in, that is part of the row. Sums are of whole
 * numbers, lists are sorted: whatever the order of arrival, the result is one.
 */
public final class Jobs {
    private final SparkSession spark;
    private final JavaSparkContext rdds;
    private final Map<String, Supplier<List<String>>> jobs = new LinkedHashMap<>();

    private Jobs(SparkSession spark) {
        this.spark = spark;
        this.rdds = new JavaSparkContext(spark.sparkContext());
    }

    public static void main(String[] names) throws Exception {
        SparkSession.Builder builder = SparkSession.builder().appName("jobs");
        builder.config("spark.serializer", "org.apache.spark.serializer.KryoSerializer");
        builder.config("spark.sql.jsonGenerator.ignoreNullFields", "false");
        builder.config("spark.sql.shuffle.partitions", "7");
        builder.config("spark.default.parallelism", "6");
        builder.config("spark.sql.adaptive.enabled", "false");
        builder.config("spark.sql.autoBroadcastJoinThreshold", "-1");
        Settings.each(builder::config);
        SparkSession spark = builder.getOrCreate();
        spark.sparkContext().setLogLevel("ERROR");
        Jobs all = new Jobs(spark);
        all.tables();
        all.sql();
        all.sqlOfManyTypes();
        all.sqlOfSizes();
        all.plainRdds();
        int failed = all.run(Arrays.asList(names), System.out);
        spark.stop();
        System.exit(failed == 0 ? 0 : 1);
    }

    private int run(List<String> names, PrintStream out) throws Exception {
        int failed = 0;
        for (Map.Entry<String, Supplier<List<String>>> job : jobs.entrySet()) {
            if (!names.isEmpty() && !names.contains(job.getKey())) {
                continue;
            }
            try {
                List<String> rows = job.getValue().get();
                MessageDigest hash = MessageDigest.getInstance("SHA-256");
                for (String row : rows) {
                    hash.update(row.getBytes(StandardCharsets.UTF_8));
                    hash.update((byte) 0);
                }
                out.printf("JOB %s %d %s%n", job.getKey(), rows.size(), hex(hash.digest()));
            } catch (Exception e) {
                failed++;
                out.printf("JOB %s failed %s%n", job.getKey(), String.valueOf(e.getMessage()).split("\n")[0]);
                e.printStackTrace();
            }
            out.flush();
        }
        out.printf("WRITERS %s%n", written());
        return failed;
    }

    /** By the tasks of this process, or of all executors, each of which gets some of the tasks that ask. */
    private String written() {
        if (spark.sparkContext().isLocal()) {
            return Writers.counted();
        }
        Map<String, String> counts = rdds.parallelize(Collections.nCopies(16, 0), 16).mapToPair(i -> {
            Thread.sleep(100);
            return new Tuple2<>(SparkEnv.get().executorId(), Writers.counted());
        }).collectAsMap();
        return String.join(" ", counts.values());
    }

    private static String hex(byte[] bytes) {
        StringBuilder text = new StringBuilder();
        for (byte b : bytes) {
            text.append(String.format("%02x", b));
        }
        return text.toString();
    }

    // ---- what a result is ----

    private void ordered(String name, Supplier<Dataset<Row>> query) {
        jobs.put(name, () -> query.get().toJSON().collectAsList());
    }

    private void unordered(String name, Supplier<Dataset<Row>> query) {
        jobs.put(name, () -> sorted(query.get().toJSON().collectAsList()));
    }

    /** The partition that each row is in counts too. */
    private void placed(String name, Supplier<Dataset<Row>> query) {
        unordered(name, () -> query.get().selectExpr("*", "spark_partition_id() as place"));
    }

    private <T> void plain(String name, boolean order, Supplier<JavaRDD<T>> query) {
        jobs.put(name, () -> {
            List<String> rows = new ArrayList<>();
            for (T row : query.get().collect()) {
                rows.add(String.valueOf(row));
            }
            return order ? rows : sorted(rows);
        });
    }

    private static List<String> sorted(List<String> rows) {
        List<String> copy = new ArrayList<>(rows);
        Collections.sort(copy);
        return copy;
    }

    // ---- data: everything follows from the row's number ----

    private void tables() {
        spark.range(0, 60000, 1, 5).selectExpr(
            "id", "cast(hash(id) as bigint) & 1023 as k", "hash(id, 7) as v",
            "case when id % 11 = 0 then null else concat('name-', id % 977) end as s",
            "if(id % 10 < 9, 1, id % 50) as hot", "cast(id % 1000 as decimal(20,3)) as d",
            "cast(id % 4096 as double) / 8 as f").createOrReplaceTempView("t");
        spark.range(0, 3000, 1, 3).selectExpr("id as k2", "if(id % 7 = 0, null, id % 1500) as k", "id * 3 as w")
            .createOrReplaceTempView("u");
        spark.range(0, 4000, 1, 4).selectExpr(
            "id", "unhex(md5(cast(id as string))) as bin", "array(id, id % 7, null) as arr",
            "map('a', id, 'b', id % 3) as m", "struct(id as x, struct(cast(id as string) as z) as y) as st",
            "array(struct(id % 5 as p, repeat('q', cast(id % 9 as int)) as q)) as deep",
            "date_add(date'2020-01-01', cast(id % 700 as int)) as day",
            "timestamp_seconds(id * 1001) as at", "id % 2 = 0 as even", "cast(id as decimal(38,10)) / 7 as big").createOrReplaceTempView("n");
    }

    // ---- SQL ----

    private void sql() {
        ordered("sort-int", () -> spark.sql("select v, id from t order by v, id"));
        ordered("sort-text-nulls-last", () -> spark.sql("select s, id from t order by s desc nulls last, id"));
        ordered("sort-two-ways", () -> spark.sql("select k, f, id from t order by k asc, f desc, id"));
        placed("repartition-by-key", () -> spark.table("t").repartition(13, spark.table("t").col("k")));
        placed("repartition-round", () -> spark.table("t").repartition(9));
        placed("repartition-range", () -> spark.table("t").repartitionByRange(8, spark.table("t").col("id")));
        placed("repartition-one", () -> spark.table("t").repartition(1));
        placed("null-keys-together", () -> spark.sql("select /*+ repartition(5, s) */ s, id from t"));
        unordered("group-sum", () -> spark.sql("select k, count(*), sum(v), min(id), max(s), sum(d) from t group by k"));
        unordered("group-null-keys", () -> spark.sql("select s, count(*), sum(id) from t group by s"));
        unordered("group-skewed", () -> spark.sql("select hot, count(*), sum(id) from t group by hot"));
        unordered("group-lists", () -> spark.sql("select k, sort_array(collect_list(id)), sort_array(collect_set(s)) from t group by k"));
        unordered("group-cube", () -> spark.sql("select hot, k % 4, count(*), sum(v) from t group by cube(hot, k % 4)"));
        unordered("group-distinct-counts", () -> spark.sql("select hot, count(distinct s), count(distinct k) from t group by hot"));
        unordered("join-inner", () -> spark.sql("select t.id, u.k2, w from t join u on t.k = u.k"));
        unordered("join-left-null-keys", () -> spark.sql("select t.id, u.k2 from t left join u on t.k = u.k and t.id % 3 = 0"));
        unordered("join-full", () -> spark.sql("select t.id, u.k2 from (select * from t where id < 5000) t full join u on t.id = u.k"));
        unordered("join-semi-anti", () -> spark.sql("select id from t left semi join u on t.k = u.k union all "
            + "select id from t left anti join u on t.k = u.k"));
        unordered("join-skewed", () -> spark.sql("select a.hot, count(*), sum(a.id), sum(b.id) from t a join "
            + "(select * from t where id < 600) b on a.hot = b.hot group by a.hot"));
        unordered("join-hashed", () -> spark.sql("select /*+ shuffle_hash(u) */ t.id, u.w from t join u on t.k = u.k"));
        unordered("distinct", () -> spark.sql("select distinct k, hot, s from t"));
        unordered("except-intersect", () -> spark.sql("(select k from t except select k from u) union all (select k from t intersect select k from u)"));
        unordered("window-rank", () -> spark.sql("select id, rank() over (partition by k order by v, id), "
            + "sum(v) over (partition by hot order by id rows 3 preceding), lag(s) over (partition by k order by id) from t"));
        ordered("limit-after-sort", () -> spark.sql("select * from t order by v desc, id limit 500"));
        ordered("two-shuffles", () -> spark.sql("select c, count(*) n from (select k, count(*) c from t group by k) group by c order by c"));
        unordered("adaptive", () -> {
            spark.conf().set("spark.sql.adaptive.enabled", "true");
            try {
                List<String> rows = spark.sql("select a.k, count(*) c, sum(a.v) sv from t a join u on a.k = u.k group by a.k").toJSON().collectAsList();
                return spark.createDataset(rows, org.apache.spark.sql.Encoders.STRING()).toDF();
            } finally {
                spark.conf().set("spark.sql.adaptive.enabled", "false");
            }
        });
    }

    private void sqlOfManyTypes() {
        placed("types-nested", () -> spark.sql("select /*+ repartition(6, id) */ * from n"));
        ordered("types-binary-sorted", () -> spark.sql("select bin, id, arr, m, st, deep from n order by bin"));
        unordered("types-binary-grouped", () -> spark.sql("select substring(bin, 1, 1), count(*), max(day), min(at), sum(big) from n group by 1"));
        unordered("types-struct-grouped", () -> spark.sql("select st.y, even, count(*) from n group by st.y, even"));
        unordered("types-joined-on-struct", () -> spark.sql("select a.id, b.arr from n a join n b on a.st = b.st and a.day = b.day"));
        unordered("types-no-columns", () -> spark.sql("select /*+ repartition(4) */ 1 from n").select());
    }

    private void sqlOfSizes() {
        placed("empty-input", () -> spark.sql("select /*+ repartition(5, id) */ * from t where id < 0"));
        placed("empty-partitions", () -> spark.sql("select /*+ repartition(100, k) */ id from (select id, id % 3 k from t where id % 500 = 1)"));
        placed("one-row", () -> spark.sql("select /*+ repartition(7, id) */ * from t where id = 12345"));
        unordered("partitions-10000", () -> spark.table("t").repartition(10000, spark.table("t").col("id")).coalesce(20));
        placed("wide-columns", () -> {
            List<String> columns = new ArrayList<>(Collections.singletonList("id"));
            for (int i = 0; i < 300; i++) {
                columns.add("if(id % 7 = " + i % 7 + ", null, id * " + i + ") as c" + i);
            }
            return spark.table("n").selectExpr(columns.toArray(new String[0])).repartition(5, spark.table("n").col("id"));
        });
        placed("wide-values", () -> spark.sql("select /*+ repartition(3, id) */ id, repeat(cast(id as string), 20000) as x from t where id % 3000 = 7"));
        ordered("wide-values-sorted", () -> spark.sql("select id, md5(x) from (select id, repeat(md5(cast(id as string)), 5000) as x from t "
            + "where id % 1000 = 7) order by x"));
        placed("row-of-megabytes", () -> spark.sql("select id, md5(x) from (select /*+ repartition(3, id) */ id, "
            + "repeat(md5(cast(id as string)), 100000) as x from t where id % 20000 = 7)"));
        placed("incompressible", () -> spark.sql("select /*+ repartition(11, id) */ id, sha2(cast(id as string), 512) as h from t"));
        placed("one-value", () -> spark.sql("select /*+ repartition(4) */ 'the same' as x from t"));
    }

    // ---- RDDs (Kryo) ----

    private JavaPairRDD<Integer, String> pairs() {
        List<Integer> numbers = new ArrayList<>();
        for (int i = 0; i < 20000; i++) {
            numbers.add(i);
        }
        return rdds.parallelize(numbers, 4).mapToPair(i -> new Tuple2<>(i * 31 % 701, "value-" + i));
    }

    private static String text(Iterable<String> values) {
        List<String> list = new ArrayList<>();
        values.forEach(list::add);
        Collections.sort(list);
        return list.toString();
    }

    private static Iterator<String> inPlace(Integer place, Iterator<Tuple2<Integer, String>> rows) {
        List<String> out = new ArrayList<>();
        rows.forEachRemaining(row -> out.add(place + ":" + row));
        return out.iterator();
    }

    private void plainRdds() {
        plain("rdd-partition-by", false, () -> pairs().partitionBy(new HashPartitioner(12)).mapPartitionsWithIndex(Jobs::inPlace, false));
        plain("rdd-sort-by-key", true, () -> pairs().mapToPair(p -> new Tuple2<>(p._2(), p._1())).sortByKey(true, 6).map(Tuple2::toString));
        plain("rdd-sort-within", false, () -> pairs().repartitionAndSortWithinPartitions(new HashPartitioner(3)).map(Tuple2::toString));
        plain("rdd-group-by-key", false, () -> pairs().groupByKey(5).mapValues(Jobs::text).map(Tuple2::toString));
        plain("rdd-reduce-by-key", false, () -> pairs().mapValues(String::length).reduceByKey(Integer::sum, 5).map(Tuple2::toString));
        plain("rdd-aggregate", false, () -> pairs().aggregateByKey(0L, 4, (sum, s) -> sum + s.hashCode(), Long::sum).map(Tuple2::toString));
        plain("rdd-join", false, () -> pairs().join(pairs().filter(p -> p._2().endsWith("7")), 6).map(Tuple2::toString));
        plain("rdd-cogroup", false, () -> pairs().cogroup(pairs().filter(p -> p._1() < 50), 6)
            .mapValues(two -> text(two._1()) + text(two._2())).map(Tuple2::toString));
        plain("rdd-distinct", false, () -> pairs().keys().distinct(7));
        plain("rdd-repartition", false, () -> pairs().repartition(10).map(Tuple2::toString));
        plain("rdd-subtract", false, () -> pairs().subtractByKey(pairs().filter(p -> p._1() % 2 == 0)).map(Tuple2::toString));
        plain("rdd-bytes", false, () -> pairs().mapToPair(p -> new Tuple2<>(p._1(), new byte[p._1() * 3])).partitionBy(new HashPartitioner(8))
            .map(p -> p._1() + ":" + p._2().length));
        plain("rdd-null-values", false, () -> pairs().mapToPair(p -> new Tuple2<Integer, String>(p._1(), p._1() % 3 == 0 ? null : p._2()))
            .partitionBy(new HashPartitioner(8)).mapPartitionsWithIndex(Jobs::inPlace, false));
        plain("rdd-1000-partitions", false, () -> pairs().partitionBy(new HashPartitioner(1000)).coalesce(3).map(Tuple2::toString));
    }
}
