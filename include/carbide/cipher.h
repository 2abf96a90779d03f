/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_CIPHER_H
#define CARBIDE_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "carbide/status.h"

CB_EXTERN_C_BEGIN

/*
 * Blocks on disk that nobody else can read or change. A cipher seals pieces: what comes out is as
 * long as what went in and CB_CIPHER_TAG_BYTES more, and opens with the same key, in the same file,
 * at the same place, beside the same open data, or not at all. Names and sizes of blocks are not
 * hidden.
 */

enum { CB_CIPHER_SALT_BYTES = 16, CB_CIPHER_TAG_BYTES = 16 };

/** Any thread; a session is one thread's. */
typedef struct cb_cipher {
    /** A file begins: `fresh`, a salt that no file ever had is drawn; else the salt is the file's.
     *  CB_ENOMEM, CB_EIO. */
    cb_status (*begin)(void *ctx, uint8_t salt[CB_CIPHER_SALT_BYTES], bool fresh, void **session,
                       cb_error *err);
    /** A number is used once in a file. `open_bytes` are protected but not hidden. */
    cb_status (*seal)(void *session, uint64_t number, const void *open_bytes, size_t open_count,
                      const void *bytes, size_t count, void *sealed, cb_error *err);
    /** `count`: of `bytes`, without the tag. CB_ECORRUPT: it is not what was sealed. */
    cb_status (*open)(void *session, uint64_t number, const void *open_bytes, size_t open_count,
                      const void *sealed, size_t count, void *bytes, cb_error *err);
    void (*end)(void *session); /**< NULL is fine */
    void *ctx;
} cb_cipher;

/**
 * AES-256-GCM of OpenSSL. Each file has a key of its own, made by HMAC-SHA-256 of `key` (32 bytes,
 * copied) and 16 random bytes; within a file a piece's nonce is its number. So no nonce is used
 * twice under one key. CB_EUNSUPPORTED: built without OpenSSL (CARBIDE_WITH_OPENSSL). CB_ENOMEM.
 */
CB_API CB_MUST_USE cb_status cb_cipher_aes_gcm_create(const uint8_t key[32], cb_cipher **cipher,
                                                      cb_error *err);
/** Its key is overwritten. No store uses it any more. NULL is fine. */
CB_API void cb_cipher_aes_gcm_destroy(cb_cipher *cipher);

CB_EXTERN_C_END

#endif
