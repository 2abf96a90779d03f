/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-GCM for files of blocks. The store knows a cb_cipher only as an interface, so that who links
 * libcarbide.a gets OpenSSL only with a call of cb_cipher_aes_gcm_create.
 */
#include "carbide/cipher.h"

#include <string.h>

#include "base/alloc.h"

#ifdef CARBIDE_HAVE_OPENSSL

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

enum { KEY_BYTES = 32, NONCE_BYTES = 12 };

typedef struct aes_gcm {
    cb_cipher interface; /* first */
    uint8_t key[KEY_BYTES];
} aes_gcm;

static const char label[] = "carbide block file 1";

/** All that OpenSSL lacks here is memory, but for random numbers. */
static cb_status failed(cb_error *err, cb_status status, const char *what) {
    return cbi_fail(err, status, "OpenSSL cannot %s.", what);
}

static cb_status begin(void *ctx, uint8_t salt[CB_CIPHER_SALT_BYTES], bool fresh, void **session,
                       cb_error *err) {
    const aes_gcm *c = ctx;
    uint8_t message[sizeof label + CB_CIPHER_SALT_BYTES], key[KEY_BYTES];
    unsigned bytes = 0;
    if (fresh && RAND_bytes(salt, CB_CIPHER_SALT_BYTES) != 1) {
        return failed(err, CB_EIO, "draw random bytes");
    }
    memcpy(message, label, sizeof label);
    memcpy(message + sizeof label, salt, CB_CIPHER_SALT_BYTES);
    EVP_CIPHER_CTX *s = EVP_CIPHER_CTX_new();
    bool made =
        s != NULL &&
        HMAC(EVP_sha256(), c->key, KEY_BYTES, message, sizeof message, key, &bytes) != NULL &&
        bytes == KEY_BYTES && EVP_CipherInit_ex(s, EVP_aes_256_gcm(), NULL, key, NULL, 1) == 1;
    OPENSSL_cleanse(key, sizeof key);
    if (!made) {
        EVP_CIPHER_CTX_free(s);
        return failed(err, CB_ENOMEM, "begin a file");
    }
    *session = s;
    return CB_OK;
}

/** Key stays; nonce, direction and open data are this piece's. */
static bool start(EVP_CIPHER_CTX *s, uint64_t number, int seals, const void *open_bytes,
                  size_t open_count) {
    uint8_t nonce[NONCE_BYTES] = {0};
    int count = 0;
    cbi_store_u64(nonce + NONCE_BYTES - sizeof number, number);
    return open_count <= INT_MAX && EVP_CipherInit_ex(s, NULL, NULL, NULL, nonce, seals) == 1 &&
           (open_count == 0 || EVP_CipherUpdate(s, NULL, &count, open_bytes, (int)open_count) == 1);
}

static cb_status seal(void *session, uint64_t number, const void *open_bytes, size_t open_count,
                      const void *bytes, size_t count, void *sealed, cb_error *err) {
    EVP_CIPHER_CTX *s = session;
    uint8_t *to = sealed;
    int done = 0;
    if (count > INT_MAX || !start(s, number, 1, open_bytes, open_count) ||
        (count > 0 && EVP_CipherUpdate(s, to, &done, bytes, (int)count) != 1) ||
        EVP_CipherFinal_ex(s, to + done, &done) != 1 ||
        EVP_CIPHER_CTX_ctrl(s, EVP_CTRL_AEAD_GET_TAG, CB_CIPHER_TAG_BYTES, to + count) != 1) {
        return failed(err, CB_ENOMEM, "seal a piece");
    }
    return CB_OK;
}

static cb_status open_piece(void *session, uint64_t number, const void *open_bytes,
                            size_t open_count, const void *sealed, size_t count, void *bytes,
                            cb_error *err) {
    EVP_CIPHER_CTX *s = session;
    const uint8_t *from = sealed;
    uint8_t tag[CB_CIPHER_TAG_BYTES], nothing[1];
    int done = 0;
    memcpy(tag, from + count, sizeof tag);
    if (count > INT_MAX || !start(s, number, 0, open_bytes, open_count) ||
        (count > 0 && EVP_CipherUpdate(s, bytes, &done, from, (int)count) != 1) ||
        EVP_CIPHER_CTX_ctrl(s, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) != 1) {
        return failed(err, CB_ENOMEM, "open a piece");
    }
    if (EVP_CipherFinal_ex(s, count > 0 ? (uint8_t *)bytes + done : nothing, &done) != 1) {
        return cbi_fail(err, CB_ECORRUPT, "A sealed piece was changed, or has another key.");
    }
    return CB_OK;
}

static void end(void *session) {
    EVP_CIPHER_CTX_free(session);
}

cb_status cb_cipher_aes_gcm_create(const uint8_t key[32], cb_cipher **cipher, cb_error *err) {
    aes_gcm *c = cbi_calloc(1, sizeof *c);
    if (c == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a cipher.");
    }
    c->interface =
        (cb_cipher){.begin = begin, .seal = seal, .open = open_piece, .end = end, .ctx = c};
    memcpy(c->key, key, KEY_BYTES);
    *cipher = &c->interface;
    return CB_OK;
}

void cb_cipher_aes_gcm_destroy(cb_cipher *cipher) {
    if (cipher != NULL) {
        OPENSSL_cleanse(cipher, sizeof(aes_gcm));
        cbi_free(cipher);
    }
}

#else

cb_status cb_cipher_aes_gcm_create(const uint8_t key[32], cb_cipher **cipher, cb_error *err) {
    (void)key;
    (void)cipher;
    return cbi_fail(err, CB_EUNSUPPORTED,
                    "This libcarbide was built without OpenSSL (CARBIDE_WITH_OPENSSL=ON).");
}

void cb_cipher_aes_gcm_destroy(cb_cipher *cipher) {
    (void)cipher;
}

#endif
