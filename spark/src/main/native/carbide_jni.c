/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of org.apache.spark.shuffle.carbide.CarbideNative. Java holds numbers, not pointers: a
 * handle is a place in a table and the generation of what lies there, so that one that was closed
 * is found out; what is closed while calls are inside goes with the last of them. No lock is held
 * while Java is called.
 *
 * Java is called for memory (CarbideMemory.acquire and release). What it throws is kept until the
 * call that asked ends, because C must still tidy up, and asks Java for more on the way.
 */
#include <jni.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "carbide/shuffle.h"

enum { SLOTS = 4096, SLOT_BITS = 12, FIGURE_COUNT = 9 };

typedef struct slot {
    cb_shuffle *shuffle; /* NULL: free */
    jobject memory;      /* a CarbideMemory */
    uint32_t partitions;
    uint32_t generation;
    uint32_t users;
    bool closing;
} slot;

static slot slots[SLOTS];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static JavaVM *vm;
static jclass native_class;
static jmethodID acquire_method, release_method, refused_method;
static _Thread_local jthrowable thrown; /* by Java, below this call */

/* ---- failures ---- */

static void throw_new(JNIEnv *env, const char *name, const char *message) {
    jclass type = (*env)->FindClass(env, name);
    if (type != NULL) {
        (void)(*env)->ThrowNew(env, type, message);
    }
}

/** Ends a call: throws what Java threw meanwhile, or what `status` says. */
static void finish(JNIEnv *env, cb_status status, const cb_error *err) {
    if (thrown != NULL) {
        jthrowable first = thrown;
        thrown = NULL;
        (void)(*env)->Throw(env, first);
        return;
    }
    if (status == CB_OK) {
        return;
    }
    if (status == CB_EBUDGET || status == CB_ENOMEM) {
        (*env)->CallStaticVoidMethod(env, native_class, refused_method, (jlong)err->bytes_asked,
                                     (jlong)err->bytes_had);
    } else if (status == CB_EINVAL) {
        throw_new(env, "java/lang/IllegalArgumentException", err->message);
    } else if (status == CB_EMISUSE) {
        throw_new(env, "java/lang/IllegalStateException", err->message);
    } else {
        throw_new(env, "java/io/IOException", err->message);
    }
}

/* ---- Spark's memory ---- */

static JNIEnv *current_env(void) {
    void *env = NULL;
    return (*vm)->GetEnv(vm, &env, JNI_VERSION_1_8) == JNI_OK ? env : NULL;
}

static bool keep_thrown(JNIEnv *env) {
    jthrowable now = (*env)->ExceptionOccurred(env);
    if (now == NULL) {
        return false;
    }
    (*env)->ExceptionClear(env);
    if (thrown == NULL) {
        thrown = now;
    } else {
        (*env)->DeleteLocalRef(env, now);
    }
    return true;
}

static uint64_t spark_acquire(void *ctx, cb_mode mode, uint64_t bytes) {
    (void)mode;
    const slot *s = ctx;
    JNIEnv *env = current_env();
    if (env == NULL || thrown != NULL) {
        return 0;
    }
    jlong got = (*env)->CallLongMethod(env, s->memory, acquire_method, (jlong)bytes);
    return keep_thrown(env) || got < 0 ? 0 : (uint64_t)got;
}

static void spark_release(void *ctx, cb_mode mode, uint64_t bytes) {
    (void)mode;
    const slot *s = ctx;
    JNIEnv *env = current_env();
    if (env != NULL) {
        (*env)->CallVoidMethod(env, s->memory, release_method, (jlong)bytes);
        (void)keep_thrown(env);
    }
}

/* ---- handles ---- */

static slot *slot_take(void) {
    slot *found = NULL;
    (void)pthread_mutex_lock(&slots_lock);
    for (int i = 0; i < SLOTS && found == NULL; i++) {
        if (slots[i].generation % 2 == 0) { /* odd: taken */
            found = &slots[i];
            found->generation++;
        }
    }
    (void)pthread_mutex_unlock(&slots_lock);
    return found;
}

static void slot_give(JNIEnv *env, slot *s) {
    cb_shuffle_destroy(s->shuffle);
    if (s->memory != NULL) {
        (*env)->DeleteGlobalRef(env, s->memory);
    }
    (void)pthread_mutex_lock(&slots_lock);
    *s = (slot){.generation = s->generation + 1};
    (void)pthread_mutex_unlock(&slots_lock);
}

static jlong handle_of(const slot *s) {
    return (jlong)s->generation << SLOT_BITS | (jlong)(s - slots);
}

/** [locked] NULL: it was closed, or never was one. */
static slot *slot_of(jlong handle) {
    slot *s = &slots[handle & (SLOTS - 1)];
    return handle > 0 && s->generation == (uint64_t)handle >> SLOT_BITS && s->shuffle != NULL &&
                   !s->closing
               ? s
               : NULL;
}

static slot *enter(JNIEnv *env, jlong handle) {
    (void)pthread_mutex_lock(&slots_lock);
    slot *s = slot_of(handle);
    if (s != NULL) {
        s->users++;
    }
    (void)pthread_mutex_unlock(&slots_lock);
    if (s == NULL) {
        throw_new(env, "java/lang/IllegalStateException", "The native writer is closed.");
    }
    return s;
}

static void leave(JNIEnv *env, slot *s) {
    (void)pthread_mutex_lock(&slots_lock);
    bool last = --s->users == 0 && s->closing;
    (void)pthread_mutex_unlock(&slots_lock);
    if (last) {
        slot_give(env, s);
    }
}

/* ---- the calls ---- */

/* ---- names ---- */

/** A part of a character beyond the first 65,536: the JVM has it in two, each in three bytes. */
static bool is_half(const uint8_t *bytes, uint8_t kind) {
    return bytes[0] == 0xed && (bytes[1] & 0xf0) == kind && (bytes[2] & 0xc0) == 0x80;
}

static uint32_t half_of(const uint8_t *bytes) {
    return (bytes[1] & 0x0fu) << 6 | (bytes[2] & 0x3fu);
}

/** From the JVM's own UTF-8 to the system's, in place; false: there is a NUL in it. */
static bool to_utf8(uint8_t *name) {
    uint8_t *to = name;
    for (const uint8_t *from = name; *from != 0;) {
        if (from[0] == 0xc0 && from[1] == 0x80) {
            return false;
        }
        if (is_half(from, 0xa0) && is_half(from + 3, 0xb0)) {
            uint32_t c = 0x10000 + (half_of(from) << 10 | half_of(from + 3));
            *to++ = (uint8_t)(0xf0 | c >> 18);
            *to++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
            *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
            *to++ = (uint8_t)(0x80 | (c & 0x3f));
            from += 6;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
    return true;
}

/** Freed by the caller; NULL with an exception pending. */
static char *copy_name(JNIEnv *env, jstring name) {
    const char *text = name != NULL ? (*env)->GetStringUTFChars(env, name, NULL) : NULL;
    char *copy = text != NULL ? strdup(text) : NULL;
    if (text != NULL) {
        (*env)->ReleaseStringUTFChars(env, name, text);
    }
    if (copy != NULL && !to_utf8((uint8_t *)copy)) {
        free(copy);
        copy = NULL;
    }
    if (copy == NULL && !(*env)->ExceptionCheck(env)) {
        throw_new(env, "java/lang/IllegalArgumentException",
                  "A name of a file or a folder is missing, or cannot be one.");
    }
    return copy;
}

static void free_folders(char **folders, jsize count) {
    for (jsize i = 0; folders != NULL && i < count; i++) {
        free(folders[i]);
    }
    free(folders);
}

/** NULL with an exception pending. */
static char **copy_folders(JNIEnv *env, jobjectArray array, jsize count) {
    char **folders = calloc((size_t)count + 1, sizeof *folders);
    if (folders == NULL) {
        throw_new(env, "java/lang/OutOfMemoryError", "There is no memory for a native writer.");
        return NULL;
    }
    for (jsize i = 0; i < count; i++) {
        jstring name = (*env)->GetObjectArrayElement(env, array, i);
        folders[i] = copy_name(env, name);
        (*env)->DeleteLocalRef(env, name);
        if (folders[i] == NULL) {
            free_folders(folders, count);
            return NULL;
        }
    }
    return folders;
}

static slot *slot_create(JNIEnv *env, cb_shuffle_options *options, jobject memory) {
    slot *s = slot_take();
    if (s == NULL) {
        throw_new(env, "java/lang/IllegalStateException",
                  "There are 4096 native writers already, more than there can be tasks.");
        return NULL;
    }
    cb_error err;
    s->partitions = options->partitions;
    s->memory = (*env)->NewGlobalRef(env, memory);
    if (s->memory == NULL) {
        slot_give(env, s);
        if (!(*env)->ExceptionCheck(env)) {
            throw_new(env, "java/lang/OutOfMemoryError", "There is no memory for a native writer.");
        }
        return NULL;
    }
    options->parent = (cb_parent){spark_acquire, spark_release, s};
    cb_shuffle *shuffle = NULL;
    cb_status status = cb_shuffle_create(options, &shuffle, &err);
    if (status != CB_OK) {
        slot_give(env, s);
        finish(env, status, &err);
        return NULL;
    }
    (void)pthread_mutex_lock(&slots_lock);
    s->shuffle = shuffle;
    (void)pthread_mutex_unlock(&slots_lock);
    return s;
}

static jlong native_open(JNIEnv *env, jclass type, jobjectArray folders, jint partitions,
                         jint codec, jint level, jint block_bytes, jint checksum, jlong page_bytes,
                         jobject memory) {
    (void)type;
    if (folders == NULL || memory == NULL || partitions < 1 || codec < 0 || checksum < 0 ||
        block_bytes < 0 || page_bytes < 0) {
        throw_new(env, "java/lang/IllegalArgumentException",
                  "A native writer was opened with an argument that cannot be.");
        return 0;
    }
    jsize count = (*env)->GetArrayLength(env, folders);
    char **dirs = copy_folders(env, folders, count);
    if (dirs == NULL) {
        return 0;
    }
    cb_shuffle_options options = {.struct_size = sizeof options,
                                  .partitions = (uint32_t)partitions,
                                  .codec = (cb_shuffle_codec)codec,
                                  .level = level,
                                  .block_bytes = (uint32_t)block_bytes,
                                  .checksum = (cb_shuffle_checksum)checksum,
                                  .page_bytes = (size_t)page_bytes,
                                  .dirs = (const char *const *)dirs,
                                  .dir_count = (size_t)count};
    slot *s = slot_create(env, &options, memory);
    free_folders(dirs, count);
    return s != NULL ? handle_of(s) : 0;
}

static jlong native_address(JNIEnv *env, jclass type, jobject buffer) {
    (void)type;
    void *address = buffer != NULL ? (*env)->GetDirectBufferAddress(env, buffer) : NULL;
    if (address == NULL) {
        throw_new(env, "java/lang/IllegalArgumentException", "This is not a direct buffer.");
    }
    return (jlong)(uintptr_t)address;
}

static void native_append(JNIEnv *env, jclass type, jlong handle, jobject batch, jint bytes) {
    (void)type;
    void *address = batch != NULL ? (*env)->GetDirectBufferAddress(env, batch) : NULL;
    if (address == NULL || bytes < 0 || bytes > (*env)->GetDirectBufferCapacity(env, batch)) {
        throw_new(env, "java/lang/IllegalArgumentException",
                  "A batch is a direct buffer and holds what is taken from it.");
        return;
    }
    slot *s = enter(env, handle);
    if (s != NULL) {
        cb_error err;
        cb_status status = cb_shuffle_append(s->shuffle, address, (size_t)bytes, &err);
        leave(env, s);
        finish(env, status, &err);
    }
}

static jlong native_spill(JNIEnv *env, jclass type, jlong handle, jlong bytes) {
    (void)type;
    (void)bytes;
    /* Spark may ask while the task closes its writer: then there is nothing to spill. */
    (void)pthread_mutex_lock(&slots_lock);
    slot *s = slot_of(handle);
    if (s != NULL) {
        s->users++;
    }
    (void)pthread_mutex_unlock(&slots_lock);
    uint64_t released = 0;
    if (s != NULL) {
        cb_error err;
        cb_status status = cb_shuffle_spill(s->shuffle, &released, &err);
        leave(env, s);
        finish(env, status, &err);
    }
    return (jlong)released;
}

static bool holds(JNIEnv *env, jlongArray array, uint32_t count) {
    return array != NULL && (uint32_t)(*env)->GetArrayLength(env, array) == count;
}

static cb_status refuse(cb_error *err, const char *sentence) {
    *err = (cb_error){.status = CB_EINVAL};
    memcpy(err->message, sentence, strlen(sentence) + 1);
    return CB_EINVAL;
}

static cb_status write_file(JNIEnv *env, const slot *s, const char *path, jlongArray lengths,
                            jlongArray checksums, cb_error *err) {
    bool check = checksums != NULL && (*env)->GetArrayLength(env, checksums) > 0;
    if (!holds(env, lengths, s->partitions) || (check && !holds(env, checksums, s->partitions))) {
        return refuse(err, "Lengths and checksums have one place for each partition.");
    }
    int64_t *figures = calloc(s->partitions, 2 * sizeof *figures);
    if (figures == NULL) {
        *err = (cb_error){.status = CB_ENOMEM, .bytes_asked = 2 * sizeof *figures * s->partitions};
        return CB_ENOMEM;
    }
    jsize count = (jsize)s->partitions;
    cb_status status =
        cb_shuffle_write(s->shuffle, path, figures, check ? figures + count : NULL, err);
    if (status == CB_OK) {
        (*env)->SetLongArrayRegion(env, lengths, 0, count, (const jlong *)figures);
        if (check) {
            (*env)->SetLongArrayRegion(env, checksums, 0, count, (const jlong *)figures + count);
        }
    }
    free(figures);
    return status;
}

static void native_write(JNIEnv *env, jclass type, jlong handle, jstring file, jlongArray lengths,
                         jlongArray checksums) {
    (void)type;
    char *path = copy_name(env, file);
    if (path == NULL) {
        return;
    }
    slot *s = enter(env, handle);
    if (s != NULL) {
        cb_error err;
        cb_status status = write_file(env, s, path, lengths, checksums, &err);
        leave(env, s);
        finish(env, status, &err);
    }
    free(path);
}

static void native_figures(JNIEnv *env, jclass type, jlong handle, jlongArray figures) {
    (void)type;
    if (!holds(env, figures, FIGURE_COUNT)) {
        throw_new(env, "java/lang/IllegalArgumentException", "There are nine figures.");
        return;
    }
    slot *s = enter(env, handle);
    if (s != NULL) {
        cb_shuffle_figures f;
        cb_shuffle_get_figures(s->shuffle, &f);
        jlong values[FIGURE_COUNT] = {
            (jlong)f.pages_peak,  (jlong)f.spilled_bytes, (jlong)f.spill_bytes,
            (jlong)f.spills,      (jlong)f.write_ns,      (jlong)f.copy_ns,
            (jlong)f.compress_ns, (jlong)f.spill_ns,      (jlong)f.merge_ns};
        (*env)->SetLongArrayRegion(env, figures, 0, FIGURE_COUNT, values);
        leave(env, s);
        finish(env, CB_OK, NULL);
    }
}

static void native_close(JNIEnv *env, jclass type, jlong handle) {
    (void)type;
    (void)pthread_mutex_lock(&slots_lock);
    slot *s = slot_of(handle);
    if (s != NULL) {
        s->closing = true;
    }
    bool last = s != NULL && s->users == 0;
    (void)pthread_mutex_unlock(&slots_lock);
    if (last) {
        slot_give(env, s);
        finish(env, CB_OK, NULL);
    }
}

static jint native_writers(JNIEnv *env, jclass type) {
    (void)env;
    (void)type;
    jint count = 0;
    (void)pthread_mutex_lock(&slots_lock);
    for (int i = 0; i < SLOTS; i++) {
        count += slots[i].generation % 2 != 0;
    }
    (void)pthread_mutex_unlock(&slots_lock);
    return count;
}

/* ---- loading ---- */

#define PACKAGE "org/apache/spark/shuffle/carbide/"

/** ISO C has no cast of a function to void *, which is what the JNI wants. */
#define METHOD(java_name, java_signature, c_function)                                              \
    (JNINativeMethod) {                                                                            \
        .name = (char *)(uintptr_t)(java_name), .signature = (char *)(uintptr_t)(java_signature),  \
        .fnPtr = (void *)(uintptr_t)(c_function)                                                   \
    }

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *loaded_by, void *reserved) {
    (void)reserved;
    vm = loaded_by;
    JNIEnv *env = current_env();
    jclass found = env != NULL ? (*env)->FindClass(env, PACKAGE "CarbideNative") : NULL;
    jclass memory = found != NULL ? (*env)->FindClass(env, PACKAGE "CarbideMemory") : NULL;
    if (memory == NULL) {
        return JNI_ERR;
    }
    native_class = (*env)->NewGlobalRef(env, found);
    acquire_method = (*env)->GetMethodID(env, memory, "acquire", "(J)J");
    release_method =
        acquire_method != NULL ? (*env)->GetMethodID(env, memory, "release", "(J)V") : NULL;
    refused_method =
        release_method != NULL ? (*env)->GetStaticMethodID(env, found, "refused", "(JJ)V") : NULL;
    if (native_class == NULL || refused_method == NULL) {
        return JNI_ERR;
    }
    JNINativeMethod methods[] = {
        METHOD("open", "([Ljava/lang/String;IIIIIJL" PACKAGE "CarbideMemory;)J", native_open),
        METHOD("address", "(Ljava/nio/ByteBuffer;)J", native_address),
        METHOD("append", "(JLjava/nio/ByteBuffer;I)V", native_append),
        METHOD("spill", "(JJ)J", native_spill),
        METHOD("write", "(JLjava/lang/String;[J[J)V", native_write),
        METHOD("figures", "(J[J)V", native_figures),
        METHOD("close", "(J)V", native_close),
        METHOD("writers", "()I", native_writers),
    };
    jint count = (jint)(sizeof methods / sizeof methods[0]);
    return (*env)->RegisterNatives(env, found, methods, count) == 0 ? JNI_VERSION_1_8 : JNI_ERR;
}
