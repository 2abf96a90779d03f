// SPDX-License-Identifier: Apache-2.0
package carbide.oracle.flink;

import carbide.oracle.Engine;
import carbide.oracle.Turn;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemoryType;
import org.apache.flink.runtime.memory.MemoryAllocationException;
import org.apache.flink.runtime.memory.MemoryManager;

/** Flink 1.9.3's MemoryManager. What each owner was given is kept here; the manager is asked for all else. */
public final class FlinkEngine implements Engine {
    private MemoryManager manager;
    private TreeMap<String, List<MemorySegment>> owners = new TreeMap<>();

    @Override
    public String configure(Map<String, String> words) {
        long memory = Long.parseLong(words.get("memory"));
        int page = Integer.parseInt(words.getOrDefault("page", "" + MemoryManager.DEFAULT_PAGE_SIZE));
        int slots = Integer.parseInt(words.getOrDefault("slots", "1"));
        MemoryType type = words.getOrDefault("type", "heap").equals("off") ? MemoryType.OFF_HEAP : MemoryType.HEAP;
        boolean preallocate = Boolean.parseBoolean(words.getOrDefault("preallocate", "false"));
        MemoryManager next = new MemoryManager(memory, slots, page, type, preallocate);
        if (manager != null) {
            manager.shutdown();
        }
        manager = next;
        owners = new TreeMap<>();
        return " size=" + manager.getMemorySize() + " type=" + manager.getMemoryType() + " prealloc=" + manager.isPreAllocated();
    }

    @Override
    public String run(String[] words, Turn turn) {
        switch (words[0]) {
            case "allocate":
                return allocate(words[1], Integer.parseInt(words[2]));
            case "release":
                return "" + releaseSome(words[1], Integer.parseInt(words[2]));
            case "releaseList":
                return "" + releaseList(words[1], Integer.parseInt(words[2]));
            case "releaseAll":
                return releaseAll(words[1]);
            case "numPages":
                return "" + manager.computeNumberOfPages(Double.parseDouble(words[1]));
            case "memorySize":
                return "" + manager.computeMemorySize(Double.parseDouble(words[1]));
            case "roundDown":
                return "" + manager.roundDownToPageSizeMultiple(Long.parseLong(words[1]));
            case "shutdown":
                manager.shutdown();
                return "ok";
            case "state":
                return "ok";
            default:
                throw new UnsupportedOperationException(words[0]);
        }
    }

    private List<MemorySegment> held(String owner) {
        return owners.getOrDefault(owner, Collections.emptyList());
    }

    private String allocate(String owner, int pages) {
        List<MemorySegment> got;
        try {
            got = manager.allocatePages(owner, pages);
        } catch (MemoryAllocationException refused) {
            return "refused";
        }
        owners.computeIfAbsent(owner, o -> new ArrayList<>()).addAll(got);
        return "" + got.size();
    }

    private int releaseSome(String owner, int pages) {
        List<MemorySegment> held = held(owner);
        int released = 0;
        for (; released < pages && !held.isEmpty(); released++) {
            manager.release(held.get(held.size() - 1));
            held.remove(held.size() - 1);
        }
        return released;
    }

    private int releaseList(String owner, int pages) {
        List<MemorySegment> held = held(owner);
        List<MemorySegment> part = new ArrayList<>(held.subList(Math.max(0, held.size() - pages), held.size()));
        int released = part.size();
        manager.release(part); // clears it
        for (int i = 0; i < released; i++) {
            held.remove(held.size() - 1);
        }
        return released;
    }

    private String releaseAll(String owner) {
        int released = held(owner).size();
        manager.releaseAll(owner);
        owners.remove(owner);
        return "ok freed=" + released;
    }

    @Override
    public String evicted() {
        return "";
    }

    @Override
    public String state() {
        if (manager == null) {
            return "pages=0/0 page=0 empty=true shutdown=false owners{}";
        }
        int taken = 0;
        StringBuilder names = new StringBuilder();
        for (Map.Entry<String, List<MemorySegment>> owner : owners.entrySet()) {
            int pages = owner.getValue().size();
            if (pages > 0) {
                taken += pages;
                names.append(names.length() > 0 ? " " : "").append(owner.getKey()).append('=').append(pages);
            }
        }
        return "pages=" + taken + "/" + manager.getTotalNumPages() + " page=" + manager.getPageSize() + " empty="
                + manager.verifyEmpty() + " shutdown=" + manager.isShutdown() + " owners{" + names + "}";
    }
}
