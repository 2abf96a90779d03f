// SPDX-License-Identifier: Apache-2.0
package carbide.oracle.spark;

import carbide.oracle.Engine;
import carbide.oracle.Turn;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeSet;
import org.apache.spark.SparkConf;
import org.apache.spark.memory.ExecutionMemoryPool;
import org.apache.spark.memory.MemoryManager;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.memory.StorageMemoryPool;
import org.apache.spark.serializer.SerializerManager;
import org.apache.spark.storage.BlockId;
import org.apache.spark.storage.BlockInfo;
import org.apache.spark.storage.BlockInfoManager;
import org.apache.spark.storage.StorageLevel;
import org.apache.spark.storage.memory.BlockEvictionHandler;
import org.apache.spark.storage.memory.MemoryStore;
import org.apache.spark.util.io.ChunkedByteBuffer;
import scala.Function0;
import scala.Option;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;
import scala.util.Either;

/**
 * Spark's managers with a real MemoryStore and a real BlockInfoManager behind them, in one source for 4.2 (unified) and 2.4.8
 * (static). Only the block's bytes are not there: a block claims its size. Eviction is the store's; what it evicts is recorded
 * and dropped, as BlockManager does with a block whose level has no disk.
 */
public final class SparkEngine implements Engine, BlockEvictionHandler {
    private static final ClassTag<Object> TAG = ClassTag$.MODULE$.apply(Object.class);

    /** A block of any size that has no bytes. */
    private static final class Claim extends ChunkedByteBuffer {
        private final long bytes;

        Claim(long bytes) {
            super(new ByteBuffer[0]);
            this.bytes = bytes;
        }

        @Override
        public long size() {
            return bytes;
        }
    }

    private final Method lockNewMethod = Arrays.stream(BlockInfoManager.class.getMethods())
            .filter(m -> m.getName().equals("lockNewBlockForWriting")).findFirst().orElseThrow();
    private MemoryManager manager;
    private MemoryStore store;
    private BlockInfoManager infos;
    private TreeSet<Long> tasks = new TreeSet<>();
    private final StringBuilder evicted = new StringBuilder();

    @Override
    public String configure(Map<String, String> words) throws Throwable {
        SparkConf conf = new SparkConf(false);
        words.forEach((name, value) -> {
            if (name.startsWith("spark.")) {
                conf.set(name, value);
            }
        });
        if (words.containsKey("offheap")) {
            conf.set("spark.memory.offHeap.size", words.get("offheap"));
        }
        if (words.containsKey("storageFraction")) {
            conf.set("spark.memory.storageFraction", words.get("storageFraction"));
        }
        int cores = Integer.parseInt(words.getOrDefault("cores", "1"));
        boolean isStatic = words.get("manager").equals("static");
        MemoryManager next;
        try {
            next = make(words, conf, isStatic, cores);
        } catch (InvocationTargetException e) {
            throw e.getCause();
        }
        infos = makeInfos();
        store = new MemoryStore(conf, infos, (SerializerManager) null, next, this);
        next.setMemoryStore(store);
        manager = next;
        tasks = new TreeSet<>();
        return "";
    }

    /** With the sizes given, or with those that Spark computes from its settings. */
    private static MemoryManager make(Map<String, String> words, SparkConf conf, boolean isStatic, int cores)
            throws ReflectiveOperationException {
        Class<?> type = Class.forName("org.apache.spark.memory." + (isStatic ? "StaticMemoryManager" : "UnifiedMemoryManager"));
        if (words.containsKey(isStatic ? "exec" : "heap")) {
            return (MemoryManager) type.getConstructor(SparkConf.class, long.class, long.class, int.class)
                    .newInstance(conf, Long.parseLong(words.get(isStatic ? "exec" : "heap")),
                            Long.parseLong(words.get(isStatic ? "storage" : "storageRegion")), cores);
        }
        if (isStatic) {
            return (MemoryManager) type.getConstructor(SparkConf.class, int.class).newInstance(conf, cores);
        }
        return (MemoryManager) type.getMethod("apply", SparkConf.class, int.class).invoke(null, conf, cores);
    }

    private static BlockInfoManager makeInfos() throws ReflectiveOperationException {
        for (Constructor<?> maker : BlockInfoManager.class.getConstructors()) {
            return (BlockInfoManager) (maker.getParameterCount() == 0 ? maker.newInstance() : maker.newInstance(false));
        }
        throw new IllegalStateException("BlockInfoManager has no constructor");
    }

    private static MemoryMode mode(String word) {
        return word.equals("off") ? MemoryMode.OFF_HEAP : MemoryMode.ON_HEAP;
    }

    @Override
    public String run(String[] words, Turn turn) throws Throwable {
        evicted.setLength(0);
        switch (words[0]) {
            case "acquireExecution":
                return acquireExecution(Long.parseLong(words[1]), Long.parseLong(words[2]), mode(words[3]), turn);
            case "releaseExecution":
                manager.releaseExecutionMemory(Long.parseLong(words[2]), Long.parseLong(words[1]), mode(words[3]));
                return "ok";
            case "releaseAllExecution":
                return "" + manager.releaseAllExecutionMemoryForTask(Long.parseLong(words[1]));
            case "acquireStorage":
                return put(BlockId.apply(words[1]), Long.parseLong(words[2]), mode(words[3]));
            case "rawAcquireStorage":
                return "" + manager.acquireStorageMemory(BlockId.apply(words[1]), Long.parseLong(words[2]), mode(words[3]));
            case "rawReleaseStorage":
                manager.releaseStorageMemory(Long.parseLong(words[1]), mode(words[2]));
                return "ok";
            case "acquireUnroll":
                return "" + store.reserveUnrollMemoryForThisTask(BlockId.apply(words[1]), Long.parseLong(words[2]), mode(words[3]));
            case "releaseUnroll":
                store.releaseUnrollMemoryForThisTask(mode(words[2]), Long.parseLong(words[1]));
                return "ok";
            case "maxStorage":
                return "" + (mode(words[1]) == MemoryMode.ON_HEAP ? manager.maxOnHeapStorageMemory() : manager.maxOffHeapStorageMemory());
            case "state":
                return "ok";
            default:
                return runBlock(words[0], BlockId.apply(words[1]));
        }
    }

    private String acquireExecution(long task, long bytes, MemoryMode mode, Turn turn) throws Throwable {
        if (turn.isBlocked(task)) {
            return "error:busy";
        }
        tasks.add(task);
        String result;
        turn.mayWait(task);
        try {
            result = "" + manager.acquireExecutionMemory(bytes, task, mode);
        } catch (Exception | AssertionError e) {
            result = "error:" + e.getClass().getSimpleName();
        }
        turn.isOver(result);
        return result;
    }

    /** Has one parameter more in 4.2. */
    private void lockNew(BlockId block) throws ReflectiveOperationException {
        BlockInfo info = new BlockInfo(StorageLevel.MEMORY_ONLY_SER(), TAG, false);
        if (lockNewMethod.getParameterCount() == 2) {
            lockNewMethod.invoke(infos, block, info);
        } else {
            lockNewMethod.invoke(infos, block, info, true);
        }
    }

    private String put(BlockId block, long bytes, MemoryMode mode) throws ReflectiveOperationException {
        if (store.contains(block)) {
            return "error:exists";
        }
        lockNew(block);
        boolean stored = false;
        try {
            stored = store.putBytes(block, bytes, mode, (Function0<ChunkedByteBuffer>) () -> new Claim(bytes), TAG);
        } finally {
            if (stored) {
                infos.unlock(block, Option.empty());
            } else {
                infos.removeBlock(block);
            }
        }
        return "" + stored;
    }

    private String runBlock(String operation, BlockId block) {
        switch (operation) {
            case "touch":
                return "" + store.getBytes(block).isDefined();
            case "pin":
                return "" + infos.lockForReading(block, false).isDefined();
            case "unpin":
                infos.unlock(block, Option.empty());
                return "ok";
            case "releaseStorage":
                return "" + remove(block);
            default:
                throw new UnsupportedOperationException(operation);
        }
    }

    private boolean remove(BlockId block) {
        if (!store.remove(block)) {
            return false;
        }
        while (!infos.lockForWriting(block, false).isDefined()) {
            infos.unlock(block, Option.empty()); // its readers
        }
        infos.removeBlock(block);
        return true;
    }

    /** Called by the store for each block that it evicts. */
    @Override
    public <T> StorageLevel dropFromMemory(BlockId block, Function0<Either<Object, ChunkedByteBuffer>> data, ClassTag<T> tag) {
        evicted.append(evicted.length() > 0 ? " " : "").append(block.name()).append(':').append(data.apply().right().get().size());
        store.remove(block);
        return StorageLevel.NONE();
    }

    @Override
    public String evicted() {
        String text = evicted.length() > 0 ? "evicted{" + evicted + "}" : "";
        evicted.setLength(0);
        return text;
    }

    private static String pools(ExecutionMemoryPool execution, StorageMemoryPool storage) {
        return "{exec=" + execution.memoryUsed() + "/" + execution.poolSize() + " stor=" + storage.memoryUsed() + "/"
                + storage.poolSize() + "} ";
    }

    @Override
    public String state() {
        if (manager == null) {
            return "on{exec=0/0 stor=0/0} off{exec=0/0 stor=0/0} unroll=0 tasks{}";
        }
        StringBuilder holders = new StringBuilder();
        for (long task : tasks) {
            long on = manager.onHeapExecutionMemoryPool().getMemoryUsageForTask(task);
            long off = manager.offHeapExecutionMemoryPool().getMemoryUsageForTask(task);
            if (on + off > 0) {
                holders.append(holders.length() > 0 ? " " : "").append(task).append('=').append(on).append('+').append(off);
            }
        }
        return "on" + pools(manager.onHeapExecutionMemoryPool(), manager.onHeapStorageMemoryPool()) + "off"
                + pools(manager.offHeapExecutionMemoryPool(), manager.offHeapStorageMemoryPool()) + "unroll="
                + store.currentUnrollMemory() + " tasks{" + holders + "}";
    }
}
