/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_EXPORT_H
#define CARBIDE_EXPORT_H

/** What a public declaration carries: visible outside the shared library, and its answer must be
 * looked at. */
#if defined(__GNUC__)
#define CB_API __attribute__((visibility("default")))
#define CB_MUST_USE __attribute__((warn_unused_result))
#define CB_NORETURN __attribute__((noreturn))
#else
#define CB_API
#define CB_MUST_USE
#define CB_NORETURN
#endif

#ifdef __cplusplus
#define CB_EXTERN_C_BEGIN extern "C" {
#define CB_EXTERN_C_END }
#else
#define CB_EXTERN_C_BEGIN
#define CB_EXTERN_C_END
#endif

#endif
