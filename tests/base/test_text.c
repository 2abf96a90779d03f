/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <string.h>

#include "base/text.h"

static void test_text_counts_what_does_not_fit(void **state) {
    (void)state;
    for (size_t bytes = 0; bytes <= 12; bytes++) {
        char text[16];
        memset(text, '#', sizeof text);
        cbi_text w = cbi_text_init(text, bytes);
        cbi_text_put(&w, "ab%d", 7);
        cbi_text_put(&w, "%s", "");
        cbi_text_put(&w, "%s", "cdefg");
        assert_int_equal(w.needed, 8);
        if (bytes > 0) {
            char whole[] = "ab7cdefg";
            whole[bytes - 1 < 8 ? bytes - 1 : 8] = '\0';
            assert_string_equal(text, whole);
        }
        assert_int_equal(text[bytes], '#');
    }
}

static void test_text_needs_no_buffer(void **state) {
    (void)state;
    cbi_text w = cbi_text_init(NULL, 0);
    cbi_text_put(&w, "%05d", 1);
    assert_int_equal(w.needed, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_counts_what_does_not_fit),
        cmocka_unit_test(test_text_needs_no_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
