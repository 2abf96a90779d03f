// SPDX-License-Identifier: Apache-2.0
package carbide.bench;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;

import org.apache.spark.SparkConf;
import org.apache.spark.SparkContext;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.storage.BlockData;
import org.apache.spark.storage.BlockId;
import org.apache.spark.storage.BlockManager;
import org.apache.spark.storage.RDDBlockId;
import org.apache.spark.storage.StorageLevel;
import org.apache.spark.util.io.ChunkedByteBuffer;

import scala.Option;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/**
 * Spark's own BlockManager, in local mode, does what bench/blocks.c has carbide do. Both read lines "CASE-BYTES OPERATIONS SEED" and answer
 * each with the nanoseconds of one operation and a digest of all answers so far. Blocks are put without telling the master, which is
 * a message and an answer a block. A put of a block that is not there copies its bytes once on both sides: into a
 * buffer that Spark keeps, into pages of carbide's.
 */
public final class Blocks {
    static final int NAMES = 512;
    static final int KIN = 8;
    static final Option<TaskContext> NO_TASK = Option.empty();
    static final ClassTag<byte[]> TAG = ClassTag$.MODULE$.apply(byte[].class);

    final BlockId[] names = new BlockId[NAMES];
    byte[] data;
    final String folder;
    SparkContext context;
    BlockManager blocks;
    StorageLevel level;
    long digest;

    Blocks(String folder) {
        this.folder = folder;
    }

    void note(long answer) {
        digest = (digest ^ answer) * 0x100000001b3L;
    }

    void putOne(int i) {
        java.util.Arrays.fill(data, 0, 16, (byte) (i % 251));
        boolean stored = false;
        if (blocks.blockInfoManager().get(names[i]).isEmpty()) { // carbide, too, copies nothing for a block that is there
            ChunkedByteBuffer buffer = new ChunkedByteBuffer(new ByteBuffer[] {ByteBuffer.wrap(data.clone())});
            stored = blocks.putBytes(names[i], buffer, level, false, TAG);
        }
        note(stored ? 1 : 0);
    }

    void getOne(int i) {
        Option<BlockData> found = blocks.getLocalBytes(names[i]);
        if (found.isEmpty()) {
            note(0);
            return;
        }
        BlockData block = found.get();
        ByteBuffer bytes = block.toByteBuffer();
        note(bytes.remaining() + (bytes.get(bytes.position()) & 0xff));
        blocks.releaseLockAndDispose(names[i], block, NO_TASK);
    }

    /** MemoryStore alone: no lock is taken, none given back. */
    void getStored(int i) {
        ByteBuffer bytes = blocks.memoryStore().getBytes(names[i]).get().toByteBuffer();
        note(bytes.remaining() + (bytes.get(bytes.position()) & 0xff));
    }

    void removeOne(int i) {
        boolean there = blocks.blockInfoManager().get(names[i]).isDefined();
        if (there) {
            blocks.removeBlock(names[i], false);
        }
        note(there ? 1 : 0);
    }

    void openCase(String name) {
        boolean disk = name.startsWith("disk");
        data = new byte[Integer.parseInt(name.substring(name.lastIndexOf('-') + 1))];
        close();
        SparkConf conf = new SparkConf(false).setMaster("local[1]").setAppName("blocks")
            .set("spark.ui.enabled", "false")
            .set("spark.driver.host", "localhost")
            .set("spark.driver.bindAddress", "127.0.0.1")
            .set("spark.local.dir", folder)
            .set("spark.testing.reservedMemory", "0")
            .set("spark.testing.memory", Long.toString((long) (disk ? NAMES / 4 : 2 * NAMES) * data.length))
            .set("spark.memory.fraction", "1.0")
            .set("spark.memory.storageFraction", "0.5");
        context = new SparkContext(conf);
        context.setLogLevel("OFF");
        blocks = SparkEnv.get().blockManager();
        level = disk ? StorageLevel.MEMORY_AND_DISK_SER() : StorageLevel.MEMORY_ONLY_SER();
        digest = 0xcbf29ce484222325L;
        for (int i = 0; i < NAMES; i++) {
            names[i] = new RDDBlockId(i % KIN, i / KIN);
            putOne(i);
        }
    }

    void close() {
        if (context != null) {
            context.stop();
        }
    }

    void work(String name, int operations, int seed) {
        boolean onlyGet = name.startsWith("get");
        boolean stored = name.startsWith("get-stored");
        for (int k = 0; k < operations; k++) {
            seed ^= seed << 13;
            seed ^= seed >>> 17;
            seed ^= seed << 5;
            int i = (seed >>> 8) % NAMES;
            int what = onlyGet ? 0 : (seed >>> 20) % 10;
            if (stored) {
                getStored(i);
            } else if (what < 6) {
                getOne(i);
            } else if (what < 8) {
                putOne(i);
            } else {
                removeOne(i);
            }
        }
    }

    public static void main(String[] args) throws Exception {
        Blocks b = new Blocks(args[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        String last = "";
        for (String line; (line = in.readLine()) != null;) {
            String[] words = line.split(" ");
            int operations = Integer.parseInt(words[1]);
            int seed = Integer.parseUnsignedInt(words[2]);
            if (!words[0].equals(last)) {
                last = words[0];
                b.openCase(last);
            }
            long begin = System.nanoTime();
            b.work(last, operations, seed);
            double took = System.nanoTime() - begin;
            b.note(b.blocks.memoryManager().storageMemoryUsed());
            System.out.printf("%.2f %016x%n", took / operations, b.digest);
            System.out.flush();
        }
        b.close();
    }
}
