/* SPDX-License-Identifier: Apache-2.0 */
package org.apache.spark.shuffle.carbide;

import java.io.File;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.spark.HashPartitioner;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkException;
import org.apache.spark.api.java.JavaPairRDD;
import org.apache.spark.api.java.JavaSparkContext;
import scala.Tuple2;

/** A disk that lies, across executors: Spark must find out by the checksums, and say that it was the disk. */
public final class Corruption {
    private Corruption() {}

    public static void main(String[] arguments) throws Exception {
        File folder = Files.createTempDirectory("corruption").toFile();
        SparkConf conf = new SparkConf().setMaster("local-cluster[2,1,1024]").setAppName("corruption");
        conf.set("spark.serializer", "org.apache.spark.serializer.KryoSerializer").set("spark.local.dir", folder.getPath());
        conf.set("spark.memory.offHeap.enabled", "true").set("spark.memory.offHeap.size", "32m");
        conf.set("spark.stage.maxConsecutiveAttempts", "1").set("spark.ui.enabled", "false");
        Settings.each(conf::set);
        boolean told = false;
        try (JavaSparkContext spark = new JavaSparkContext(conf)) {
            spark.setLogLevel("OFF");
            JavaPairRDD<Object, Object> shuffled = spark.parallelize(java.util.Arrays.asList(1, 2, 3, 4, 5, 6, 7, 8), 4)
                .mapToPair(i -> new Tuple2<Object, Object>(i, "value " + i)).partitionBy(new HashPartitioner(3));
            Check.same(8, shuffled.count(), "records");
            List<Path> files;
            try (Stream<Path> all = Files.walk(folder.toPath())) {
                files = all.filter(p -> p.getFileName().toString().matches("shuffle_.*\\.data")).collect(Collectors.toList());
            }
            Check.same(4, files.size(), "files of data");
            for (Path file : files) {
                try (RandomAccessFile data = new RandomAccessFile(file.toFile(), "rw")) {
                    data.seek(0);
                    data.write(12);
                }
            }
            shuffled.count();
        } catch (Exception e) {
            told = e instanceof SparkException && e.getMessage().contains("corrupted due to DISK_ISSUE");
            if (!told) {
                e.printStackTrace();
            }
        }
        System.out.println("CASE corruptionIsTheDisks " + (told ? "passed" : "FAILED"));
        System.exit(told ? 0 : 1);
    }
}
