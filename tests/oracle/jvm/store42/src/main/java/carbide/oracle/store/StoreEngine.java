// SPDX-License-Identifier: Apache-2.0
package carbide.oracle.store;

import carbide.oracle.Engine;
import carbide.oracle.Turn;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.spark.SparkConf;
import org.apache.spark.memory.ExecutionMemoryPool;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.memory.StorageMemoryPool;
import org.apache.spark.memory.UnifiedMemoryManager;
import org.apache.spark.serializer.SerializerManager;
import org.apache.spark.storage.BlockId;
import org.apache.spark.storage.BlockInfo;
import org.apache.spark.storage.BlockInfoManager;
import org.apache.spark.storage.StorageLevel;
import org.apache.spark.storage.memory.BlockEvictionHandler;
import org.apache.spark.storage.memory.DeserializedMemoryEntry;
import org.apache.spark.storage.memory.MemoryEntry;
import org.apache.spark.storage.memory.MemoryEntryBuilder;
import org.apache.spark.storage.memory.MemoryStore;
import org.apache.spark.storage.memory.PartiallyUnrolledIterator;
import org.apache.spark.storage.memory.SerializedMemoryEntry;
import org.apache.spark.storage.memory.ValuesHolder;
import org.apache.spark.util.KnownSizeEstimation;
import org.apache.spark.util.SizeEstimator;
import org.apache.spark.util.collection.SizeTrackingVector;
import org.apache.spark.util.io.ChunkedByteBuffer;
import scala.Function0;
import scala.Option;
import scala.collection.Iterator;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;
import scala.util.Either;

/**
 * Spark's MemoryStore and BlockInfoManager under the operations of tests/oracle/store_trace.c. Around them is what BlockManager
 * does with them: a block that cannot be held goes to disk if its level says so (here a set of names), one that is evicted too,
 * and one that is read from disk comes back to memory.
 *
 * <p>Nothing has bytes. What a store of Spark learns of its values by estimating sizes of Java objects, it is told here: the
 * holder of what is unrolled adds up the sizes of the records, and for values those of the lists that point to them, which
 * are 14 long at first, then twice as long and three more, up to 8,190, with 24 bytes each (src/store/contents.c). Of records that
 * are "sampled" it estimates the sizes by its own SizeTracker and SizeEstimator, from objects that say how large they are.
 */
public final class StoreEngine implements Engine, BlockEvictionHandler {
    private static final ClassTag<Object> TAG = ClassTag$.MODULE$.apply(Object.class);
    private static final long TASK = 1;
    private static final Method PUT_ITERATOR = Arrays.stream(MemoryStore.class.getDeclaredMethods())
            .filter(m -> m.getName().equals("putIterator")).findFirst().orElseThrow();

    static {
        PUT_ITERATOR.setAccessible(true);
    }

    /** Bytes of any number that are not there. */
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

    /** What a block is made of: records by a formula, or just bytes. */
    private record Made(StorageLevel level, long bytes, long count, long base, long seed, boolean sampled) {
        long recordBytes(long number) {
            long x = seed * 6364136223846793005L + (number + 1) * 1442695040888963407L;
            return (x >>> 33) % (2 * base);
        }

        Iterator<Object> iterator(long from) {
            return new Sizes(this, from);
        }

        /** Serialised. */
        long total() {
            long total = bytes;
            for (long i = 0; i < count; i++) {
                total += 8 + recordBytes(i);
            }
            return total;
        }
    }

    private static final class Sizes extends scala.collection.AbstractIterator<Object> {
        private final Made made;
        private long next;

        Sizes(Made made, long next) {
            this.made = made;
            this.next = next;
        }

        @Override
        public boolean hasNext() {
            return next < made.count;
        }

        @Override
        public Object next() {
            return made.recordBytes(next++);
        }
    }

    private static final class Listed extends scala.collection.AbstractIterator<Object> {
        private final java.util.Iterator<Object> items;

        Listed(List<Object> items) {
            this.items = items.iterator();
        }

        @Override
        public boolean hasNext() {
            return items.hasNext();
        }

        @Override
        public Object next() {
            return items.next();
        }
    }

    /** An object that says how large it is. */
    private record Sized(long bytes) implements KnownSizeEstimation {
        @Override
        public long estimatedSize() {
            return bytes;
        }
    }

    /** What the array's elements take, as Spark estimates it: the array itself is left out. */
    private static long elementBytes(Object[] array) {
        return SizeEstimator.estimate(array) - SizeEstimator.estimate(new Object[array.length]);
    }

    private static final class Tracked extends SizeTrackingVector<Object> implements KnownSizeEstimation {
        Tracked() {
            super(TAG);
        }

        @Override
        public long estimatedSize() {
            return elementBytes((Object[]) array());
        }

        long exactly() {
            return elementBytes(Arrays.copyOf((Object[]) array(), size()));
        }
    }

    private static final class Holder implements ValuesHolder<Object>, MemoryEntryBuilder<Object> {
        private final boolean values;
        private final MemoryMode mode;
        private final Tracked tracked;
        private final List<Object> items = new ArrayList<>();
        private long total;
        private long room;
        private long used;

        Holder(boolean values, boolean sampled, MemoryMode mode) {
            this.tracked = values && sampled ? new Tracked() : null;
            this.values = values;
            this.mode = mode;
        }

        @Override
        public void storeValue(Object size) {
            if (values && used == room) {
                room = room == 0 ? 14 : Math.min(2 * room + 3, 8190);
                used = 0;
                total += 24 + 8 * room;
            }
            used++;
            items.add(size);
            if (tracked != null) {
                tracked.$plus$eq(new Sized((Long) size));
            } else {
                total += (Long) size + (values ? 0 : 8);
            }
        }

        @Override
        public long estimatedSize() {
            return total + (tracked != null ? tracked.estimateSize() : 0);
        }

        @Override
        public MemoryEntryBuilder<Object> getBuilder() {
            return this;
        }

        @Override
        public long preciseSize() {
            return total + (tracked != null ? tracked.exactly() : 0);
        }

        @Override
        public MemoryEntry<Object> build() {
            return values ? new DeserializedMemoryEntry<>(new Object[0], preciseSize(), mode, TAG)
                    : new SerializedMemoryEntry<>(new Claim(total), mode, TAG);
        }
    }

    /** What could not be unrolled. */
    private record Rest(MemoryMode mode, long unrolled, Iterator<Object> values) {
    }

    private UnifiedMemoryManager manager;
    private MemoryStore store;
    private BlockInfoManager infos;
    private Map<BlockId, Made> made;
    private Map<BlockId, Boolean> disk;
    private final BlockId[] pins = new BlockId[16];
    private final Rest[] rests = new Rest[16];
    private final StringBuilder evicted = new StringBuilder();

    @Override
    public String configure(Map<String, String> words) {
        SparkConf conf = new SparkConf(false);
        words.forEach((name, value) -> {
            if (name.startsWith("spark.")) {
                conf.set(name, value);
            }
        });
        conf.set("spark.memory.offHeap.size", words.get("offheap"));
        conf.set("spark.memory.storageFraction", words.get("storageFraction"));
        manager = new UnifiedMemoryManager(conf, Long.parseLong(words.get("heap")), Long.parseLong(words.get("storageRegion")), 1);
        infos = new BlockInfoManager(false);
        store = new MemoryStore(conf, infos, (SerializerManager) null, manager, this);
        manager.setMemoryStore(store);
        made = new HashMap<>();
        disk = new HashMap<>();
        Arrays.fill(pins, null);
        Arrays.fill(rests, null);
        evicted.setLength(0);
        return "";
    }

    @Override
    public String run(String[] words, Turn turn) throws Throwable {
        evicted.setLength(0);
        switch (words[0]) {
            case "put":
                return put(BlockId.apply(words[1]), new Made(level(words[2]), Long.parseLong(words[3]), 0, 1, 0, false), -1);
            case "records":
            case "sampled":
                return put(BlockId.apply(words[1]), new Made(level(words[2]), 0, Long.parseLong(words[3]), Long.parseLong(words[4]),
                        Long.parseLong(words[5]), words[0].equals("sampled")), Integer.parseInt(words[6]));
            case "get":
                return get(BlockId.apply(words[1]));
            case "pin":
                return pin(BlockId.apply(words[1]), Integer.parseInt(words[2]));
            case "unpin":
                infos.unlock(pins[Integer.parseInt(words[1])], Option.empty());
                pins[Integer.parseInt(words[1])] = null;
                return "ok";
            case "remove":
                return remove(BlockId.apply(words[1]));
            case "removeSet":
                return removeSet(Integer.parseInt(words[1]));
            case "exec":
                return "" + manager.acquireExecutionMemory(Long.parseLong(words[1]), TASK, mode(words[2]));
            case "free":
                manager.releaseExecutionMemory(Long.parseLong(words[1]), TASK, mode(words[2]));
                return "ok";
            case "next":
                return next(Integer.parseInt(words[1]), Long.parseLong(words[2]));
            case "close":
                return close(Integer.parseInt(words[1]));
            default:
                throw new UnsupportedOperationException(words[0]);
        }
    }

    private static MemoryMode mode(String word) {
        return word.equals("off") ? MemoryMode.OFF_HEAP : MemoryMode.ON_HEAP;
    }

    private static StorageLevel level(String word) {
        return StorageLevel.apply(word.charAt(0) == 'd', word.charAt(1) == 'm', word.charAt(2) == 'o', word.charAt(3) == 'v', 1);
    }

    // ---- as BlockManager.doPutBytes, doPutIterator ----

    private String put(BlockId block, Made what, int slot) throws ReflectiveOperationException {
        if (infos.get(block).isDefined()) {
            return "exists";
        }
        StorageLevel level = what.level;
        infos.lockNewBlockForWriting(block, new BlockInfo(level, TAG, false), false);
        made.put(block, what);
        String where = "none";
        if (level.useMemory()) {
            where = what.count == 0 ? storeBytes(block, what) ? "memory" : "none" : unroll(block, what, level.useDisk() ? -1 : slot);
        }
        if (where.equals("none") && level.useDisk()) {
            disk.put(block, true);
            where = "disk";
        }
        if (where.equals("none")) {
            made.remove(block);
            infos.removeBlock(block);
        } else {
            infos.unlock(block, Option.empty());
        }
        return where;
    }

    private boolean storeBytes(BlockId block, Made what) {
        long bytes = what.total();
        return store.putBytes(block, bytes, what.level.memoryMode(), (Function0<ChunkedByteBuffer>) () -> new Claim(bytes), TAG);
    }

    /** What could not be unrolled is kept in that slot; -1: it is read to its end, to disk or by nobody. */
    @SuppressWarnings("unchecked")
    private String unroll(BlockId block, Made what, int slot) throws ReflectiveOperationException {
        MemoryMode mode = what.level.memoryMode();
        Holder holder = new Holder(what.level.deserialized(), what.sampled, mode);
        Iterator<Object> values = what.iterator(0);
        Either<Object, Object> result;
        try {
            result = (Either<Object, Object>) PUT_ITERATOR.invoke(store, block, values, TAG, mode, holder);
        } catch (InvocationTargetException e) {
            throw new IllegalStateException(e.getCause());
        }
        if (result.isRight()) {
            return "memory";
        }
        long unrolled = (Long) result.left().get();
        Iterator<Object> all = !what.level.deserialized() ? null
                : new PartiallyUnrolledIterator<>(store, mode, unrolled, new Listed(holder.items), values);
        Rest rest = new Rest(mode, unrolled, all);
        if (slot >= 0) {
            rests[slot] = rest;
        } else {
            end(rest);
        }
        return "none";
    }

    private void end(Rest rest) {
        if (rest.values != null) {
            ((PartiallyUnrolledIterator<Object>) rest.values).close();
        } else {
            store.releaseUnrollMemoryForThisTask(rest.mode, rest.unrolled);
        }
    }

    private String next(int slot, long wanted) {
        long taken = 0;
        while (taken < wanted && rests[slot].values.hasNext()) {
            rests[slot].values.next();
            taken++;
        }
        return "" + taken;
    }

    private String close(int slot) {
        end(rests[slot]);
        rests[slot] = null;
        return "ok";
    }

    // ---- as BlockManager.getLocalValues, getLocalBytes and what they call ----

    private String get(BlockId block) throws ReflectiveOperationException {
        if (!infos.lockForReading(block, true).isDefined()) {
            return "none";
        }
        Made what = made.get(block);
        String where = "disk";
        if (store.contains(block)) {
            boolean there = what.level.deserialized() ? store.getValues(block).isDefined() : store.getBytes(block).isDefined();
            where = there ? "memory" : "lost";
        } else if (what.level.useMemory()) {
            boolean back = what.level.deserialized() ? unroll(block, what, -1).equals("memory") : storeBytes(block, what);
            where = back ? "promoted" : "disk";
        }
        infos.unlock(block, Option.empty());
        return where;
    }

    private String pin(BlockId block, int slot) {
        if (!infos.lockForReading(block, false).isDefined()) {
            return "false";
        }
        pins[slot] = block;
        return "true";
    }

    private boolean removeUnlocked(BlockId block) {
        if (!infos.lockForWriting(block, false).isDefined()) {
            return false;
        }
        store.remove(block);
        disk.remove(block);
        made.remove(block);
        infos.removeBlock(block);
        return true;
    }

    private String remove(BlockId block) {
        if (!infos.get(block).isDefined()) {
            return "false";
        }
        return removeUnlocked(block) ? "true" : "busy";
    }

    private String removeSet(int rdd) {
        scala.collection.immutable.Seq<BlockId> blocks = infos.rddBlockIds(rdd);
        int removed = 0;
        for (int i = 0; i < blocks.size(); i++) {
            removed += removeUnlocked(blocks.apply(i)) ? 1 : 0;
        }
        return "" + removed;
    }

    /** As BlockManager.dropFromMemory. */
    @Override
    public <T> StorageLevel dropFromMemory(BlockId block, Function0<Either<Object, ChunkedByteBuffer>> data, ClassTag<T> tag) {
        StorageLevel level = infos.assertBlockIsLockedForWriting(block).level();
        evicted.append(evicted.length() > 0 ? " " : "").append(block.name()).append(':').append(store.getSize(block));
        if (level.useDisk()) {
            disk.put(block, true);
        }
        store.remove(block);
        if (!disk.containsKey(block)) {
            made.remove(block);
            return StorageLevel.NONE();
        }
        return StorageLevel.DISK_ONLY();
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
        int memory = 0;
        for (BlockId block : made.keySet()) {
            memory += store.contains(block) ? 1 : 0;
        }
        return "on" + pools(manager.onHeapExecutionMemoryPool(), manager.onHeapStorageMemoryPool()) + "off"
                + pools(manager.offHeapExecutionMemoryPool(), manager.offHeapStorageMemoryPool()) + "unroll="
                + store.currentUnrollMemory() + " blocks=" + infos.size() + " memory=" + memory + " disk=" + disk.size();
    }
}
