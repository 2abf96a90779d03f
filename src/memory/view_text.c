/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text in views. Java's strings are 16-bit characters; its modified UTF-8 writes each of them by
 * itself, in one to three bytes, 0 in two, and so a character beyond 16 bits in six. Here text is
 * UTF-8, and is turned on the way. Half of a pair, which Java allows in a string, is three bytes on
 * both sides.
 */
#include "base/base.h"
#include "carbide/view.h"

enum { UTF_BYTES_MAX = 65535, HIGH_FIRST = 0xd800, LOW_FIRST = 0xdc00, LOW_LAST = 0xdfff };

/** The character at `p`, of up to `left` bytes; answers how many it has, 0 = this is not UTF-8. */
static size_t decode(const uint8_t *p, size_t left, uint32_t *character) {
    if (p[0] < 0x80) {
        *character = p[0];
        return 1;
    }
    size_t bytes = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || bytes > left) {
        return 0;
    }
    uint32_t c = p[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (p[i] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < least[bytes] || c > 0x10ffff) {
        return 0;
    }
    *character = c;
    return bytes;
}

/** One 16-bit character as UTF-8 writes it; 0 in one byte or, `modified`, in two. */
static size_t encode(uint32_t c, bool modified, uint8_t *out) {
    if (c < 0x80 && (c != 0 || !modified)) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    out[0] = (uint8_t)(0xe0 | c >> 12);
    out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c & 0x3f));
    return 3;
}

/** The next one or two 16-bit characters of UTF-8 text; 0 = this is not UTF-8. */
static size_t next_units(const uint8_t *p, size_t left, uint16_t units[2], unsigned *count) {
    uint32_t c = 0;
    size_t bytes = decode(p, left, &c);
    *count = c > 0xffff ? 2 : 1;
    if (*count == 2) {
        units[0] = (uint16_t)(HIGH_FIRST + ((c - 0x10000) >> 10));
        units[1] = (uint16_t)(LOW_FIRST + ((c - 0x10000) & 0x3ff));
    } else {
        units[0] = (uint16_t)c;
    }
    return bytes;
}

/** Bytes of the text in modified UTF-8. */
static cb_status measure(const uint8_t *text, size_t bytes, uint64_t *encoded, cb_error *err) {
    uint64_t sum = 0;
    for (size_t at = 0; at < bytes;) {
        uint16_t units[2];
        unsigned count = 0;
        size_t step = next_units(text + at, bytes - at, units, &count);
        if (step == 0) {
            return cbi_fail(err, CB_EDATA, "The text is not UTF-8: see its byte %zu.", at + 1);
        }
        for (unsigned i = 0; i < count; i++) {
            uint8_t scratch[3];
            sum += encode(units[i], true, scratch);
        }
        at += step;
    }
    *encoded = sum;
    return CB_OK;
}

cb_status cb_output_view_write_chars(cb_output_view *v, const char *text, size_t bytes,
                                     cb_error *err) {
    const uint8_t *p = (const uint8_t *)text;
    uint64_t encoded = 0;
    CB_TRY(measure(p, bytes, &encoded, err));
    for (size_t at = 0; at < bytes;) {
        uint16_t units[2];
        unsigned count = 0;
        at += next_units(p + at, bytes - at, units, &count);
        for (unsigned i = 0; i < count; i++) {
            CB_TRY(cb_output_view_write_u16(v, units[i], err));
        }
    }
    return CB_OK;
}

cb_status cb_output_view_write_utf(cb_output_view *v, const char *text, size_t bytes,
                                   cb_error *err) {
    const uint8_t *p = (const uint8_t *)text;
    uint64_t encoded = 0;
    CB_TRY(measure(p, bytes, &encoded, err));
    if (encoded > UTF_BYTES_MAX) {
        return cbi_fail_bytes(err, CB_EINVAL, encoded, UTF_BYTES_MAX,
                              "The text takes %llu bytes when it is encoded; its length has 16 "
                              "bits, so at most 65535 go.",
                              (unsigned long long)encoded);
    }
    CB_TRY(cb_output_view_write_u16(v, (uint16_t)encoded, err));
    for (size_t at = 0; at < bytes;) {
        uint16_t units[2];
        uint8_t out[6];
        unsigned count = 0;
        at += next_units(p + at, bytes - at, units, &count);
        size_t n = encode(units[0], true, out);
        n += count == 2 ? encode(units[1], true, out + n) : 0;
        CB_TRY(cb_output_view_write(v, out, n, err));
    }
    return CB_OK;
}

cb_status cb_input_view_read_line(cb_input_view *v, char *text, size_t max, size_t *bytes,
                                  cb_error *err) {
    size_t length = 0;
    bool return_kept = false; /* a \r that is not known yet to be the line's end */
    for (bool any = false;; any = true) {
        uint8_t c = 0;
        cb_status status = cb_input_view_read_u8(v, &c, err);
        if ((status == CB_EEND && any) || (status == CB_OK && c == '\n')) {
            break;
        }
        CB_TRY(status);
        if (return_kept) {
            if (length < max) {
                text[length] = '\r';
            }
            length++;
        }
        return_kept = c == '\r';
        if (!return_kept) {
            if (length < max) {
                text[length] = (char)c;
            }
            length++;
        }
    }
    if (length > max) {
        return cbi_fail_bytes(err, CB_EINVAL, length, max,
                              "The line has %zu bytes, and there is room for %zu.", length, max);
    }
    *bytes = length;
    return CB_OK;
}

/** Reads one character of modified UTF-8 of which `left` bytes are there; answers how many bytes
 * were read in *taken. CB_EDATA: malformed. */
static cb_status read_unit(cb_input_view *v, size_t left, uint32_t *unit, size_t *taken,
                           cb_error *err) {
    uint8_t lead = 0;
    CB_TRY(cb_input_view_read_u8(v, &lead, err));
    *taken = 1;
    size_t bytes = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : 0;
    if (bytes == 0 || bytes > left) {
        return cbi_fail(err, CB_EDATA, "Malformed modified UTF-8: %s",
                        bytes == 0 ? "no character begins with such a byte"
                                   : "part of a character at the end");
    }
    uint32_t c = bytes == 1 ? lead : lead & (0x7fu >> bytes);
    while (*taken < bytes) {
        uint8_t rest = 0;
        CB_TRY(cb_input_view_read_u8(v, &rest, err));
        ++*taken;
        if ((rest & 0xc0) != 0x80) {
            return cbi_fail(err, CB_EDATA, "Malformed modified UTF-8: a character breaks off");
        }
        c = c << 6 | (rest & 0x3fu);
    }
    *unit = c;
    return CB_OK;
}

/** Appends a 16-bit character; joins it with the one before where they are a pair. */
static size_t append(uint8_t *out, size_t length, uint32_t unit, uint32_t *before) {
    if (unit >= LOW_FIRST && unit <= LOW_LAST && *before >= HIGH_FIRST && *before < LOW_FIRST) {
        uint32_t c = 0x10000 + ((*before - HIGH_FIRST) << 10) + (unit - LOW_FIRST);
        length -= 3;
        out[length++] = (uint8_t)(0xf0 | c >> 18);
        out[length++] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        out[length++] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[length++] = (uint8_t)(0x80 | (c & 0x3f));
        *before = 0;
        return length;
    }
    *before = unit;
    return length + encode(unit, false, out + length);
}

cb_status cb_input_view_read_utf(cb_input_view *v, char *text, size_t max, size_t *bytes,
                                 cb_error *err) {
    uint16_t encoded = 0;
    CB_TRY(cb_input_view_read_u16(v, &encoded, err));
    if (encoded > max) {
        CB_TRY(cb_input_view_skip(v, encoded, err));
        return cbi_fail_bytes(err, CB_EINVAL, encoded, max,
                              "The text has %u bytes as it is encoded, and there is room for %zu.",
                              encoded, max);
    }
    size_t length = 0;
    uint32_t before = 0;
    for (size_t at = 0; at < encoded;) {
        uint32_t unit = 0;
        size_t taken = 0;
        cb_error why = {0};
        cb_status status = read_unit(v, encoded - at, &unit, &taken, &why);
        at += taken;
        if (status == CB_EDATA) {
            CB_TRY(cb_input_view_skip(v, encoded - at, err));
            return cbi_fail(err, CB_EDATA, "%s, around byte %zu of %u.", why.message, at, encoded);
        }
        if (status != CB_OK) {
            return cbi_fail(err, status, "%s", why.message);
        }
        length = append((uint8_t *)text, length, unit, &before);
    }
    *bytes = length;
    return CB_OK;
}
