// SPDX-License-Identifier: Apache-2.0
package carbide.oracle;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.PrintWriter;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.locks.LockSupport;

/**
 * Runs traces in the language of carbide-simulate(1) on the original classes: Main FOLDER TRACE..., each trace's answers go to
 * TRACE.answers. FOLDER is where the modules were built.
 *
 * <p>Calls that wait. The original waits inside of its own lock, on the thread that calls. So the thread that drives the trace makes
 * every call itself; a second one stands by and looks whether the first is found waiting in a call that may wait. If so it takes
 * over, prints "blocked", and drives on, and the first will come back as the task that went on. After each operation all who
 * were blocked are looked at until each either waits again or is through: a thread that was notified is not in the state
 * WAITING any more, so this is exact and there is no time-out.
 */
public final class Main implements Turn {
    private static final class Pending {
        final long task;
        final Thread thread;
        volatile String result; // set by the thread that waited, when it is through

        Pending(long task, Thread thread) {
            this.task = task;
            this.thread = thread;
        }
    }

    private final Path folder;
    private final Map<String, Engine> engines = new HashMap<>();
    private BufferedReader in;
    private PrintWriter out;
    private Engine engine;
    private long line;
    private String operation;
    private final TreeMap<Long, Pending> blocked = new TreeMap<>();

    private final ThreadLocal<Pending> mine = new ThreadLocal<>(); // this thread's latest call that may wait
    private volatile Thread driver;
    private volatile Pending calling; // in a call that may wait
    private volatile Throwable failure;
    private volatile boolean ended;

    private Main(Path folder) {
        this.folder = folder;
    }

    public static void main(String[] args) throws Exception {
        for (int i = 1; i < args.length; i++) {
            new Main(Path.of(args[0])).runFile(args[i]);
        }
        System.exit(0); // threads that still wait
    }

    private void runFile(String trace) throws Exception {
        try (InputStream bytes = new FileInputStream(trace);
                PrintWriter answers = new PrintWriter(
                        new OutputStreamWriter(Files.newOutputStream(Path.of(trace + ".answers")), StandardCharsets.UTF_8))) {
            in = new BufferedReader(new InputStreamReader(bytes, StandardCharsets.UTF_8), 1 << 16);
            out = answers;
            Thread first = new Thread(() -> drive(false), "driver");
            first.setDaemon(true);
            driver = first;
            first.start();
            standBy();
            while (!ended) {
                Thread.sleep(1);
            }
        }
        if (failure != null) {
            throw new IOException(trace + ":" + line + ": " + operation, failure);
        }
    }

    // ---- who drives ----

    private void standBy() {
        Thread second = new Thread(() -> {
            int idle = 0;
            while (!ended) {
                Thread now = driver;
                Pending call = calling;
                if (call != null && call.thread == now && now.getState() == Thread.State.WAITING && calling == call) {
                    driver = Thread.currentThread();
                    calling = null;
                    standBy();
                    blocked.put(call.task, call);
                    drive(true);
                    return;
                }
                if (call == null || ++idle > 100) {
                    idle = 0;
                    LockSupport.parkNanos(5_000);
                } else {
                    Thread.onSpinWait();
                }
            }
        }, "driver");
        second.setDaemon(true);
        second.start();
    }

    @Override
    public boolean isBlocked(long task) {
        return blocked.containsKey(task);
    }

    @Override
    public void mayWait(long task) {
        Pending call = new Pending(task, Thread.currentThread());
        mine.set(call);
        calling = call;
    }

    @Override
    public boolean isOver(String result) {
        Pending call = calling;
        if (call != null && call.thread == Thread.currentThread() && driver == Thread.currentThread()) {
            calling = null;
            return false;
        }
        mine.get().result = result;
        return true;
    }

    // ---- the trace ----

    private void drive(boolean takenOver) {
        try {
            if (takenOver) {
                answer("blocked");
                out.flush(); // whoever expected something else finds it, whatever comes of this
            }
            String text;
            while ((text = in.readLine()) != null) {
                line++;
                int hash = text.indexOf('#');
                operation = (hash >= 0 ? text.substring(0, hash) : text).trim();
                if (!operation.isEmpty() && !step(operation.split("\\s+"))) {
                    return; // somebody else drives
                }
            }
        } catch (Throwable t) {
            failure = t;
        }
        out.flush();
        ended = true;
    }

    /** One operation; false: this thread waited in it and does not drive any more. */
    private boolean step(String[] words) throws Throwable {
        String result;
        try {
            result = words[0].equals("config") ? configure(words) : engine.run(words, this);
            if (driver != Thread.currentThread()) {
                return false;
            }
        } catch (Exception | AssertionError e) {
            if (driver != Thread.currentThread()) {
                throw new IllegalStateException("an engine must pass on what a waiting call throws", e);
            }
            calling = null;
            result = "error:" + e.getClass().getSimpleName();
        }
        answer(result);
        return true;
    }

    private String configure(String[] words) throws Throwable {
        Map<String, String> values = new LinkedHashMap<>();
        for (int i = 1; i < words.length; i++) {
            int equals = words[i].indexOf('=');
            values.put(words[i].substring(0, equals), words[i].substring(equals + 1));
        }
        String manager = values.getOrDefault("manager", "flink");
        Engine next = engines.get(manager);
        if (next == null) {
            engines.put(manager, next = load(manager));
        }
        if (engine == null) {
            engine = next;
        }
        String answer = next.configure(values);
        engine = next;
        for (Pending p : blocked.values()) {
            p.thread.interrupt();
        }
        blocked.clear();
        return "ok" + answer;
    }

    private void answer(String result) {
        StringBuilder woke = new StringBuilder();
        for (var all = blocked.values().iterator(); all.hasNext(); ) {
            Pending p = all.next();
            if (goesOn(p)) {
                woke.append(woke.length() > 0 ? " " : " woke{").append(p.task).append('=').append(p.result);
                all.remove();
            }
        }
        String evicted = engine.evicted();
        out.append(Long.toString(line)).append(' ').append(operation).append(" -> ").append(result);
        out.append(evicted.isEmpty() ? "" : " ").append(evicted).append(woke).append(woke.length() > 0 ? "}" : "");
        out.append(" | ").append(engine.state()).append('\n');
    }

    /** Looks until the task either waits or is through. */
    private static boolean goesOn(Pending p) {
        for (int tries = 0;; tries++) {
            Thread.State state = p.thread.getState(); // before the result: afterwards the thread may park for other reasons
            if (p.result != null) {
                return true;
            }
            if (state == Thread.State.WAITING) {
                return false;
            }
            if (tries > 200) {
                Thread.yield();
            } else {
                Thread.onSpinWait();
            }
        }
    }

    // ---- engines ----

    private Engine load(String manager) throws Exception {
        String module = switch (manager) {
            case "unified", "task" -> "spark42";
            case "static" -> "spark24";
            case "store" -> "store42";
            default -> "flink19";
        };
        String type = "carbide.oracle." + switch (manager) {
            case "unified", "static" -> "spark.SparkEngine";
            case "task" -> "spark.TaskEngine";
            case "store" -> "store.StoreEngine";
            default -> "flink.FlinkEngine";
        };
        Path target = folder.resolve(module);
        List<URL> urls = new ArrayList<>();
        urls.add(target.resolve("classes").toUri().toURL());
        for (String jar : Files.readString(target.resolve("class-path")).trim().split(File.pathSeparator)) {
            urls.add(Path.of(jar).toUri().toURL());
        }
        ClassLoader loader = new URLClassLoader(urls.toArray(new URL[0]), Main.class.getClassLoader());
        Thread.currentThread().setContextClassLoader(loader);
        return (Engine) loader.loadClass(type).getConstructor().newInstance();
    }
}
